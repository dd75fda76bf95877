"""`foretoken bench verify-cost`: what a pass over several rows costs, over one row and over the roofline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from foretoken.bench.limits import READ_BYTES, Limits, work
from foretoken.bench.subject import Rounds, Subject
from foretoken.bench.timing import Times, fields, interleaved
from foretoken.errors import InputError
from foretoken.ops import native

PASS = "pass"
Progress = Callable[[int, int], None]


def measure(
    subject: Subject,
    context: int,
    row_counts: Sequence[int],
    repeats: int,
    told: Progress | None = None,
    read_bytes: int = READ_BYTES,
) -> dict[str, Any]:
    """The fields of `bench verify-cost --json` (design section 8).

    row_counts  rows of the passes that are timed, one among them; after `context` tokens, all rows' logits
    repeats     of every case, limits of the machine included; times are medians, ratios are of times of the same turn
    """
    check_rows(row_counts)
    rounds, limits = Rounds(subject, context), Limits(subject.format, read_bytes)
    passes = {(PASS, rows): lambda rows=rows: rounds.verify(rows) for rows in row_counts}
    times = interleaved({**passes, **limits.cases()}, repeats, told)
    ceilings = limits.found(times)
    works = {str(rows): work(subject, rows) for rows in row_counts}
    own = {str(rows): times[PASS, rows] for rows in row_counts}
    rooflines = {
        rows: Times(tuple(turn.roofline_ms(works[rows]) / 1e3 for turn in limits.by_turn(times))) for rows in own
    }
    return {
        "shape": subject.name,
        "format": subject.format,
        "isa": native.isa(),
        "threads": native.threads(),
        "context": context,
        "repeats": repeats,
        "ms": {rows: time.ms for rows, time in own.items()},
        "spread": {rows: time.spread for rows, time in own.items()},
        **fields("relative", {rows: time.over(own["1"]) for rows, time in own.items()}),
        "roofline_ms": {rows: ceilings.roofline_ms(works[rows]) for rows in own},
        **fields("roofline_ratio", {rows: time.over(rooflines[rows]) for rows, time in own.items()}),
        "weight_bytes": works["1"].weight_bytes,
        "macs_per_row": works["1"].macs,
        **ceilings.fields(),
    }


def check_rows(row_counts: Sequence[int]) -> None:
    """Raise InputError where the pass of one row is missing."""
    if 1 not in row_counts:
        raise InputError(f"rows {','.join(map(str, row_counts))} lack 1, which the others are compared with.")
