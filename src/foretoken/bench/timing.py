"""Times of several cases, interleaved, so that a slow minute of the machine hits all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter
from typing import TypeVar

Case = TypeVar("Case", bound=Hashable)


@dataclass(frozen=True)
class Times:
    """Seconds of one case, one entry per repeat."""

    seconds: tuple[float, ...]

    @property
    def ms(self) -> float:
        """The median in milliseconds."""
        return 1e3 * median(self.seconds)

    @property
    def spread(self) -> float:
        """Distance of the quartiles over the median; 0 where there are fewer than three repeats."""
        if len(self.seconds) < 3:
            return 0.0
        low, middle, high = quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / middle


def interleaved(
    cases: Mapping[Case, Callable[[], object]],
    repeats: int,
    told: Callable[[int, int], None] | None = None,
    has_warm_up: bool = True,
) -> dict[Case, Times]:
    """Run every case once unmeasured, then all of them in turn, `repeats` times, every second time in reverse order.

    A case that returns a number of seconds is timed by itself and believed; else the whole call counts.
    told         called with calls done and calls in all
    has_warm_up  False leaves out the calls that are not measured
    """
    found: dict[Case, list[float]] = {case: [] for case in cases}
    order, done, whole = list(cases), 0, len(cases) * (repeats + has_warm_up)
    for repeat in range(not has_warm_up, repeats + 1):
        for case in order if repeat % 2 else order[::-1]:
            started = perf_counter()
            own = cases[case]()
            seconds = own if isinstance(own, float) else perf_counter() - started
            if repeat:
                found[case].append(seconds)
            done += 1
            if told is not None:
                told(done, whole)
    return {case: Times(tuple(seconds)) for case, seconds in found.items()}
