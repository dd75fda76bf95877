"""The planner changes the time, never the text: whatever it measures, and whenever it changes its mind."""

import numpy as np
import pytest
from pair import CODE, QUESTION, embedded
from simulated import paid
from toy import OracleDrafter, ToyTarget

from foretoken import engine
from foretoken.cache import Cache
from foretoken.horizon import AutoHorizon, Learned
from foretoken.horizon.chance import Chance, Weights
from foretoken.horizon.cost import Costs
from foretoken.ops import native
from foretoken.sampling import Sampler, Sampling

PROMPT = [1, 5, 2, 7, 7, 3]
LENGTH = 150


def costs_of(row):
    """A table by which a row more costs `row`."""
    costs = Costs()
    for rows in 4 * list(range(1, 18)):
        costs.add(paid(rows, 1e3 * (1.0 + row * (rows - 1))))
    return costs


def write(horizon, drafter=None, temperature=0.0, seed=3, end=LENGTH):
    runner = engine.Engine(ToyTarget(), 512)
    sampler = Sampler(Sampling(temperature=temperature, seed=seed), native, len(PROMPT))
    cache = Cache(runner.pool(LENGTH + 20))
    s = engine.Sequence(PROMPT, cache=cache, sampler=sampler, drafter=drafter, horizon=horizon, end=end)
    while not s.is_full:
        runner.step([s])
    return s


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("row", [0.0, 0.1, 0.6])
def test_auto_writes_the_plain_text(row, seed, temperature):
    plain = write(Learned().horizon(0), temperature=temperature, seed=seed).tokens
    rng = np.random.default_rng(seed)
    drafter = OracleDrafter(plain, lambda position: rng.random() < (0.9 if position // 20 % 2 else 0.2))
    horizon = AutoHorizon(costs_of(row), lambda name: Chance(Weights(name)))
    s = write(horizon, drafter, temperature, seed)
    assert s.tokens == plain
    assert len(s.stats.horizon_rounds) > 1 and s.stats.accepted > 0


def test_reasons_of_rounds_without_a_draft():
    plain = write(Learned().horizon(0)).tokens
    wrong = OracleDrafter(plain, lambda position: False)
    s = write(AutoHorizon(costs_of(0.3), lambda name: Chance(Weights(name))), wrong)
    assert s.tokens == plain
    assert s.stats.fallbacks["horizon-0"] > 100
    right = OracleDrafter(plain, lambda position: True)
    assert write(Learned().horizon(3), right, end=8).stats.fallbacks == {"budget": 1}
    assert write(Learned().horizon(3)).stats.fallbacks == {"no-drafter": LENGTH - len(PROMPT) - 1}

    class NoMemory(OracleDrafter):
        def propose(self, states, limits):
            raise MemoryError

    assert set(write(Learned().horizon(3), NoMemory(plain, None)).stats.fallbacks) == {"memory"}


def test_plain_speed_is_told_where_it_is_known():
    plain = write(Learned().horizon(0))
    assert plain.stats.speedup == pytest.approx(1.0)
    assert write(Learned().horizon(3), end=9).stats.plain_tok_per_s > 0
    right = OracleDrafter(plain.tokens, lambda position: True)
    drafted = write(Learned().horizon(3), right, end=len(PROMPT) + 6)  # a round of four tokens, and one without a draft
    assert drafted.stats.horizon_rounds and drafted.stats.fallbacks == {"budget": 1}
    assert drafted.stats.plain_tok_per_s is None  # by that one pass, the first of its kind, nothing can be told


@pytest.mark.parametrize("name", ["auto", "short", "long"])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_embedded_pair(name, threads):
    model, was = embedded(), native.threads()
    try:
        for prompt in ({"prompt": CODE}, {"messages": QUESTION}):
            for seed, temperature in ((1, 0.0), (2, 1.0)):
                options = {**prompt, "temperature": temperature, "seed": seed, "max_tokens": 50, "ignore_eos": True}
                plain = model.generate(**options, horizon=0).tokens
                native.set_threads(threads)
                found = model.generate(**options, horizon=name)
                native.set_threads(was)
                assert found.tokens == plain
    finally:
        native.set_threads(was)


def test_texts_that_take_turns_measure_plain_passes_of_as_many():
    """Three at a time, one beginning where another ends: passes of one row never come, and are not waited for."""
    runner = engine.Engine(ToyTarget(), 512)
    learned, pool = Learned(), runner.pool(LENGTH, 3)
    runner._costs = learned.costs
    plain = write(Learned().horizon(0)).tokens

    def begin(end):
        drafter = OracleDrafter(plain, lambda position: True)
        sampler, horizon = Sampler(Sampling(seed=3), native, len(PROMPT)), learned.horizon("auto")
        return engine.Sequence(PROMPT, cache=Cache(pool), sampler=sampler, drafter=drafter, horizon=horizon, end=end)

    running, measured = [begin(end) for end in (40, 60, 80)], []
    while len(measured) < 24:
        runner.step(running)
        for i, s in enumerate(running):
            if s.is_full:
                assert s.tokens == plain[: len(s.tokens)]
                measured.append(s.stats.fallbacks.get("measuring", 0))
                s.cache.release()
                running[i] = begin(70)
    assert max(measured[:3]) > 0 and sum(measured[3:]) < len(measured[3:]), "four each, if they waited for one row"
