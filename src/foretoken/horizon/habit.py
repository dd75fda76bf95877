"""What the texts before have shown: a new one begins with it, and so does a block of code in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from foretoken.errors import InputError
from foretoken.horizon.chance import Weights
from foretoken.horizon.events import PROSE
from foretoken.horizon.fixed import MAX_HORIZON
from foretoken.horizon.kept import MAX_SOURCES, items, number, numbers, whole
from foretoken.horizon.text import TextGuesses

FIRST_REACH: Final = 2  # draft tokens with a row before longer ones have proved themselves: a wrong start stays cheap
REACH_WEIGHT: Final = 0.05  # of a draft, on the reach that later texts begin with
RATE_FADE: Final = 0.995  # about two hundred rounds: the end of one text says little of the next
HABIT_WEIGHT: Final = 0.1  # of texts on the habit,
HABIT_EVERY: Final = 8  # once in so many drafts; the first times count alike
MOST_KINDS: Final = 64
MOST_COUNT: Final = 1 << 30  # and most of any number, in a file
MOST: Final = 1e6


class Shown:
    """What one kind of text has shown of drafters."""

    def __init__(self) -> None:
        self.worth: dict[str, list[float]] = {}  # drafter name -> by depth
        self.reach: dict[str, float] = {}  # drafter name -> twice the draft tokens that were right
        self.num_vain = 0  # looks at a model since one was last worth asking
        self._num_drafts: dict[str, int] = {}

    def reach_of(self, name: str) -> int:
        """Draft tokens that get a row before longer drafts have proved themselves."""
        return max(round(self.reach.get(name, FIRST_REACH)), 1)

    def prove(self, name: str, right: int) -> None:
        """So many tokens of a draft with rows were right: move a little towards twice as many."""
        before = self.reach.get(name, FIRST_REACH)
        self.reach[name] = before + REACH_WEIGHT * (2 * right - before)

    def follow(self, name: str, worth: Sequence[float]) -> None:
        """Move a little towards what is true in the text that is being written, once in a few drafts of all texts."""
        count = self._num_drafts[name] = self._num_drafts.get(name, 0) + 1
        if count < HABIT_EVERY and not count & (count - 1):  # what the first ones say is forgotten at the eighth
            weight = 1.0 / min(count, 2)
        elif not count % HABIT_EVERY:
            weight = max(HABIT_WEIGHT, HABIT_EVERY / count)
        else:
            return
        own = self.worth.setdefault(name, [])
        own += worth[len(own) :]
        for i, value in enumerate(worth):
            own[i] += weight * (value - own[i])

    def as_dict(self) -> dict[str, Any]:
        """For a file; `restore` reads it. Looks are not kept: every start has one."""
        return {
            "worth": {name: [round(value, 5) for value in worth] for name, worth in self.worth.items()},
            "reach": {name: round(reach, 3) for name, reach in self.reach.items()},
            "drafts": dict(self._num_drafts),
        }

    def restore(self, kept: Any) -> None:
        """Take over what a file says; raises InputError where it is not what `as_dict` makes."""
        worth = items(kept["worth"], MAX_SOURCES)
        self.worth = {name: numbers(values, 0.0, MOST, MAX_HORIZON) for name, values in worth}
        self.reach = {name: number(reach, 0.0, 2 * MAX_HORIZON) for name, reach in items(kept["reach"], MAX_SOURCES)}
        self._num_drafts = {name: whole(count, 0, MOST_COUNT) for name, count in items(kept["drafts"], MAX_SOURCES)}


class Habit(Shown):
    """How it went in the texts before; a new one begins with that, for a short one would be over before it knew.

    Itself what prose has shown; other kinds, as JSON or code in some language, have their own, for a drafter that is
    worth little in prose may be worth much there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.credit = 0.0  # units of time for looking: short texts one after the other must not each begin with a look
        self.source = ""  # which model made the last draft,
        self.weights: Weights | None = None  # and what is learned of it
        self.has_text = False  # the text itself is among the sources
        self.text = TextGuesses()
        self.tokens = self.time = 0.0  # of rounds that a text had to itself, and whose draft it did not make itself
        self._kinds: dict[int, Shown] = {}

    def of(self, kind: int) -> Shown:
        """What a kind of text (`events.Kind`) has shown; of too many the one is forgotten that rests longest."""
        if kind == PROSE:
            return self
        found = self._kinds.pop(kind, None) or Shown()
        self._kinds[kind] = found
        if len(self._kinds) > MOST_KINDS:
            del self._kinds[next(iter(self._kinds))]
        return found

    def count(self, tokens: int, units: float) -> None:
        """What such a round gave, and the units it took."""
        self.tokens = RATE_FADE * self.tokens + tokens
        self.time = RATE_FADE * self.time + units

    def as_dict(self) -> dict[str, Any]:
        """Kinds of text are numbers of tokens; nothing else in there comes from a text."""
        return {
            **super().as_dict(),
            "source": self.source,
            "rate": [round(self.tokens, 4), round(self.time, 4)],
            "text": self.text.as_list(),
            "kinds": {str(kind): shown.as_dict() for kind, shown in self._kinds.items()},
        }

    def restore(self, kept: Any) -> None:
        """All but `weights`, which belong to `source`."""
        super().restore(kept)
        self.source = kept["source"]
        if not isinstance(self.source, str):
            raise InputError("the source of the last draft is no name.")
        self.tokens, self.time = numbers(kept["rate"], 0.0, MOST, 2)
        self.text.restore(kept["text"])
        for text, shown in items(kept["kinds"], MOST_KINDS):
            self.of(whole(text, 1, MOST_COUNT)).restore(shown)
