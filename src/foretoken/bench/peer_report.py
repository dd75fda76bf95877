"""Ratios between runtimes.

A ratio is the other's time over ours, turn by turn, so what slows the machine for a while slows both; above 1 we are
faster. Neither host names nor paths go into a report.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from foretoken.bench.timing import Times
from foretoken.prefix import shared_len

PATH = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?(?:[\\/][\w.+~@-]+)+[\\/]([\w.+~@-]+)")
Key = tuple[str, int]  # name of a case, rows


def ratio(peer: Times, ours: Times) -> dict[str, Any]:
    """The peer's time over ours, turn by turn: `ratio`, and `quartiles` of three turns or more."""
    figure = peer.over(ours)
    return {"ratio": figure.value, "quartiles": figure.quartiles}


def compared(times: Mapping[Key, Times], rows: Sequence[int], ours: str | None) -> dict[str, dict[str, Any]]:
    """By name and row count: ms, spread, ms over that of one row, and `ratio` over `ours` where it was timed."""
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for name, _ in times):
        own = {count: times[name, count] for count in rows}
        found[name] = {
            "ms": {str(count): time.ms for count, time in own.items()},
            "spread": {str(count): time.spread for count, time in own.items()},
            "relative": {str(count): time.ms / own[rows[0]].ms for count, time in own.items()},
        }
        if ours is not None and name != ours:
            found[name]["over_ours"] = {str(count): ratio(own[count], times[ours, count]) for count in rows}
    return found


def best(times: Mapping[Key, Times], rows: Sequence[int], libraries: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Every library at its best: the fastest of its cases at each row count, and its ratio over our fastest.

    libraries  name → its cases that were timed; "foretoken" is ours
    """
    found: dict[str, Any] = {}
    for library, cases in libraries.items():
        own = found[library] = {}
        for count in rows:
            case = min(cases, key=lambda name: times[name, count].ms)
            own[str(count)] = {"case": case, "ms": times[case, count].ms}
            if "foretoken" in libraries and library != "foretoken":
                ours = min(libraries["foretoken"], key=lambda name: times[name, count].ms)
                own[str(count)] |= ratio(times[case, count], times[ours, count])
    return found


def agreement(answers: Mapping[str, Sequence[Sequence[int]]], ours: str) -> dict[str, dict[str, Any]]:
    """By case: how many of its answers are `ours`, and after how many tokens the others part, in the median."""
    found = {}
    for name, own in answers.items():
        pairs = list(zip(own, answers[ours], strict=True))
        parted = [shared_len(a, b) for a, b in pairs if list(a) != list(b)]
        found[name] = {
            "same": len(pairs) - len(parted),
            "answers": len(pairs),
            "parts_after": median(parted) if parted else None,
        }
    return found


def without_paths(text: str) -> str:
    """Every path cut down to its last part."""
    return PATH.sub(r"\1", text)
