"""Whether the text's own guesses are worth asking for, where no model is, and where a text repeats itself.

They cost microseconds: next to nothing beside a pass of 40 milliseconds, and a tenth of one of 0.2. So what they
bring and take is counted, and they are given up where they bring less, until the text repeats itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from foretoken.drafters.line import moved
from foretoken.drafters.suffix import LEAST_CHANCE, SuffixText

SUFFIX_LEN = 4  # so many tokens that stood in the text before are an event
NEVER = 2.0  # a chance, and
NO_LEN = 1 << 30  # tokens, that nothing reaches
REPEATS = NEVER, SUFFIX_LEN  # what the text must tell where its guesses are not asked for
FIRST_GAIN = 0.05  # tokens a round that guesses of the text are thought to bring before they have shown it
EVENT_GAIN = 1.3  # and where it repeats itself, over what asking takes
GAIN_WEIGHT = 0.08  # of a round in which it was asked, or led
COST_WEIGHT = 0.25
ASK_LEN = 4  # draft tokens, at most, by which it is decided whether the text is asked
CHANCES = 64  # that are told apart there
# By draft tokens: how many of them are kept on average, where each has the chance i / CHANCES to be, given the others.
KEPT = [
    [sum(accumulate([i / CHANCES] * count, lambda survival, chance: survival * chance)) for i in range(CHANCES + 1)]
    for count in range(1, ASK_LEN + 1)
]


class TextCost:
    """Units that asking takes, over all texts; 0 before the first."""

    def __init__(self) -> None:
        self.units = 0.0


class TextGuesses:
    """Of one text. `cost` is shared with other texts."""

    def __init__(self, cost: TextCost) -> None:
        self._cost = cost
        self._gain = FIRST_GAIN

    def are_worth_it(self, rate: float) -> bool:
        """Whether they bring more than asking takes, at so many tokens per unit of time."""
        return self._gain > rate * self._cost.units

    @property
    def cost(self) -> float:
        """Units that asking takes."""
        return self._cost.units

    def settle(self, gain: float, units: float | None) -> None:
        """They were asked for, or led beside a model.

        gain   tokens that they brought, less what their rows are worth
        units  that asking took; None where nobody knows
        """
        self._gain += GAIN_WEIGHT * (gain - self._gain)
        if units is not None:
            self._cost.units = moved(self._cost.units, units, COST_WEIGHT)

    def try_again(self, rate: float) -> None:
        """The text repeats itself: they are worth another try."""
        self._gain = max(self._gain, FIRST_GAIN, EVENT_GAIN * rate * self._cost.units)


def least_chance(prices: Sequence[float]) -> float:
    """How sure the text must be of its next token to be asked, were all its tokens alike; NEVER where nothing suffices.

    prices  tokens that a draft of one token, of two, … of ASK_LEN at most must bring
    """
    at = min(bisect_right(kept, price) for kept, price in zip(KEPT, prices, strict=False))
    return max(at / CHANCES, LEAST_CHANCE) if at <= CHANCES else NEVER


def tells(state: Any, least_chance: float = NEVER, length: int = SUFFIX_LEN) -> bool:
    """Whether the text is so sure of what comes next, or ends in so many tokens that stood in it before.

    False, and no drafts any more, where memory does not suffice to tell.
    """
    if state.drafter is None:
        return False
    text: SuffixText = state.repeats
    try:
        return text.tells(state.tokens, least_chance, length)
    except MemoryError as error:
        state.drafting_failed(error)
        return False
