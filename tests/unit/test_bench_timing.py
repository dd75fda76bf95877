"""Interleaved timing: every case as often as asked, in turn, medians, and ratios that a drifting machine keeps."""

import pytest

from foretoken.bench.timing import Figure, Times, fields, interleaved


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
    assert times.quartiles_ms == (2.0, 4.0)


def test_few_turns_show_no_spread():
    assert Times((1.0, 2.0)).spread is None and Times((1.0, 2.0)).quartiles_ms is None
    assert fields("share", Figure((0.5,))) == {"share": 0.5, "share_spread": None, "share_quartiles": None}


def test_ratios_are_right_on_a_machine_whose_speed_drifts():
    seconds, now = {"plain": 1.0, "three times": 3.0}, 0.0

    def run(case):
        nonlocal now
        took = seconds[case] * (1 + now / 40)  # twice as slow after 40 s
        now += took
        return took

    times = interleaved({case: lambda case=case: run(case) for case in seconds}, 9)
    assert times["three times"].seconds[-1] > 2 * times["three times"].seconds[0], "the machine drifts"
    ratio = times["three times"].over(times["plain"])
    assert ratio.value == pytest.approx(3.0, rel=0.12), "only what passes between two neighbours is left of it"
    assert ratio.spread < 0.15 < times["plain"].spread


def test_a_slow_turn_does_not_move_a_ratio():
    plain = Times((1.0, 1.0, 2.0, 2.0, 2.0))
    drafted = Times((0.5, 0.5, 1.0, 1.0, 9.0))  # the last one was hit by something
    assert plain.over(drafted).value == 2.0
    assert fields("speedup", {"4": plain.over(drafted)})["speedup_quartiles"] == {"4": (2.0, 2.0)}


def test_larger_beyond_the_noise():
    steady, noisy = Figure((1.4, 1.5, 1.6)), Figure((0.9, 1.6, 2.4))
    assert steady.is_above(Figure((1.0, 1.0, 1.0)))
    assert not noisy.is_above(steady) and not steady.is_above(noisy)
    assert not Figure((1.4, 1.4, 9.0)).is_above(Figure((1.0, 1.0, 1.0))), "by less than the quartiles lie apart"
    assert not Figure((9.0,)).is_above(Figure((1.0,))), "one turn knows nothing of noise"
