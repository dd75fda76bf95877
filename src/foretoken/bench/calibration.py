"""How far foretold chances are from what came: the expected calibration error."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

BINS = 10


def calibration_error(chances: Sequence[float], outcomes: Sequence[float]) -> float | None:
    """Mean over ten equal bins of |foretold − came true|, weighted by their sizes; None where there is nothing."""
    sums = [[0.0, 0.0] for _ in range(BINS)]
    for chance, outcome in zip(chances, outcomes, strict=True):
        own = sums[_bin_of(chance)]
        own[0] += chance
        own[1] += outcome
    return sum(abs(foretold - came) for foretold, came in sums) / len(chances) if len(chances) else None


def error_by_chance(chances: Sequence[float]) -> float | None:
    """What that error is on average where every chance is true: outcomes scatter, and few of them scatter much.

    The sum of a bin then errs by a normal deviate of variance Σ p (1 − p), whose mean size is √(2 / π) of its root.
    """
    variances = [0.0] * BINS
    for chance in chances:
        variances[_bin_of(chance)] += chance * (1.0 - chance)
    return sum(math.sqrt(2 / math.pi * own) for own in variances) / len(chances) if len(chances) else None


def _bin_of(chance: float) -> int:
    return min(int(chance * BINS), BINS - 1)


def foretold(rounds: Iterable[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Chances and outcomes of the draft tokens with a row whose fate is known, from the lines of a trace."""
    chances: list[float] = []
    outcomes: list[float] = []
    for line in rounds:
        known = min(line["accepted"] + 1, line["drafted"])
        chances += line["chances"][:known]
        outcomes += [float(depth < line["accepted"]) for depth in range(known)]
    return chances, outcomes
