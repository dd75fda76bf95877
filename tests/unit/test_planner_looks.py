"""Drafts that are only looked at: how often, when, and who pays for them. On the simulated machine of `simulated`."""

import pytest
from simulated import FLAT, STEEP, World

from foretoken.horizon import Learned


def asked(learned, world):
    """Rounds of a text in which a model is asked."""
    horizon, limits = learned.horizon("auto"), []
    world.run(horizon, learned.costs, lambda *_: limits.append(horizon.model_limit))
    return sum(map(bool, limits))


@pytest.mark.parametrize("draft_s", [0.02, 0.1, 0.5])
def test_short_texts_with_a_hopeless_drafter_do_not_each_begin_with_a_look(draft_s):
    learned, auto, plain = Learned(), 0.0, 0.0
    for seed in range(100):
        world = World(STEEP, draft_s, lambda position, depth: 0.0, lambda position, depth: 0.9, length=40, seed=seed)
        seconds = world.auto(learned=learned)
        if seed >= 20:
            auto, plain = auto + seconds, plain + world.fixed(0)
    assert plain / auto > 0.985


def test_looks_find_out_that_a_hopeless_text_has_changed():
    chosen = []
    world = World(FLAT, 0.02, lambda position, depth: 0.97 if position > 600 else 0.02, length=800)
    world.auto(lambda at, count, chances, right: chosen.append((at, count)))
    parked = [count for at, count in chosen if 300 < at < 590]
    assert sum(parked) < 0.1 * len(parked)
    back = next(at for at, count in chosen if at > 600 and count >= 4)
    assert back < 640


def test_a_drafter_that_was_never_right_is_looked_at_more_seldom():
    looks, learned = [], Learned()
    world = World(FLAT, 0.25, lambda position, depth: 0.0, lambda position, depth: 0.9, length=6000)
    world.auto(lambda at, count, chances, right: looks.append(at) if chances else None, learned)
    late = [at for at in looks if at > 3000]
    assert 5 <= len(late) <= 14  # two draft tokens, half a pass: 0.007 of the time would be forty looks


def test_an_event_makes_it_look_at_once():
    looks = {}
    for name, event_of in (("none", None), ("at 500", lambda token: token == 500)):
        learned = Learned(event_of=event_of)
        world = World(FLAT, 0.25, lambda position, depth: 0.0, length=520)
        world.text = list(range(600))
        asked = looks[name] = []
        world.auto(lambda at, count, chances, right, asked=asked: asked.append(at) if chances else None, learned)
    assert 501 in looks["at 500"] and 501 not in looks["none"]


def test_an_event_wakes_a_model_known_as_useless_within_four_tokens():
    """Of its sleep three rounds in four are not looked at; what came in them is not missed."""
    for event in range(500, 504):
        learned = Learned(event_of=lambda token, event=event: token == event)
        for seed in range(12):
            world = World(FLAT, 0.2, lambda position, depth: 0.0, lambda position, depth: 1.0, length=60, seed=seed)
            world.text = [2000 + token for token in world.text]
            world.auto(learned=learned)
        world = World(FLAT, 0.2, lambda position, depth: 0.0, lambda position, depth: 1.0, length=520)
        world.text, looks = list(range(600)), []
        world.auto(lambda at, count, chances, right, looks=looks: looks.append(at) if chances else None, learned)
        assert [at for at in looks if event < at <= event + 4], looks


def test_a_text_knows_from_the_start_that_its_drafter_is_useless():
    """A look that others have paid for in vain is not the first thing that a text does."""
    learned, looks = Learned(), []
    for seed in range(12):
        world = World(FLAT, 0.2, lambda position, depth: 0.0, lambda position, depth: 1.0, length=60, seed=seed)
        looks.append(asked(learned, world))
    assert looks[0] > 0 and sum(looks[4:]) <= 2, looks


def test_looks_become_rare_where_they_find_nothing_text_after_text():
    """A model that is right once a draft and too dear for that: it is not useless, and not worth looking at either."""
    learned, looks = Learned(), []
    for seed in range(130):
        world = World(STEEP, 0.5, lambda position, depth: 0.8 * (depth == 0), lambda p, d: 0.9, length=60, seed=seed)
        looks.append(asked(learned, world))
    early = sum(looks[10:50])
    assert early > 0 and sum(looks[90:]) <= 0.6 * early
