"""The planner on a simulated machine: costs and chances are known, so the best horizon is as well."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from simulated import FLAT, STEEP, STEPS, World, paid

from foretoken.bench.calibration import calibration_error
from foretoken.drafters.protocol import Draft
from foretoken.drafters.suffix import SuffixText
from foretoken.horizon import AutoHorizon, FixedHorizon, Learned, Paid
from foretoken.horizon.chance import Chance, Weights
from foretoken.horizon.cost import Costs
from foretoken.horizon.events import FENCES, NO_EVENT, Events
from foretoken.horizon.habit import Habit
from foretoken.ops import log_odds, native
from foretoken.sampling import Sampling

MACHINES = {"flat": FLAT, "steep": STEEP, "steps": STEPS}


def state(length, temperature=0.0):
    return SimpleNamespace(
        tokens=list(range(length)),
        drafter=SimpleNamespace(name="mtp"),
        source="mtp",
        sampler=SimpleNamespace(sampling=SimpleNamespace(temperature=temperature)),
    )


@pytest.mark.parametrize("draft_s", [0.01, 0.1])
@pytest.mark.parametrize("chance", [0.5, 0.9])
@pytest.mark.parametrize("machine", MACHINES)
def test_near_the_best_fixed_horizon(machine, chance, draft_s):
    """The first text pays for finding out; the third one knows the machine."""
    learned = Learned()
    worlds = [World(MACHINES[machine], draft_s, lambda position, depth: chance, seed=seed) for seed in range(3)]
    shares = [world.best_fixed((1, 2, 3, 4, 6, 8, 10, 12)) / world.auto(learned=learned) for world in worlds]
    assert shares[0] > 0.85 and shares[2] > 0.95


@pytest.mark.parametrize("draft_s", [0.01, 0.1, 0.25])
@pytest.mark.parametrize("machine", MACHINES)
def test_always_wrong_drafts_hardly_cost_anything(machine, draft_s):
    """The drafter is sure of itself, and wrong at every token."""
    world = World(MACHINES[machine], draft_s, lambda position, depth: 0.0, lambda position, depth: 1.0, length=400)
    assert world.fixed(0) / world.auto() > 0.98


@pytest.mark.parametrize("draft_s", [0.01, 0.1, 0.25])
@pytest.mark.parametrize("machine", MACHINES)
def test_wrong_from_the_second_token_on(machine, draft_s):
    world = World(MACHINES[machine], draft_s, lambda position, depth: 0.85 * (depth == 0), lambda p, d: 0.9)
    seconds = world.auto()
    assert world.fixed(0) / seconds > 0.98
    if machine == "flat":
        assert world.best_fixed() / seconds > 0.95


@pytest.mark.parametrize("draft_s", [0.01, 0.1])
def test_follows_a_text_that_changes(draft_s):
    """Domains of 64 tokens, nearly certain and nearly hopeless: better than every fixed horizon."""
    world = World(FLAT, draft_s, lambda position, depth: 0.95 if position // 64 % 2 else 0.05)
    assert world.best_fixed() / world.auto() > 1.03


def test_a_good_text_after_a_bad_one_is_soon_drafted_deeply():
    """As good as the best number in hindsight, over 60 short texts with as many bad ones between them."""
    costs = [0.0, 1.0, 1.06, 1.2, 1.36, 1.6, 1.9, 2.3, *(2.7 + 0.28 * i for i in range(10))]
    learned, auto, best = Learned(), 0.0, np.zeros(5)

    def text(mean, seed):
        chances = np.random.default_rng(seed).beta(1.2 * mean, 1.2 * (1 - mean), 180).clip(0.02, 0.99)
        return World(costs, 0.08, lambda position, depth: chances[position], length=80, seed=seed)

    for seed in range(60):
        text(0.2, seed).auto(learned=learned)
        auto += text(0.93, seed).auto(learned=learned)
        best += [text(0.93, seed).fixed(horizon) for horizon in range(2, 7)]
    assert best.min() / auto > 0.97


@pytest.mark.parametrize("machine", MACHINES)
def test_short_texts_begin_with_what_those_before_have_shown(machine):
    """Twenty texts of 54 tokens behind four others of their kind: near the number that is best for all of them."""
    shares = []
    for chance in (0.5, 0.7, 0.9, 0.97):
        learned, auto, best = Learned(), 0.0, np.zeros(8)
        for seed in range(24):
            world = World(MACHINES[machine], 0.01, lambda position, depth, p=chance: p, length=64, seed=seed)
            seconds = world.auto(learned=learned)
            if seed >= 4:
                auto += seconds
                best += [world.fixed(horizon) for horizon in (0, 1, 2, 3, 4, 6, 8, 10)]
        shares.append(best.min() / auto)
    assert np.mean(shares) > 0.96


def test_behind_good_texts_a_hopeless_drafter_is_soon_found_out():
    """It is sure of itself; its first texts may begin with drafts as long as the good ones were."""
    learned, auto, plain = Learned(), 0.0, 0.0
    for seed in range(10):
        World(STEEP, 0.01, lambda position, depth: 0.97, length=200, seed=seed).auto(learned=learned)
    for seed in range(30):
        world = World(STEEP, 0.01, lambda position, depth: 0.0, lambda position, depth: 0.9, length=64, seed=seed)
        seconds = world.auto(learned=learned)
        if seed >= 5:
            auto, plain = auto + seconds, plain + world.fixed(0)
    assert plain / auto > 0.985


def test_nearly_free_rows_do_not_keep_a_hopeless_drafter_going():
    """Rows cost hardly anything, a guess little; what is never right still is not worth it."""
    costs = [0.0, *(1.0 + 0.005 * (rows - 1) for rows in range(1, 18))]
    learned, auto, plain = Learned(), 0.0, 0.0
    for seed in range(30):
        noise = np.random.default_rng(seed).beta(2, 2, (200, 17))  # what it says of itself
        world = World(costs, 0.024, lambda p, d: 0.0, lambda p, d, said=noise: said[p, d], length=74, seed=seed)
        seconds = world.auto(learned=learned)
        if seed >= 3:
            auto, plain = auto + seconds, plain + world.fixed(0)
    assert plain / auto > 0.985


def test_the_rate_of_several_texts_together_is_not_that_of_the_next_one():
    costs, habit = Costs(), Habit()
    shared = paid(24, 2.8, texts=8, context=20, tokens=20)
    for _ in range(8):
        costs.add(shared)
    horizon = AutoHorizon(costs, lambda name: Chance(Weights(name)), habit=habit)
    horizon.observe(state(20), shared)
    assert (habit.tokens, habit.time) == (0.0, 0.0)
    horizon.observe(state(20), replace(shared, rows=3, texts=1, tokens=2))
    assert habit.tokens > 0


def test_far_between_measured_row_counts_costs_are_a_slope():
    costs = Costs()
    for rows in 17 * [1, 17]:  # filled anew after 32 that count
        costs.add(paid(rows, {1: 1.0, 17: 3.4}[rows], context=20))
    assert costs.curve(20)[9] == pytest.approx((costs.curve(20)[1] + costs.curve(20)[17]) / 2)


def test_steps_of_costs_are_found():
    """Of 3 and 5 rows the costs are known: 4 are taken for little more than 3, not for the mean, or nobody tried."""
    costs = Costs()
    for rows in 6 * [1, 3, 5]:
        costs.add(paid(rows, {1: 1.0, 3: 1.04, 5: 1.5}[rows], context=20))
    curve = costs.curve(20)
    assert curve[3] < curve[4] < 1.1 and curve[5] > 1.4


def test_uses_the_confidence_of_each_token():
    hard = np.random.default_rng(5).random(4000) < 0.5
    world = World(STEEP, 0.01, lambda position, depth: 0.3 if hard[position] else 0.97)
    assert world.best_fixed() / world.auto() > 1.05


@pytest.mark.parametrize(("name", "low", "high"), [("short", 2, 3), ("long", 5, 10)])
def test_bounds_hold_whatever_it_costs(name, low, high):
    seen = set()
    world = World(STEEP, 0.1, lambda position, depth: 0.1, length=200)
    world.auto(lambda at, count, chances, right: at < 200 - high and seen.add(count), name=name)
    assert min(seen) >= low and max(seen) <= high


@pytest.mark.parametrize(("name", "low", "high"), [("short", 2, 3), ("long", 5, 10)])
def test_within_bounds_what_pays_is_found(name, low, high):
    """Where nearly all is right and rows are cheap nearly all rounds take the most, and where nothing is the least."""
    for chance, wanted in ((0.97, high), (0.05, low)):
        seen = []
        world = World(FLAT, 0.01, lambda position, depth, chance=chance: chance, length=1500)
        world.auto(lambda at, count, chances, right, seen=seen: seen.append(count), name=name)
        half = seen[len(seen) // 2 : -high]
        assert half.count(wanted) > 0.9 * len(half)


def test_a_chance_below_the_least_gets_no_row():
    seen = []
    world = World(FLAT, 0.01, lambda position, depth: 0.5, length=300)
    world.auto(lambda at, count, chances, right: seen.append(count), Learned(min_chance=0.999))
    assert max(seen) == 0
    draft = Draft([1, 2, 3], [0.9, 0.5, 0.9])
    assert FixedHorizon(3, min_chance=0.4).choose(draft, state(20), 1) == 3
    assert FixedHorizon(3, min_chance=0.42).choose(draft, state(20), 1) == 2  # 0.9 · 0.5 · 0.9 = 0.405
    assert FixedHorizon(3, min_chance=0.95).choose(draft, state(20), 1) == 0


def test_a_least_chance_holds_for_short_and_long_as_well():
    draft = Draft([1, 2, 3], [0.9, 0.1, 0.9])
    for name in ("short", "long"):
        assert Learned().horizon(name).choose(draft, state(20), 1) >= 2
        assert Learned(min_chance=0.3).horizon(name).choose(draft, state(20), 1) == 1


def test_a_drafter_that_is_never_right_is_found_out_though_few_of_its_drafts_get_a_row():
    for chance, useless in ((0.0, ("mtp",)), (0.4, ())):
        learned = Learned()
        for seed in range(4):
            world = World(STEEP, 0.1, lambda position, depth, chance=chance: chance, lambda p, d: 0.8, 300, seed)
            horizon = learned.horizon("auto")
            assert horizon.useless == ()  # nothing was guessed in this text
            world.run(horizon, learned.costs)
        assert horizon.useless == useless


def test_the_text_itself_is_never_useless():
    for name, is_useless in (("mtp", True), ("suffix", False)):
        weights = Weights(name)
        for _ in range(40):
            weights.tally(False)
        assert weights.is_useless == is_useless
        weights.tally(True)
        weights.tally(True)
        assert not weights.is_useless


def test_rows_of_other_texts_count():
    """Eight texts share a pass that is past the cheap rows: there a likely token is not worth a row any more."""
    costs = Costs()
    for rows in 8 * list(range(1, 18)):
        costs.add(paid(rows, 1.0 if rows <= 8 else 1.0 + 0.9 * (rows - 8), context=20))
    draft = Draft([1, 2, 3, 4], [0.8] * 4)
    habit = Habit()
    habit.reach["mtp"] = 16
    horizon = AutoHorizon(costs, lambda name: Chance(Weights(name)), habit=habit)
    assert horizon.choose(draft, state(20), 1) == 4
    assert horizon.choose(draft, state(20), 9) == 0


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_an_overconfident_drafter_is_seen_through(temperature):
    """It says 0.95 where 0.6 is true, and 0.5 where 0.2 is: after some texts its chances come true."""
    rng, weights = np.random.default_rng(1), Weights("mtp")
    foretold, came = [], []
    for number in range(120):
        judge = Chance(weights)
        for _ in range(60):
            sure = rng.random() < 0.5
            chances = judge.of([0.95 if sure else 0.5] * 3, temperature > 0)
            written = [rng.random() < (0.6 if sure else 0.2) for _ in range(3)]  # True is the draft's own token
            known, is_right = judge.learn([True] * 3, 0, written, 0)
            judge.close(known - (not is_right), known)
            if number >= 20:
                foretold += chances[:known]
                came += map(float, written[:known])
    assert calibration_error(foretold, came) < 0.25 * 0.325  # of what its own word is off by, see below
    assert calibration_error([0.95, 0.5] * 100, [0.6, 0.2] * 100) == pytest.approx(0.325)


def test_how_an_easy_text_ended_says_little_of_the_next():
    """Behind one that was right throughout a short one is as quick as it would be without it."""
    seconds = {"behind": 0.0, "without": 0.0}
    for name in seconds:
        for seed in range(20):
            learned = Learned()
            for before in range(3):
                World(FLAT, 0.01, lambda position, depth: 0.6, length=500, seed=100 + before).auto(learned=learned)
            if name == "behind":
                World(FLAT, 0.01, lambda position, depth: 1.0, length=400).auto(learned=learned)
            seconds[name] += World(FLAT, 0.01, lambda position, depth: 0.6, length=80, seed=seed).auto(learned=learned)
    assert seconds["without"] / seconds["behind"] > 0.97


class Endless(World):
    """Its drafter guesses on where it has become unsure."""

    def guess(self, horizon, at, limit):
        return self.draft(at, limit), "mtp", self.draft_s * limit


def test_a_guess_that_becomes_unsure_ends_there():
    """Some tokens nearly certain, others not, which the drafter knows: better than any number, and less is guessed."""
    luck = np.random.default_rng(5).random((3000, 17))
    options = FLAT, 0.04, lambda position, depth: 0.97 if luck[position, depth] < 0.75 else 0.1

    def tokens_guessed(world):
        learned, told = Learned(), []
        world.auto(learned=learned)
        seconds = world.auto(lambda at, count, chances, right: told.append(len(chances)), learned)
        return seconds, sum(told)

    world = World(*options, length=2500)
    seconds, guessed = tokens_guessed(world)
    assert world.best_fixed() / seconds > 1.12
    slower, more = tokens_guessed(Endless(*options, length=2500))
    assert guessed < 0.85 * more and seconds < 0.92 * slower


@pytest.mark.parametrize(("name", "low"), [("short", 2), ("long", 5)])
def test_a_guess_never_ends_early_where_the_user_wants_a_draft(name, low):
    learned = Learned()
    guessed = []
    world = World(STEEP, 0.3, lambda position, depth: 0.2, length=300)
    world.auto(lambda at, count, chances, right: guessed.append(len(chances)), learned, name)
    assert min(guessed[:-12]) == low and guessed.count(low) > 0.9 * len(guessed[:-12])


def test_chances_are_a_logistic_with_offsets_that_follow_the_text():
    """Compared with the formula in NumPy's float64, over rounds of which some tokens are wrong."""
    rng = np.random.default_rng(0)
    weights = Weights("mtp")
    judge, values = Chance(weights), np.array(weights.values)
    offset, offsets, count, counts, last = 0.0, np.zeros(16), 0, np.zeros(16), 0.5
    for number in range(60):
        confidence = rng.random(rng.integers(1, 18))
        is_sampled = number % 3 == 0
        n = min(len(confidence), 16)
        odds = np.clip(np.log(confidence[:n] / (1 - confidence[:n])), -4.0, 4.5)
        trust = 2 + min(weights.count // 200, 4)
        odds_weight = values[1] + is_sampled * values[4]
        logits = (
            values[0]
            + is_sampled * values[3]
            + odds_weight * odds
            + values[2] * np.log(1 + np.arange(n))
            + values[5] * last
        )
        chances = 1 / (1 + np.exp(-(logits + offset + offsets[:n])))
        assert judge.of(confidence.tolist(), is_sampled) == pytest.approx(chances.tolist(), rel=1e-12)
        draft = list(range(len(confidence)))
        right = int(rng.integers(0, n + 1))
        written = [-1, -1, *draft[:right], -2]
        known = min(right + 1, n)
        seen, _ = judge.learn(draft, 0, written[: 2 + right // 2], 2)  # some of it first
        assert seen == right // 2 and judge.learn(draft, seen, written, 2) == (known, right == n)
        step, errors = 0.05 if weights.count <= 60 else 0.01, np.zeros(n)
        for depth in range(known):
            errors[depth] = (depth < right) - chances[depth]
            move = 0.5 * errors[depth] / max(chances[depth] * (1 - chances[depth]), 0.12)
            count, counts[depth] = count + 1, counts[depth] + 1
            offset += move / min(count + trust, 50)
            offsets[depth] += move / min(counts[depth] + trust, 50)
        values[0] += step * errors.sum()
        values[1] += step * (errors * odds).sum()
        values[2] += step * (errors * np.log(1 + np.arange(n))).sum()
        values[3] += is_sampled * step * errors.sum()
        values[4] += is_sampled * step * (errors * odds).sum()
        values[5] += step * last * errors.sum()
        judge.close(right, known)
        last = right / n
        assert weights.values == pytest.approx(values.tolist(), rel=1e-9)


@pytest.mark.parametrize("chance", [0.0, 0.018, 0.0181, 0.4, 0.9889, 0.989, 1.0, 1.5, float("inf"), float("nan"), -1.0])
def test_odds_of_any_confidence(chance):
    (found,) = native.TextChances().of([chance], 0.0, 1.0, 0.0)
    assert found == pytest.approx(1 / (1 + np.exp(-log_odds(chance)))) and -4.0 <= log_odds(chance) <= 4.5


class Overruled(World):
    """The text itself takes the first token of every guess of four and goes on with nothing."""

    def guess(self, horizon, at, limit):
        limit = min(limit, 4)
        whole = self.draft(at, limit)
        return replace(whole, tokens=whole.tokens[:1], confidence=whole.confidence[:1], own=limit), "mtp", limit * 0.1


def test_guesses_that_are_not_taken_are_no_reason_for_long_ones():
    """Of tokens that take a tenth of a pass only the first is ever used; more than one is hardly asked for."""
    learned = Learned()
    world = Overruled(FLAT, 0.1, lambda position, depth: 0.9, length=600)
    horizon, limits = learned.horizon("auto"), []
    world.run(horizon, learned.costs, lambda *_: limits.append(horizon.model_limit))
    assert np.mean(limits[50:]) < 1.3


def blocks(kind, good, seed):
    """A text of 40 tokens of prose, a fence, what names the kind, and 40 tokens where drafts are good or not."""
    world = World(FLAT, 0.2, lambda position, depth: good if position >= 52 else 0.1, length=92, seed=seed)
    world.text = [number % 900 + 50 for number in world.text]
    world.text[50:52] = [1, kind]
    return world


def drafted_behind_the_fence(event_of):
    """Mean draft tokens with a row in the first four rounds of a good block, where bad ones take turns with it."""
    learned, found = Learned(event_of=event_of), []
    for seed in range(40):
        blocks(7, 0.05, seed).auto(learned=learned)
        rounds = []
        blocks(9, 0.97, seed).auto(lambda at, count, chances, right, to=rounds: to.append((at, count)), learned)
        found.append(np.mean([count for at, count in rounds if at >= 52][:4]))
    return np.mean(found[20:])


def fence(token):
    """Token 1 is one."""
    return FENCES if token == 1 else NO_EVENT


def test_what_a_drafter_is_worth_is_known_by_kind_of_text():
    assert drafted_behind_the_fence(fence) > 4.0
    assert drafted_behind_the_fence(None) < 0.5 * drafted_behind_the_fence(fence)


def reading(habit, name):
    """A horizon that has read a prompt for a drafter of that name, and its text."""
    horizon = AutoHorizon(Costs(), lambda name: Chance(Weights(name)), events=Events(fence), habit=habit)
    state = SimpleNamespace(tokens=[5, 5], drafter=SimpleNamespace(name=name), repeats=SuffixText())
    horizon.read(state)
    return horizon, state


def turned(start, own, kinds):
    """What drafts are worth in a text, where prose has shown `start` and this one `own`, as it turns to those kinds."""
    habit = Habit()
    habit.worth["mtp"] = start
    for kind, worth in kinds:
        if worth:
            habit.of(kind + 1).worth["mtp"] = worth
    horizon, state = reading(habit, "mtp")
    horizon._worth[:] = own
    found = []
    for kind, _ in kinds:
        state.tokens += [1, kind]
        horizon.observe(state, Paid(1, 0, 1, 2, 4, 1.0, {}, 0.0))
        found.append(list(horizon._worth))
        state.tokens += [5, 1]
        horizon.observe(state, Paid(1, 0, 1, 2, 4, 1.0, {}, 0.0))
        found.append(list(horizon._worth))
    return found


def test_what_a_text_is_worth_beside_others_goes_with_it_but_no_debt():
    """[0.75, 0.125, …] where others showed [0.5, 0.25]: a quarter more at first, an eighth less then."""
    block, prose = turned([0.5, 0.25], [0.75, 0.125, 0.5], [(8, [0.25, 0.25, 0.125])])
    assert block == [0.25 + 0.25, 0.25 - 0.125, 0.125] and prose == [0.75, 0.125]
    assert turned([0.75, 0.5], [0.25, 0.0], [(8, [0.25, 0.125])])[0] == [0.0, 0.0]


def test_an_unknown_kind_goes_on_as_it_was():
    block, prose = turned([0.5, 0.25], [0.75, 0.5], [(8, None)])
    assert block == [0.75, 0.5], "nothing better is known"
    assert prose == [0.5, 0.25], "what it was worth in the block says nothing here"


def test_reach_that_a_block_has_proved_is_known_in_the_next():
    habit = Habit()
    for _ in range(60):
        habit.of(9).prove("suffix", 8)
    horizon, state = reading(habit, "suffix")
    before = horizon._reach
    state.tokens += [1, 8]
    horizon.observe(state, Paid(1, 0, 1, 2, 4, 1.0, {}, 0.0))
    assert before == 2 and horizon._reach > 12


@pytest.mark.parametrize("number", [np.float32, np.float64])
def test_numbers_of_numpy_are_taken(number):
    """A temperature, and what a drafter says of its own tokens."""
    horizon = AutoHorizon(Costs(), lambda name: Chance(Weights(name)))
    sampler = SimpleNamespace(sampling=Sampling(temperature=number(0.8)))
    state = SimpleNamespace(tokens=[5, 5], drafter=SimpleNamespace(name="mtp"), source="mtp", sampler=sampler)
    horizon.read(state)
    horizon.choose(Draft([7, 7], [0.9] * 2, own=np.int64(2)), state, 1)
    state.tokens += [7, 7, 7]
    horizon.observe(state, Paid(3, 0, 1, 3, 5, 1.0, {"mtp": [2]}, 0.1))
    assert horizon.guessed == horizon.own == 2


def test_a_machine_that_changes_is_followed_where_other_row_counts_became_cheaper():
    near = [0.0, 39.0, 40.0, 41.9, 43.8, 48.4, 53.0, 58.5, 64.0, *(64.0 + 7.6 * i for i in range(1, 9)), 130.0]
    far = [0.0, 24.4, 29.0, 33.2, 37.5, 45.8, 54.0, 62.0, 70.0, *(70.0 + 8.1 * i for i in range(1, 9)), 140.0]
    learned = Learned()

    def texts(costs, first, count):
        return [World(costs, 0.7, lambda position, depth: 0.9, length=400, seed=first + i) for i in range(count)]

    for text in texts(near, 2000, 12):
        text.auto(learned=learned)  # five or six draft tokens, whose rows take as long in either state
    for text in texts(far, 2050, 12):
        text.auto(learned=learned)
    settled = texts(far, 2100, 12)
    best = min(sum(text.fixed(limit) for text in settled) for limit in range(7))
    assert best > 0.985 * sum(text.auto(learned=learned) for text in settled)


def test_one_slow_pass_hides_no_cheaper_row_count_behind_it():
    """Two rows were once measured at more than twice a plain pass; three to five are known to be cheap."""
    true = [0.0, 1.0, 1.1, 1.15, 1.2, 1.4, *(1.6 + 0.2 * i for i in range(12))]
    learned = Learned()
    passes = {"1": [1.0, 9], "2": [2.25, 1], "3": [1.15, 9], "4": [1.2, 9], "5": [1.4, 9]}
    learned.costs.restore({"level": 1.0, "passes": {"0": passes}, "drafts": {}})
    texts = [World(true, 0.02, lambda position, depth: 0.7, length=400, seed=seed) for seed in range(4)]
    auto = sum(text.auto(learned=learned) for text in texts)
    assert sum(text.fixed(3) for text in texts) / auto > 0.97
