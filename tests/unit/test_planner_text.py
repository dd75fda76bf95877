"""The planner and the text's own guesses, on a simulated machine: when they are asked for, and when not any more."""

from types import SimpleNamespace

import numpy as np
import pytest
from simulated import FLAT, STEEP, TextWorld

from foretoken.drafters.protocol import Draft
from foretoken.drafters.suffix import LEAST_CHANCE, SuffixText
from foretoken.horizon import FixedHorizon, Learned, Paid
from foretoken.horizon.planner import LOOK_SHARE
from foretoken.horizon.text import NEVER, least_chance


def test_the_text_itself_guesses_while_a_model_is_not_worth_it():
    """Every second stretch of 50 tokens stood in the text before."""
    world = TextWorld(FLAT, 0.002, lambda position, depth: 0.95, lambda position: position // 50 % 2, length=1000)
    seconds = world.auto()
    assert world.fixed(0) / seconds > 1.5
    assert world.asks["suffix"] and all(map(world.has_guess, world.asks["suffix"])), "only where it has a guess"
    assert 0 < len(world.asks["mtp"]) < 10, "the model is still looked at, now and then"


@pytest.mark.parametrize("draft_s", [0.002, 0.1])
def test_guesses_of_the_text_that_bring_nothing_hardly_cost_anything(draft_s):
    world = TextWorld(STEEP, draft_s, lambda position, depth: 0.1, length=1000)
    assert world.fixed(0) / world.auto() > 0.98


def test_the_text_may_guess_far_while_it_is_right_though_a_model_is_worth_one_token():
    """The model is hardly ever right, and asked for a token; where the text leads, all of its guesses are right."""
    learned = Learned()
    learned.costs.restore(
        {
            "level": 1.0,
            "passes": {"0": {str(rows): [1.0 + 0.03 * (rows - 1), 9] for rows in range(1, 18)}},
            "drafts": {},
        }
    )
    horizon = learned.horizon("auto")
    habit = horizon._habit
    habit.reach["mtp+suffix"], habit.worth["mtp+suffix"] = 8, [0.2, 0.02]
    drafter = SimpleNamespace(name="mtp+suffix")
    told = SimpleNamespace(sampling=SimpleNamespace(temperature=0.0))
    text = SimpleNamespace(drafter=drafter, repeats=SuffixText(), tokens=list(range(20)), source="mtp", sampler=told)
    horizon.read(text)
    limits = []
    for number in range(60):
        is_led, first = number >= 40, len(text.tokens)
        text.source = "suffix" if is_led else "mtp"
        right = horizon.limit if is_led else number % 2
        guess = [first + i if i < right else 9 for i in range(horizon.limit)]
        chances = np.full(len(guess), 0.99) if is_led else np.array([0.5, *[0.05] * 15][: len(guess)])
        limits.append(len(guess))
        count = horizon.choose(Draft(guess, chances.tolist()), text, 1)
        accepted = min(count, right)
        text.tokens += range(first, first + accepted + 1)
        paid = Paid(count + 1, 0, 1, accepted + 1, first, 1.0 + 0.03 * count, {text.source: [len(guess)]}, 0.01)
        horizon.observe(text, paid)
    assert min(limits[30:40]) >= 1 and max(limits[30:40]) <= 2
    assert max(limits[40:50]) == 16


def copied(rounds=40):
    """A horizon, and a text that has copied itself for so many rounds, at a row for 0.3 of a plain pass."""
    learned = Learned()
    passes = {"0": {str(rows): [1.0 + 0.3 * (rows - 1), 9] for rows in range(1, 18)}}
    learned.costs.restore({"level": 1.0, "passes": passes, "drafts": {"mtp": [1.0, 1.0, 1.0, 0.0, 0.0]}})
    horizon = learned.horizon("auto")
    text = SimpleNamespace(
        drafter=SimpleNamespace(name="mtp+suffix"),
        repeats=SuffixText(),
        tokens=[1],
        source="suffix",
        sampler=SimpleNamespace(sampling=SimpleNamespace(temperature=0.0)),
    )
    for _ in range(rounds):
        guessed(horizon, text, 8, 0.99, 8)
    return horizon, text


def guessed(horizon, text, count, chance, right):
    """A round with so many draft tokens, of which the first few are right; returns how many got a row."""
    at = len(text.tokens)
    draft = Draft([at + i if i < right else 0 for i in range(count)], [chance] * count)
    rows = horizon.choose(draft, text, 1)
    accepted = min(rows, right)
    text.tokens += range(at, at + accepted + 1)
    horizon.observe(text, Paid(rows + 1, 0, 1, accepted + 1, at, 1.0 + 0.3 * rows, {text.source: [count]}, 0.0))
    return rows


def test_what_the_text_itself_brings_makes_no_row_of_a_model_dearer():
    """At 2.6 tokens a unit a row costs 0.8 of one; what a model guesses saves plain rounds, and 0.6 is enough."""
    horizon, text = copied()
    assert horizon._text_rate.value == pytest.approx(9 / 3.4, rel=0.1)
    fresh, other = copied(0)
    text.source = other.source = "mtp"
    assert guessed(horizon, text, 2, 0.6, 0) == guessed(fresh, other, 2, 0.6, 0) > 0
    assert horizon._habit.time == fresh._habit.time, "copies say nothing of later texts either"


def test_the_texts_own_rows_cost_what_copying_would_bring_for_a_while():
    """Guesses at a half get none while eight sure ones are what a round brings, and some when that is long ago."""
    horizon, text = copied()
    rows = [guessed(horizon, text, 1, 0.5, number % 2) for number in range(60)]
    assert not any(rows[:3])
    assert any(rows[40:])


def test_the_text_is_asked_where_its_guesses_may_pay_for_their_rows():
    """A row costs 0.45 tokens on the one machine, which a chance of 0.3 never pays for, and 0.08 on the other."""
    asks = {}
    for name, costs, chance in (("no", STEEP, 0.3), ("one row", STEEP, 0.8), ("yes", FLAT, 0.3)):
        asks[name] = 0
        for seed in range(5):  # a text whose first guesses are wrong does not ask for more
            world = TextWorld(costs, 0.002, lambda position, depth, chance=chance: chance, length=600, seed=seed)
            world.auto()
            asks[name] += sum(100 < at < 512 for at in world.asks["suffix"])  # then the costs are new
    assert asks["no"] == 0 and min(asks["one row"], asks["yes"]) > 250


def test_a_new_machine_learns_what_a_plain_pass_takes_before_the_text_is_asked():
    """Else a text with a guess everywhere never makes a plain pass, and no row ever seems dear."""
    learned = Learned()
    TextWorld(STEEP, 0.002, lambda position, depth: 0.3, length=100).auto(learned=learned)
    assert learned.costs.is_known(100, 1)
    assert learned.costs.curve(100)[2] / learned.costs.curve(100)[1] == pytest.approx(STEEP[2], rel=0.1)


def test_plain_passes_come_first_in_a_context_that_is_new():
    """What passes take is known up to 512 tokens only; the first round drafts, by what is known there."""
    learned = Learned()
    TextWorld(FLAT, 0.002, lambda position, depth: 0.9, length=300).auto(learned=learned)
    horizon, drafter = learned.horizon("auto"), SimpleNamespace(name="mtp+suffix")
    text = SimpleNamespace(drafter=drafter, repeats=SuffixText(), tokens=list(range(600)) * 2, source="mtp")
    horizon.read(text)
    for _ in range(3):
        text.tokens.append(len(text.tokens) % 600)
        paid = Paid(1, 0, 1, 1, len(text.tokens), 3.0, {}, 0.0)
        horizon.observe(text, paid)
        assert (horizon.limit, horizon.reason) == (0, "measuring")
    for _ in range(2):
        learned.costs.add(paid)  # the first of its kind is not counted
    horizon.observe(text, paid)
    assert horizon.limit > 0


@pytest.mark.parametrize("sources", ["mtp+suffix", "suffix"])
def test_the_text_is_asked_where_every_pass_is_dear(sources):
    """Behind 512 tokens a plain pass takes three times what it did, and so does a row more."""

    class Long(TextWorld):
        name = sources

        def costs_at(self, at):
            return [3.0 * cost for cost in self.costs] if at >= 512 else self.costs

    world = Long(STEEP, 0.002, lambda position, depth: 0.97, lambda position: position > 600, length=1200)
    world.text[600:700] = world.text[100:200]
    learned = Learned()
    short = Long(STEEP, 0.002, lambda position, depth: 0.97, length=500)
    for one, limit in ((world, 0), (world, 1), (world, 2), *((short, n) for n in (1, 2, 0, 0, 0, 0))):
        one.run(FixedHorizon(limit), learned.costs)
    assert learned.costs.curve(600)[1] == pytest.approx(3.0, rel=0.1)
    rounds = []
    world.auto(lambda at, *_: rounds.append(at), learned)
    assert sum(at > 700 for at in world.asks["suffix"]) > 0.9 * sum(at > 700 for at in rounds) > 0


@pytest.mark.parametrize("costs, ask_s, chance, least", [(STEEP, 0.002, 0.8, 1.15), (FLAT, 0.1, 0.6, 1.4)])
def test_a_text_whose_guesses_pay_is_not_given_up_by_bad_luck(costs, ask_s, chance, least):
    """Each guess says little: even in the worst of ten texts most of what they are worth is had."""
    for seed in range(10):
        world = TextWorld(costs, ask_s, lambda position, depth: chance, length=600, seed=seed)
        assert world.fixed(0) / world.auto() > least, seed


@pytest.mark.parametrize("costs", [STEEP, FLAT])
def test_a_text_that_is_sure_and_wrong_hardly_costs_anything(costs):
    """Asking takes a tenth of a pass, and the text never learns; texts share what they may lose."""
    learned, plain, auto = Learned(), 0.0, 0.0
    for seed in range(4):
        sure = {"chance": lambda position, depth: 0.1, "confidence": lambda position, depth: 0.9}
        world = TextWorld(costs, 0.1, length=500, seed=seed, **sure)
        plain += world.fixed(0)
        auto += world.auto(learned=learned)
    assert plain / auto > 0.98


def test_a_prompt_is_taken_in_when_it_has_been_read():
    for name, expected in (("mtp+suffix", 30), ("suffix", 30), ("mtp", 0)):
        state = SimpleNamespace(drafter=SimpleNamespace(name=name), repeats=SuffixText(), tokens=list(range(30)))
        Learned().horizon("auto").read(state)
        assert state.repeats.size == expected, name


def test_a_sleeping_text_keeps_count_when_another_joins():
    """It sleeps through plain rounds; a pass with a second text wakes it, and all rounds bring credit for looks."""
    learned = Learned()
    learned.costs.restore({"level": 1.0, "passes": {"0": {"1": [1.0, 9], "2": [1.4, 9]}}, "drafts": {}})
    horizon = learned.horizon("auto")
    drafter = SimpleNamespace(name="mtp+suffix")
    state = SimpleNamespace(drafter=drafter, repeats=SuffixText(), tokens=list(range(20)), source="mtp")
    habit = horizon._habit
    habit.worth["mtp+suffix"], habit.credit = [0.0], -2.0
    horizon.read(state)
    before = habit.credit
    for number in range(1, 41):
        state.tokens.append(100 + number)
        texts = 2 if number == 20 else 1
        horizon.observe(state, Paid(texts, 0, texts, texts, len(state.tokens), 1.0 + 0.4 * (texts - 1), {}, 0.0))
        assert not horizon.limit
        assert habit.credit == pytest.approx(before + number * LOOK_SHARE)
    assert horizon._asleep_to > len(state.tokens)


def test_a_text_too_long_for_the_memory_is_decoded_plainly():
    class TooLong(SuffixText):
        def tells(self, tokens, chance, length):
            raise MemoryError("no room")

    world = TextWorld(FLAT, 0.002, lambda position, depth: 0.9, length=60)
    world.repeats = TooLong
    world.auto()
    assert len(world.failed) == 1 and not world.asks["suffix"]


def test_what_the_text_guesses_is_taken_up_again_where_it_repeats_itself():
    """Asking it takes a tenth of a pass and brings nothing, until at 600 the text begins anew."""
    world = TextWorld(FLAT, 0.1, lambda position, depth: 0.97, lambda position: position > 600, length=800)
    world.text[600:700] = world.text[100:200]
    world.auto()
    assert not any(100 < at < 600 for at in world.asks["suffix"])
    assert any(600 < at < 610 for at in world.asks["suffix"])


@pytest.mark.parametrize(
    ("prices", "least"),
    [
        ([0.5], 33 / 64),  # more than half of a token
        ([0.5, 0.7], 31 / 64),  # 0.475 + 0.475² is 0.7
        ([1.0, 1.5, 1.8], 49 / 64),  # three tokens of 0.7655 each bring 1.8; two would have to be of 0.8229, one of 1
        ([0.01, 5.0], LEAST_CHANCE),
        ([1.0, 2.0, 3.5, 4.0], NEVER),
    ],
)
def test_how_sure_the_text_must_be(prices, least):
    assert least_chance(prices) == least
