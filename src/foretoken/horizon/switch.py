"""What a round takes more because of the one before: neighbours in time are compared, so that a slow minute is none.

Caches then hold the weights, rows and code of that one. With a model that nearly fits into them, a plain pass behind a
drafted round can take a quarter more, which is a reason to stay with drafts, or without.
"""

from __future__ import annotations

from typing import Any, Final

from foretoken.horizon.kept import numbers
from foretoken.horizon.protocol import Paid
from foretoken.stats import TEXT_ITSELF

PLAIN: Final = 0  # kinds of rounds: one row a text,
DRAFTED: Final = 1  # rows for draft tokens that no model guessed,
GUESSED: Final = 2  # and one in which a model guessed, whether rows came of it or not
WEIGHT: Final = 0.05
MOST: Final = 1.0  # units, for a single time: what the system interrupts says nothing
LEAST: Final = -0.5
MOST_KEPT: Final = 10.0  # units, in a file


class Switches:
    """Units, each 0 until it was measured; of rounds that one text had to itself."""

    def __init__(self) -> None:
        self._plain = [0.0, 0.0, 0.0]  # by the kind of the round before
        self._guess = 0.0
        self._waiting, self._first_plain = PLAIN, 0.0  # a plain pass that was the first one, and behind what
        self._first_guess: float | None = None

    def of_plain(self, before: int) -> float:
        """What a plain pass takes more behind a round of that kind."""
        more = self._plain[before]
        return more if more > 0.0 else 0.0

    def of_guess(self, before: int) -> float:
        """What a model's draft takes more behind a round of that kind."""
        return self._guess if before != GUESSED and self._guess > 0.0 else 0.0

    @property
    def of_look(self) -> float:
        """What a model's draft between plain rounds takes more, and the plain pass behind it."""
        return self.of_guess(PLAIN) + self.of_plain(GUESSED)

    def add_plain(self, before: int, units: float) -> None:
        """A plain pass took so many units; behind a drafted round it is compared with the next one, behind itself."""
        if before != PLAIN:
            self._waiting, self._first_plain = before, units
        elif self._waiting:
            known = self._plain[self._waiting]
            self._plain[self._waiting] = known + WEIGHT * (_bounded(self._first_plain - units) - known)
            self._waiting = PLAIN

    def add_guess(self, before: int, more: float) -> None:
        """A model's draft took so many units more than such drafts do; the first one is compared with the second."""
        if before != GUESSED:
            self._first_guess = more
        elif self._first_guess is not None:
            self._guess += WEIGHT * (_bounded(self._first_guess - more) - self._guess)
            self._first_guess = None

    def scale(self, factor: float) -> None:
        """Another unit."""
        self._plain = [factor * more for more in self._plain]
        self._guess *= factor

    def as_list(self) -> list[float]:
        """For a file; `restore` reads it."""
        return [round(more, 5) for more in (*self._plain[1:], self._guess)]

    def restore(self, kept: Any) -> None:
        """Take over what a file says; raises InputError where it is not what `as_list` makes."""
        drafted, guessed, self._guess = numbers(kept, -MOST_KEPT, MOST_KEPT, len(self._plain))
        self._plain = [0.0, drafted, guessed]


def _bounded(more: float) -> float:
    return min(max(more, LEAST), MOST)


def kind_of(paid: Paid) -> int:
    """PLAIN, DRAFTED or GUESSED."""
    for name, own in paid.drafters.items():
        if name != TEXT_ITSELF and any(own):
            return GUESSED
    return DRAFTED if paid.rows > paid.texts else PLAIN
