"""A horizon that the user gave as a number, and how horizons are spelled."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any

from foretoken.drafters.protocol import Draft
from foretoken.errors import InputError, shown
from foretoken.horizon.protocol import Paid
from foretoken.ops import NO_STOP

MAX_HORIZON = 16
NAMED = {"auto": (0, MAX_HORIZON), "short": (2, 3), "long": (5, 10)}  # the planner chooses within, both ends included


class FixedHorizon:
    """The same number of draft tokens in every round, as far as the budget goes.

    min_chance  a draft token less likely than this to be kept, by the drafter's own confidence, gets no row
    """

    reason = "horizon-0"
    stop = NO_STOP
    useless: tuple[str, ...] = ()  # it compares nothing; the figures of the answer tell

    def __init__(self, limit: int, min_chance: float = 0.0) -> None:
        self.limit = self.model_limit = limit
        self.guessed = self.own = 0
        self.confidence: Sequence[float] = ()
        self._min_chance = min_chance

    @property
    def chances(self) -> Sequence[float]:
        return self.confidence

    @property
    def applied(self) -> int:
        return self.limit

    def read(self, state: Any) -> None:
        """Nothing to prepare."""

    def choose(self, draft: Draft, state: Any, rows: int) -> int:
        """All that were asked for, up to the first unlikely one."""
        self.guessed = len(draft.tokens)
        self.own = self.guessed if draft.own is None else draft.own
        self.confidence = draft.confidence
        return self.guessed if self._min_chance <= 0.0 else likely(self.confidence, self._min_chance)

    def observe(self, state: Any, paid: Paid) -> None:
        """Nothing is learned."""


def likely(chances: Sequence[float], least: float) -> int:
    """How many tokens from the first on survive with a chance of at least that."""
    survival = 1.0
    for i, chance in enumerate(chances):
        survival *= chance
        if survival < least:
            return i
    return len(chances)


def parse_horizon(value: int | str) -> int | str:
    """A name as it is, or 0 … 16 of a number or its digits; anything else raises InputError."""
    if isinstance(value, str):
        if value in NAMED:
            return value
        if value.isascii() and value.isdigit() and len(value) < 4:
            value = int(value)
    try:
        number = -1 if isinstance(value, (bool, str)) else index(value)
    except TypeError:
        number = -1
    if not 0 <= number <= MAX_HORIZON:
        raise InputError(f"horizon is {shown(value)}, expected auto, short, long, or 0 to {MAX_HORIZON}.")
    return number


def parse_min_chance(value: float | None) -> float:
    """A chance from 0 to 1; 0 for None, which leaves the choice to the horizon; anything else raises InputError."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is not None and not (is_number and 0.0 <= value <= 1.0):
        raise InputError(f"draft_min_chance is {shown(value)}, expected a number from 0 to 1.")
    return float(value or 0.0)
