"""What the texts before have shown: a new one begins with it."""

from __future__ import annotations

from collections.abc import Sequence

from foretoken.horizon.text import TextGuesses

FIRST_REACH = 2  # draft tokens with a row before longer drafts have proved themselves: a wrong start must stay cheap
REACH_WEIGHT = 0.05  # of a draft, on the reach that later texts begin with
RATE_FADE = 0.995  # about two hundred rounds: the end of one text says little of the next
HABIT_WEIGHT, HABIT_EVERY = 0.1, 8  # of texts on the habit, once in so many drafts


class Habit:
    """How it went in the texts before; a new one begins with that, for a short one would be over before it knew."""

    def __init__(self) -> None:
        self.credit = 0.0  # units of time for looking: short texts one after the other must not each begin with a look
        self.worth: dict[str, list[float]] = {}  # drafter name -> by depth
        self.reach: dict[str, float] = {}  # drafter name -> twice the draft tokens that were right
        self.source = ""  # which model made the last draft
        self.has_text = False  # the text itself is among the sources
        self.text = TextGuesses()
        self.tokens = self.time = 0.0  # of rounds that a text had to itself, and whose draft it did not make itself
        self._num_drafts = 0

    def reach_of(self, name: str) -> int:
        """Draft tokens that get a row before longer drafts have proved themselves."""
        return max(round(self.reach.get(name, FIRST_REACH)), 1)

    def count(self, tokens: int, units: float) -> None:
        """What such a round gave, and the units it took."""
        self.tokens = RATE_FADE * self.tokens + tokens
        self.time = RATE_FADE * self.time + units

    def prove(self, name: str, right: int) -> None:
        """So many tokens of a draft with rows were right: move a little towards twice as many."""
        before = self.reach.get(name, FIRST_REACH)
        self.reach[name] = before + REACH_WEIGHT * (2 * right - before)

    def follow(self, name: str, worth: Sequence[float]) -> None:
        """Move a little towards what is true in the text that is being written, once in a few drafts of all texts."""
        self._num_drafts += 1
        if self._num_drafts % HABIT_EVERY:
            return
        own = self.worth.setdefault(name, [])
        own += worth[len(own) :]
        for i, value in enumerate(worth):
            own[i] += HABIT_WEIGHT * (value - own[i])
