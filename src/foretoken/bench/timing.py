"""Times of several cases, interleaved, so that a slow minute of the machine hits all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter
from typing import Any, TypeVar

Case = TypeVar("Case", bound=Hashable)


MIN_TURNS = 3  # of fewer nobody knows how far they scatter


@dataclass(frozen=True)
class Times:
    """Seconds of one case, one entry per turn."""

    seconds: tuple[float, ...]

    @property
    def ms(self) -> float:
        """The median in milliseconds."""
        return 1e3 * median(self.seconds)

    @property
    def spread(self) -> float | None:
        """Distance of the quartiles over the median; None of fewer than three turns."""
        return Figure(self.seconds).spread

    @property
    def quartiles_ms(self) -> tuple[float, float] | None:
        """The lower and the upper one in milliseconds; None of fewer than three turns."""
        return Figure(tuple(1e3 * second for second in self.seconds)).quartiles

    def over(self, other: Times) -> Figure:
        """This time over the other's in the same turn."""
        return Figure(tuple(own / beside for own, beside in zip(self.seconds, other.seconds, strict=True)))


@dataclass(frozen=True)
class Figure:
    """A figure, mostly a ratio of times, taken within each turn: a machine whose speed drifts changes both alike."""

    turns: tuple[float, ...]

    @property
    def value(self) -> float:
        """The median over the turns."""
        return median(self.turns)

    @property
    def quartiles(self) -> tuple[float, float] | None:
        """The lower and the upper one; None of fewer than three turns."""
        if len(self.turns) < MIN_TURNS:
            return None
        low, _, high = quantiles(self.turns, n=4, method="inclusive")
        return low, high

    @property
    def spread(self) -> float | None:
        """Distance of the quartiles over the median."""
        if self.quartiles is None:
            return None
        low, high = self.quartiles
        return (high - low) / self.value

    def is_above(self, other: Figure) -> bool:
        """True where it is larger by more than either one's quartiles lie apart. Never, of fewer than three turns."""
        if self.quartiles is None or other.quartiles is None:
            return False
        return self.value - other.value > max(high - low for low, high in (self.quartiles, other.quartiles))


def fields(name: str, figures: Figure | Mapping[str, Figure]) -> dict[str, Any]:
    """NAME, NAME_spread and NAME_quartiles of a report: of one figure, or of several by key."""
    if isinstance(figures, Figure):
        return {name: figures.value, f"{name}_spread": figures.spread, f"{name}_quartiles": figures.quartiles}
    parts = {key: fields("", figure) for key, figure in figures.items()}
    return {f"{name}{end}": {key: own[end] for key, own in parts.items()} for end in ("", "_spread", "_quartiles")}


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
