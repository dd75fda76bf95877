"""What a round takes is what its pass takes, and all that follows it: judging, planning, the reader of its text."""

import pytest
from toy import OracleDrafter, ToyTarget, sequence, write

from foretoken import engine
from foretoken.horizon import FixedHorizon
from foretoken.horizon.cost import Costs

LENGTH = 40
PASS, PLANNED, PLAINLY, READER = 10.0, 3.0, 0.25, 0.5  # seconds


class Clock:
    """Stands still unless somebody takes time."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class SlowTarget(ToyTarget):
    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def forward(self, ids, segments, keep):
        self.clock.now += PASS
        return super().forward(ids, segments, keep)


class EveryThird(FixedHorizon):
    """Drafts two tokens in every third round, and takes its time behind it."""

    def __init__(self, clock):
        super().__init__(0)
        self.clock, self.rounds = clock, 0

    def observe(self, state, paid):
        self.clock.now += PLANNED if paid.rows > 1 else PLAINLY
        self.rounds += 1
        self.limit = self.model_limit = 2 if self.rounds % 3 == 0 else 0


class Told:
    """Costs, and what they were told."""

    def __init__(self):
        self.costs = Costs()
        self.told = []

    def add(self, paid):
        self.told.append((paid.rows, paid.verify_s, paid.other_s))
        self.costs.add(paid)

    def plain_s(self, paid):
        return self.costs.plain_s(paid)

    def plain_rest_s(self, paid):
        return self.costs.plain_rest_s(paid)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(engine, "perf_counter", clock)
    return clock


def run(clock, end=LENGTH, reader=READER):
    costs = Told()
    runner = engine.Engine(SlowTarget(clock), 512, costs)
    s = sequence(runner, runner.pool(LENGTH + 20), drafter=OracleDrafter(write().tokens, lambda p: True), end=end)
    s.horizon = EveryThird(clock)
    while not s.is_full:
        runner.step([s])
        clock.now += reader
    costs.stats = s.stats
    return runner, costs


def test_figures_have_all_that_a_round_takes_but_its_reader(clock):
    """Of what a drafted round takes besides, plain decoding is charged what plain rounds were seen to take."""
    _, costs = run(clock)
    stats, drafted = costs.stats, costs.stats.horizon_rounds[2]
    assert stats.verify_s == pytest.approx(PASS * stats.rounds)
    assert stats.other_s == pytest.approx(PLANNED * drafted + PLAINLY * (stats.rounds - drafted))
    assert stats.plain_tok_per_s == pytest.approx(1 / (PASS + PLAINLY), rel=0.01)


def test_a_round_is_charged_what_follows_it(clock):
    _, costs = run(clock)
    assert {rows for rows, _, _ in costs.told} == {1, 3}
    for rows, verify_s, other_s in costs.told:
        assert verify_s == pytest.approx(PASS)
        assert other_s == pytest.approx((PLANNED if rows == 3 else PLAINLY) + READER)


def test_a_prompt_in_between_ends_the_account(clock):
    runner, costs = run(clock, end=12)
    rounds = len(costs.told)
    clock.now += 1e6  # nobody asks for a while
    s = sequence(runner, runner.pool(LENGTH + 20), end=10)
    while s.is_reading:
        runner.step([s])
    assert len(costs.told) == rounds


def test_a_reader_who_takes_their_time_counts_for_a_pass_at_most(clock):
    _, costs = run(clock, end=12, reader=1000.0)
    assert {other_s for _, _, other_s in costs.told} == {PASS}
