"""What the planner knows of one model on one machine: costs, and a judge per drafter; hands out horizons."""

from __future__ import annotations

import os
import platform
import weakref
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from foretoken.errors import InputError
from foretoken.horizon import disk
from foretoken.horizon.chance import Chance, Weights
from foretoken.horizon.cost import Costs
from foretoken.horizon.events import NO_EVENTS, Events
from foretoken.horizon.fixed import NAMED, FixedHorizon
from foretoken.horizon.habit import Habit
from foretoken.horizon.kept import MAX_SOURCES
from foretoken.horizon.planner import AutoHorizon
from foretoken.horizon.protocol import Horizon

SAVE_EVERY_S = 30.0
LEAST_RIGHT = 0.1  # of the drafts of a model, their first tokens


class Learned:
    """Costs and weights for one key.

    folder      where they are kept, or None; the folder must exist, or nothing is
    key         everything that costs depend on: machine, weights of model and drafters, instruction set, threads
    min_chance  see `AutoHorizon`
    event_of    token -> which event it is for the text, see `events`
    problem     why the file could not be used, if one was there
    """

    def __init__(
        self,
        folder: Path | None = None,
        key: str = "",
        min_chance: float = 0.0,
        event_of: Callable[[int], int] | None = None,
    ) -> None:
        self.costs = Costs()
        self.problem = ""
        self._weights: dict[str, Weights] = {}
        self._habit = Habit()
        self._min_chance = min_chance
        self._events = NO_EVENTS if event_of is None else Events(event_of)
        self._key = key
        self._path = None if folder is None else disk.path_of(folder, key)
        self._saved_at = monotonic()
        if self._path is not None:
            self._load(self._path)

    def horizon(self, asked: int | str) -> Horizon:
        """A horizon for a new text: what `parse_horizon` gives."""
        if self.costs.is_changed and monotonic() - self._saved_at > SAVE_EVERY_S:
            self.save()
        if isinstance(asked, int):
            return FixedHorizon(asked, self._min_chance)
        low, high = NAMED[asked]
        return AutoHorizon(self.costs, self._chance, low, high, self._min_chance, self._events, self._habit)

    def save(self) -> None:
        """Keep it for the next start, if something is new and there is a place for it."""
        if self._path is None or not self.costs.is_changed:
            return
        self.costs.is_changed = False
        self._saved_at = monotonic()
        weights = {name: [round(value, 6) for value in own.values] for name, own in self._weights.items()}
        tallies = {name: [round(own.drafts, 3), round(own.right, 3)] for name, own in self._weights.items()}
        own = {"costs": self.costs.as_dict(), "weights": weights, "tallies": tallies, "habit": self._habit.as_dict()}
        disk.write(self._path, self._key, own)

    def _chance(self, name: str) -> Chance:
        if name not in self._weights:
            self._weights[name] = Weights(name)
        return Chance(self._weights[name])

    def _load(self, path: Path) -> None:
        """Take over what is there, all of it or nothing."""
        if problem := disk.take_over(path, self._key, self._restore):
            self.costs, self._weights, self._habit = Costs(), {}, Habit()
            self.problem = f"what was measured here before {problem}"

    def _restore(self, kept: Any) -> None:
        if len(kept["weights"]) > MAX_SOURCES:
            raise InputError(f"more than {MAX_SOURCES} sources of drafts.")
        self.costs.restore(kept["costs"])
        for name, values in kept["weights"].items():
            self._weights[name] = Weights(name)
            self._weights[name].restore(values)
            self._weights[name].restore_tally(kept.get("tallies", {}).get(name, (0.0, 0.0)))  # older files have none,
        if "habit" in kept:  # nor that
            habit = Habit()
            habit.restore(kept["habit"])
            habit.weights = weights = self._weights.get(habit.source)
            # A model that is hardly ever right is met as a new one: not asked, nobody would hear what is wrong with it.
            if weights is None or weights.right > LEAST_RIGHT * weights.drafts:
                self._habit = habit


class Shelf:
    """The `Learned` of one model under each condition that it has run in; all are kept when the process ends.

    warn  told once per file that could not be used
    """

    def __init__(
        self, folder: Path, event_of: Callable[[int], int], min_chance: float, warn: Callable[[str], None]
    ) -> None:
        self._folder = folder if os.path.isdir(folder) else None
        self._min_chance, self._event_of, self._warn = min_chance, event_of, warn
        self._found: dict[tuple[Any, ...], Learned] = {}
        weakref.finalize(self, _save_all, self._found)

    def get(self, *condition: Any) -> Learned:
        """What was learned under a condition, on this machine."""
        found = self._found.get(condition)
        if found is None:
            found = Learned(self._folder, condition_key(*condition), self._min_chance, self._event_of)
            self._found[condition] = found
            if found.problem:
                self._warn(found.problem)
        return found


def condition_key(*condition: Any) -> str:
    """What files of ours are known by: a condition, and this machine."""
    return " ".join(map(str, (platform.node(), platform.machine(), os.cpu_count(), *condition)))


def _save_all(found: dict[tuple[Any, ...], Learned]) -> None:
    for learned in found.values():
        learned.save()
