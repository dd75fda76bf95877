"""`foretoken bench verify-cost`: what a pass over several rows costs, over one row and over the roofline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from foretoken.bench.limits import READ_BYTES, Limits, work
from foretoken.bench.subject import Rounds, Subject
from foretoken.bench.timing import interleaved
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
    repeats     of every case, limits of the machine included; figures are medians
    """
    check_rows(row_counts)
    rounds, limits = Rounds(subject, context), Limits(subject.format, read_bytes)
    passes = {(PASS, rows): lambda rows=rows: rounds.verify(rows) for rows in row_counts}
    times = interleaved({**passes, **limits.cases()}, repeats, told)
    ceilings = limits.found(times)
    ms = {rows: times[PASS, rows].ms for rows in row_counts}
    return {
        "shape": subject.name,
        "format": subject.format,
        "isa": native.isa(),
        "threads": native.threads(),
        "context": context,
        "repeats": repeats,
        "ms": _by_rows(ms),
        "spread": _by_rows({rows: times[PASS, rows].spread for rows in row_counts}),
        "relative": _by_rows({rows: own / ms[1] for rows, own in ms.items()}),
        "roofline_ms": _by_rows({rows: ceilings.roofline_ms(work(subject, rows)) for rows in ms}),
        "roofline_ratio": _by_rows({rows: own / ceilings.roofline_ms(work(subject, rows)) for rows, own in ms.items()}),
        "weight_bytes": work(subject, 1).weight_bytes,
        "macs_per_row": work(subject, 1).macs,
        **ceilings.fields(),
    }


def check_rows(row_counts: Sequence[int]) -> None:
    """Raise InputError where the pass of one row is missing."""
    if 1 not in row_counts:
        raise InputError(f"rows {','.join(map(str, row_counts))} lack 1, which the others are compared with.")


def _by_rows(table: dict[int, float]) -> dict[str, float]:
    return {str(rows): value for rows, value in table.items()}
