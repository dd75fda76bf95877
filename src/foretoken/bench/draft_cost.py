"""`foretoken bench draft`: what a draft token costs, over a plain pass of the target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from foretoken.bench.subject import Rounds, Subject
from foretoken.bench.timing import fields, interleaved
from foretoken.errors import InputError
from foretoken.ops import native

Progress = Callable[[int, int], None]


def measure(subject: Subject, context: int, count: int, repeats: int, told: Progress | None = None) -> dict[str, Any]:
    """The fields of `bench draft --json` (design section 8).

    draft_ms  mean step of a chain of `count`, right after a pass that verified as many: median over repeats
    plain_ms  pass of one row
    share     the former over the latter in the same turn
    """
    if subject.drafter is None:
        raise InputError(f"{subject.name} has no drafter. Name one with --drafter.")
    rounds = Rounds(subject, context)
    cases = {"draft": lambda: rounds.draft(count) / count, "plain": lambda: rounds.verify(1)}
    times = interleaved(cases, repeats, told)
    return {
        "shape": subject.name,
        "format": subject.format,
        "isa": native.isa(),
        "threads": native.threads(),
        "context": context,
        "chain": count,
        "repeats": repeats,
        "draft_ms": times["draft"].ms,
        "plain_ms": times["plain"].ms,
        **fields("share", times["draft"].over(times["plain"])),
        "spread": {case: own.spread for case, own in times.items()},
        "quartiles_ms": {case: own.quartiles_ms for case, own in times.items()},
    }
