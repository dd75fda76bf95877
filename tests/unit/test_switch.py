"""What a round takes more behind one of another kind, and what planners make of it."""

import pytest
from simulated import STEEP, World, paid

from foretoken.errors import InputError
from foretoken.horizon import Learned
from foretoken.horizon.cost import Costs
from foretoken.horizon.switch import DRAFTED, GUESSED, PLAIN, Switches
from foretoken.horizon.worth import limit_of


def told(costs, rows, seconds, length=0, draft_s=0.0, name="mtp"):
    asked = {name: [length]} if length else {}
    costs.add(paid(rows, seconds, drafters=asked, draft_s=draft_s))


def test_what_a_switch_takes_is_told_apart_from_what_passes_and_drafts_take():
    costs = Costs()
    for _ in range(120):
        told(costs, 4, 1.6, 3, 0.5)  # behind a plain pass: 0.2 more than the next one
        told(costs, 4, 1.6, 3, 0.3)
        told(costs, 1, 1.3)  # behind a drafted one: 0.3 more
        told(costs, 1, 1.0)
        told(costs, 3, 1.4, 2, 0.01, "suffix")
        told(costs, 1, 1.1)
        told(costs, 1, 1.0)
    switches, level = costs.switches, costs.level
    assert switches.of_plain(GUESSED) == pytest.approx(0.3, abs=0.02)
    assert switches.of_plain(DRAFTED) == pytest.approx(0.1, abs=0.02)
    assert switches.of_guess(PLAIN) == switches.of_guess(DRAFTED) == pytest.approx(0.2, abs=0.02)
    assert switches.of_plain(PLAIN) == switches.of_guess(GUESSED) == 0.0
    assert costs.curve(100)[1] * level == pytest.approx(1.0, abs=0.02)
    start, step = costs.draft("mtp")
    assert (start + 3 * step) * level == pytest.approx(0.3, abs=0.02)


def test_a_slower_machine_is_no_switch():
    costs = Costs()
    for speed in (1.0, 3.0, 0.7):
        for _ in range(60):
            told(costs, 1, speed)
            told(costs, 4, 1.3 * speed, 3, 0.3 * speed)
            told(costs, 4, 1.3 * speed, 3, 0.3 * speed)
            told(costs, 1, speed)
    assert costs.switches.of_plain(GUESSED) < 0.05 and costs.switches.of_guess(PLAIN) < 0.05


def test_switches_are_kept():
    switches, again = Switches(), Switches()
    for _ in range(40):
        switches.add_plain(GUESSED, 1.5)
        switches.add_plain(PLAIN, 1.0)
        switches.add_guess(PLAIN, 0.1)
        switches.add_guess(GUESSED, 0.0)
    again.restore(switches.as_list())
    assert again.of_plain(GUESSED) == pytest.approx(switches.of_plain(GUESSED), abs=1e-4) != 0.0
    assert again.of_guess(PLAIN) == pytest.approx(switches.of_guess(PLAIN), abs=1e-4) != 0.0
    costs = Costs()
    told(costs, 1, 1.0)
    told(costs, 1, 1.0)
    kept = costs.as_dict()
    kept["switches"] = switches.as_list()
    other = Costs()
    other.restore(kept)
    assert other.switches.as_list() == pytest.approx(switches.as_list(), abs=1e-4)
    del kept["switches"]  # an older file
    Costs().restore(kept)


@pytest.mark.parametrize("kept", [[0.0] * 4, [0.0, 0.0, "x"], [0.0, 0.0, 1e9], [0.0, 0.0, float("nan")], None, {}])
def test_switches_that_cannot_be_are_refused(kept):
    with pytest.raises(InputError):
        Switches().restore(kept)


class Caches(World):
    """A plain pass behind a drafted one, and a draft behind a plain pass, take longer."""

    before = now = False

    def guess(self, horizon, at, limit):
        draft, source, seconds = super().guess(horizon, at, limit)
        self.now = len(draft.tokens) > 0
        return draft, source, seconds + (0.0 if self.before or not self.now else 0.4)

    def costs_at(self, at):
        more = 0.8 if self.before and not self.now else 0.0
        self.before, self.now = self.now, False
        return [0.0, self.costs[1] + more, *self.costs[2:]]


def over_best(world_type, draft_s, good, bad, stretch):
    """Mean time of `auto`, in the second text of a machine, over that of the best number: of three machines."""
    total = 0.0
    for seed in range(3):
        learned = Learned()
        for _ in range(2):
            world = world_type(STEEP, draft_s, lambda position, depth: good if position // stretch % 2 == 0 else bad,
                               length=1500, seed=seed)  # fmt: skip
            seconds = world.auto(learned=learned)
        total += seconds / world.best_fixed(range(9))
    return total / 3


def test_stretches_in_which_a_model_is_right_are_used():
    """What it brings there makes the rate high, at which it seems too dear a round later."""
    assert over_best(World, 0.15, 0.95, 0.6, 6) < 1.01
    assert over_best(World, 0.1, 0.95, 0.3, 8) < 1.0


def test_where_changing_is_dear_drafts_are_left_less():
    assert over_best(Caches, 0.1, 0.9, 0.5, 12) < 1.04


def test_a_lucky_stretch_is_no_reason_for_plain_decoding():
    """At its rate nothing seems worth its time; but all of it is faster than plain decoding."""
    curve = [0.0, *(1.0 + 0.2 * i for i in range(17))]
    assert limit_of([0.6] * 8, 3.0, 1.0, curve, 0.0, 0.25, 8) == 8
    assert limit_of([0.2] * 8, 3.0, 1.0, curve, 0.0, 0.25, 8) == 0
    assert limit_of([0.3] * 8, 1.0, 1.0, curve, 0.5, 0.25, 8) == 0  # the start of the draft eats it
    assert limit_of([0.3] * 8, 1.0, 1.0, curve, 0.3, 0.25, 8) == 8
    assert limit_of([0.3] * 8, 1.0, 1.0, curve, 0.5 - 0.2, 0.25, 8) == 8  # and plain decoding would cost 0.2 more


def test_the_rate_decides_how_many():
    curve = [0.0, *(1.0 + 0.1 * i for i in range(17))]
    worth = [0.8, 0.6, 0.4, 0.2, 0.05]
    assert limit_of(worth, 1.0, 1.0, curve, 0.0, 0.1, 5) == 4
    assert limit_of(worth, 2.0, 1.0, curve, 0.0, 0.1, 5) == 3
    assert limit_of(worth, 1.0, 1.0, curve, 0.0, 0.1, 2) == 2
    assert limit_of([0.8], 1.0, 1.0, curve, 0.0, 0.1, 16) == 10  # 0.8 times as much a depth: 0.107 at the tenth
