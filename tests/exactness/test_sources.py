"""Whatever guesses, the text is the plain one: what stood in it before, a second model, several sources at once."""

from functools import cache

import numpy as np
import pytest
from pair import CODE, ENTRY, embedded
from toy import LENGTH, PROMPT, OracleDrafter, ToyTarget, sequence, write

from foretoken import engine
from foretoken.api import ASSETS
from foretoken.cache import Cache, CacheLayer, PagePool
from foretoken.drafters import choice
from foretoken.drafters.choice import Choice
from foretoken.drafters.model import ModelDrafter
from foretoken.drafters.suffix import SuffixDrafter
from foretoken.errors import CacheError
from foretoken.horizon import FixedHorizon
from foretoken.horizon.cost import Costs
from foretoken.selftest.toys import toy

REPEATED = PROMPT * 8


@pytest.fixture
def no_time(monkeypatch):
    """Models guess at no cost, so that only what they guess decides who leads."""
    monkeypatch.setattr(choice, "perf_counter", lambda: 0.0)


def named(drafter, name):
    drafter.name = name
    return drafter


def toy_drafters(plain):
    rng = np.random.default_rng(3)
    good = OracleDrafter(plain, lambda position: rng.random() < 0.8)
    bad = named(OracleDrafter(plain, lambda position: False), "bad")
    return {
        "suffix": SuffixDrafter(),
        "both": Choice([good], SuffixDrafter()),
        "a good and a bad one": Choice([bad, good], SuffixDrafter()),
        "models only": Choice([bad, good], None),
    }


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("horizon", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("prompt", [PROMPT, REPEATED], ids=["short", "repeated"])
def test_every_source_gives_the_plain_tokens(horizon, temperature, prompt):
    plain = write(temperature=temperature, prompt=prompt).tokens
    for name, drafter in toy_drafters(plain).items():
        drafted = write(temperature=temperature, prompt=prompt, horizon=horizon, drafter=drafter)
        assert drafted.stats.drafter_error is None
        assert drafted.tokens == plain, name


def test_neighbours_share_drafters_but_no_text():
    """Two texts in one pass, drafted by one object: each has the drafts that it has alone."""

    class Noting(SuffixDrafter):
        def propose(self, states, limits):
            found = super().propose(states, limits)
            for state, draft in zip(states, found, strict=True):
                notes.setdefault(id(state), []).append(draft.tokens)
            return found

    target = ToyTarget()
    prompts = [REPEATED, [*REPEATED[3:], 2, 9]]
    alone = []
    for prompt in prompts:
        notes = {}
        alone.append((write(target=target, prompt=prompt, horizon=4, drafter=Noting()).tokens, *notes.values()))
    notes = {}
    drafter, runner = Noting(), engine.Engine(target, 512)
    pool = runner.pool(LENGTH + 20, num_sequences=2)
    running = [sequence(runner, pool, prompt=prompt, horizon=4, drafter=drafter) for prompt in prompts]
    while any(not s.is_full for s in running):
        runner.step([s for s in running if not s.is_full])
    assert [(s.tokens, notes[id(s)]) for s in running] == alone


def test_the_better_model_is_found_and_a_worse_one_watched(no_time):
    plain = write().tokens
    perfect = named(OracleDrafter(plain, lambda position: True), "perfect")
    bad = named(OracleDrafter(plain, lambda position: False), "bad")
    stats = write(horizon=2, drafter=Choice([bad, perfect], None)).stats
    assert stats.drafter_rounds["perfect"] > 3 * stats.drafter_rounds.get("bad", 0)
    assert stats.rounds < (LENGTH - len(PROMPT)) / 2


def test_a_model_that_becomes_better_takes_over(no_time):
    """Right in the second half only: shadow rounds notice, though it does not lead."""
    plain = write().tokens
    first = named(OracleDrafter(plain, lambda position: position < 70), "first")
    second = named(OracleDrafter(plain, lambda position: position >= 70), "second")
    rounds = write(horizon=2, drafter=Choice([first, second], None)).stats.drafter_rounds
    assert rounds["first"] > 15 and rounds["second"] > 15


class Slow(OracleDrafter):
    """Takes 1,000 seconds for a draft, on a clock of its own."""

    now = 0.0
    asks = 0

    def propose(self, states, limits):
        self.now += 1000.0
        self.asks += 1
        return super().propose(states, limits)


def test_a_source_that_costs_more_than_it_brings_does_not_lead(monkeypatch):
    plain = write(prompt=REPEATED).tokens
    slow = Slow(plain, lambda position: position % 2 > 0)
    monkeypatch.setattr(choice, "perf_counter", lambda: slow.now)
    both = Choice([slow], SuffixDrafter())
    stats = write(prompt=REPEATED, horizon=4, drafter=both).stats
    assert sum(n for name, n in stats.drafter_rounds.items() if "oracle" in name) <= 2  # before any time is known
    assert stats.rounds > 10 and slow.asks <= 2, "nor is it asked for guesses that nobody uses"
    assert stats.drafter_error is None


def test_where_no_model_is_wanted_the_text_guesses_alone(monkeypatch):
    monkeypatch.setattr(
        FixedHorizon, "model_limit", property(lambda horizon: 0, lambda horizon, limit: None), raising=False
    )
    plain = write(prompt=REPEATED)
    both = Choice([OracleDrafter(plain.tokens, lambda position: True)], SuffixDrafter())
    written = write(prompt=REPEATED, horizon=4, drafter=both)
    assert written.tokens == plain.tokens
    assert set(written.stats.drafter_rounds) == {"suffix"} and written.stats.accepted > 0


def test_a_text_begins_with_what_those_before_have_shown_of_a_model(no_time):
    plain = write().tokens
    bad = named(OracleDrafter(plain, lambda position: False), "bad")
    both = Choice([bad], SuffixDrafter())
    first, *_, last = (write(horizon=4, drafter=both).stats.drafter_rounds.get("bad", 0) for _ in range(12))
    assert last < first


def test_costs_of_guessing_are_told_apart_by_who_guessed(no_time, monkeypatch):
    told = set()
    monkeypatch.setattr(Costs, "add", lambda costs, paid: told.update(paid.drafters))
    good = OracleDrafter(write(prompt=REPEATED).tokens, lambda position: position % 3 > 0)
    stats = write(prompt=REPEATED, horizon=4, drafter=Choice([good], SuffixDrafter())).stats
    assert {"oracle", "oracle+suffix"} <= told and stats.drafter_rounds.keys() <= told


def test_rounds_without_a_guess_say_so():
    stats = write(horizon=4, drafter=SuffixDrafter()).stats
    assert stats.fallbacks.get("no-draft", 0) > 0
    assert stats.fallbacks.get("budget", 0) <= 1
    assert sum(stats.fallbacks.values()) + sum(stats.drafter_rounds.values()) == stats.rounds


# ---- a second model ----------------------------------------------------------------------------------------------


@cache
def toys():
    return toy("experts", "q4"), toy("unified", "q8"), toy("experts", "bf16")


def toy_answer(model, drafter, horizon, temperature, prompt_len=20):
    model.drafter = drafter
    prompt = [3 + i * 17 % 200 for i in range(prompt_len)]
    return model.generate(
        prompt, horizon=horizon, temperature=temperature, seed=5, max_tokens=120, ignore_eos=True
    )  # far past the window of 48


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("horizon", [1, 3, 16])
def test_a_second_model_gives_the_plain_tokens(horizon, temperature):
    model, other, alike = toys()
    plain = toy_answer(model, None, 0, temperature, 400)
    for second in (other, alike):
        drafted = toy_answer(model, ModelDrafter(second.target), horizon, temperature, 400)
        assert drafted.stats.drafter_error is None
        assert drafted.tokens == plain.tokens


def test_a_model_that_drafts_for_itself_is_nearly_always_right():
    """So its own cache holds what the target's does, through rejections and pages that were dropped."""
    model, _, _ = toys()
    drafter = ModelDrafter(model.target)
    for temperature in (0.0, 1.0):
        stats = toy_answer(model, drafter, 4, temperature).stats
        assert stats.acceptance_rate == 1.0
    assert not drafter._readers  # a text's cache ends with it


def test_a_second_model_reads_on_after_rejections():
    """Its drafts are the same as those of one that reads the whole text anew each time."""
    model, other, _ = toys()

    class Forgetful(ModelDrafter):
        def propose(self, states, limits):
            self._readers.clear()
            return super().propose(states, limits)

    kept = toy_answer(model, ModelDrafter(other.target), 5, 1.0).stats
    anew = toy_answer(model, Forgetful(other.target), 5, 1.0).stats
    assert kept.rejections > 10
    assert kept.accepted_by_position == anew.accepted_by_position


def test_passes_that_count_as_one_are_undone_together():
    pool = PagePool([CacheLayer(0, "sliding", 1, 16, 24)], 400, 1, 80)
    cache_ = Cache(pool)
    for _ in range(3):
        cache_.begin_pass(50)
        cache_.end_pass()
    for _ in range(20):
        cache_.begin_pass(1, goes_on=True)
        cache_.end_pass()
    first_cut = cache_.first_cut
    cache_.roll_back(70)
    assert cache_.length == 100 >= first_cut
    with pytest.raises(CacheError, match="roll back"):
        cache_.roll_back(1)
    cache_.begin_pass(70)
    cache_.end_pass()
    with pytest.raises(CacheError, match="expected 1 to 10"):
        cache_.begin_pass(11, goes_on=True)


# ---- the embedded pair -------------------------------------------------------------------------------------------

PAIR = f"{ASSETS / 'drafter'}"
KINDS = ["suffix", f"a={PAIR},b={PAIR},suffix", f"{PAIR},{ASSETS / 'target'}"]


@pytest.mark.parametrize("drafter", KINDS, ids=["suffix", "two and suffix", "mtp and a model"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_named_sources_give_the_plain_tokens(drafter, temperature):
    prompts = [CODE, f"{ENTRY}\n{ENTRY}\n{ENTRY[:20]}", "1, 2, 3,"]
    options = {"temperature": temperature, "seed": 7, "max_tokens": 40, "ignore_eos": True}
    plain = [embedded().generate(prompt, horizon=0, **options).tokens for prompt in prompts]
    model = embedded(drafter=drafter)
    for horizon in (4, 11):
        together = model.generate(prompts, horizon=horizon, **options)
        assert [result.tokens for result in together] == plain
        assert not any(result.stats.drafter_error for result in together)


def test_what_stood_before_is_copied():
    lines = "".join(f"{word} is entry number {i} of the list;\n" for i, word in enumerate(ENTRY.split()))
    result = embedded(drafter="suffix").generate(lines + lines, horizon=8, temperature=0.0, max_tokens=40)
    assert result.stats.tokens_per_round > 2 and set(result.stats.drafter_rounds) == {"suffix"}


class Broken:
    """Guesses what the plain text has until a position, then fails."""

    name = "broken"

    def __init__(self, plain, until):
        self._good, self._until = OracleDrafter(plain, lambda position: True), until

    def propose(self, states, limits):
        if any(len(state.tokens) > self._until for state in states):
            raise OSError("its file is gone")
        return self._good.propose(states, limits)


@pytest.mark.usefixtures("no_time")
def test_a_model_that_fails_leaves_the_others_at_work():
    plain = write().tokens
    drafted = write(horizon=4, drafter=Choice([Broken(plain, 20), named(OracleDrafter(plain, bool), "good")], None))
    assert drafted.tokens == plain
    assert drafted.stats.drafter_error == "broken: OSError: its file is gone"
    assert "decoded without it" in drafted.stats.advice[0]
    assert drafted.stats.drafter_rounds["good"] and "error" not in drafted.stats.fallbacks


def test_where_only_the_broken_model_would_guess_the_rest_is_plain():
    plain = write().tokens
    drafted = write(horizon=4, drafter=Choice([Broken(plain, 20)], None))
    assert drafted.tokens == plain
    assert drafted.stats.drafter_error and drafted.stats.fallbacks["error"]
