"""Interleaved timing: every case as often as asked, in turn, and medians of what was measured."""

from foretoken.bench.timing import Times, interleaved


def test_cases_take_turns_and_the_first_round_is_not_counted():
    calls, told = [], []
    cases = {name: lambda name=name: calls.append(name) for name in "ab"}
    found = interleaved(cases, 3, lambda done, whole: told.append((done, whole)))
    assert "".join(calls) == "ba" + "ab" + "ba" + "ab"
    assert {name: len(times.seconds) for name, times in found.items()} == {"a": 3, "b": 3}
    assert told == [(i, 8) for i in range(1, 9)]


def test_a_case_may_time_itself():
    assert interleaved({1: lambda: 0.25}, 2)[1].seconds == (0.25, 0.25)


def test_median_and_spread():
    times = Times((0.001, 0.002, 0.003, 0.004, 0.1))
    assert times.ms == 3.0
    assert abs(times.spread - 2 / 3) < 1e-9
    assert Times((1.0, 2.0)).spread == 0.0
