"""Times of drafts: a moving average, and a line over their length."""

from __future__ import annotations

from typing import Final

CLAMP: Final = 1.25  # a time counts for at most this factor over or under what was expected
FEW: Final = 4  # times that are all believed
FIT_EVERY: Final = 8
LEAST_SPREAD: Final = 0.01  # of lengths, as a share of their mean square, that a slope is told by
START_SHARE: Final = 0.5  # of what a draft takes, whatever its length, while no slope was told


def moved(average: float, time: float, weight: float) -> float:
    """A moving average, 0 before the first. What the system interrupts is slow: none counts for much more."""
    return average + weight * (min(time, 2 * average) - average) if average else time


class Line:
    """What a draft takes by its length, any unit: least squares, older times fading."""

    FADE = 0.97

    def __init__(self, sums: list[float] | None = None) -> None:
        self.sums = sums or [0.0] * 5  # weight, Σ length, Σ length², Σ cost, Σ length · cost
        self.fitted = (0.0, 0.0)
        self._slope: float | None = None  # the last one that lengths told
        self._adds = 0
        if sums:
            self._fit()

    def add(self, length: float, cost: float) -> None:
        """A draft of `length` tokens took `cost`, which is bounded by what was expected, once a few are known."""
        n, x, xx, y, xy = self.sums
        if n > FEW:
            expected = self.fitted[0] + self.fitted[1] * length
            low, high = expected / CLAMP, expected * CLAMP
            cost = low if cost < low else high if cost > high else cost
        fade = self.FADE
        self.sums = [
            fade * n + 1.0,
            fade * x + length,
            fade * xx + length * length,
            fade * y + cost,
            fade * xy + length * cost,
        ]
        self._adds += 1
        if self._adds < FIT_EVERY or not self._adds % FIT_EVERY:
            self._fit()

    def scale(self, factor: float) -> None:
        """Costs in another unit."""
        self.sums[3] *= factor
        self.sums[4] *= factor
        if self._slope is not None:
            self._slope *= factor
        self._fit()

    def at(self, length: float) -> float:
        """Of a draft of so many tokens; 0 before the first."""
        start, step = self.fitted
        return start + step * length if self.sums[0] else 0.0

    def _fit(self) -> None:
        n, x, xx, y, xy = self.sums
        spread, each = n * xx - x * x, y / x if x else 0.0
        if spread > LEAST_SPREAD * n * xx:
            self._slope = max((n * xy - x * y) / spread, 0.0)
        slope = (1.0 - START_SHARE) * each if self._slope is None else min(self._slope, each)
        self.fitted = ((y - slope * x) / n if n else 0.0, slope)
