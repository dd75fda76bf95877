"""Whether the text's own guesses are worth asking for, where no model is, and where a text repeats itself.

They cost microseconds: next to nothing beside a pass of 40 milliseconds, and a tenth of one of 0.2. So what they
bring and take is counted, and they are given up where they bring less, until the text repeats itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from foretoken.drafters.line import moved

SUFFIX_LEN = 4  # so many tokens that stood in the text before are an event
SUFFIX_REACH = 4096  # tokens of a prompt that are looked at for that,
SUFFIX_STEP = 32  # a few a round, as a short answer may not pay for all of them
FIRST_GAIN = 0.05  # tokens a round that guesses of the text are thought to bring before they have shown it
EVENT_GAIN = 1.3  # and where it repeats itself, over what asking takes
GAIN_WEIGHT = 0.08  # of a round
COST_WEIGHT = 0.25


class TextCost:
    """Units that asking takes, over all texts; 0 before the first."""

    def __init__(self) -> None:
        self.units = 0.0


class TextGuesses:
    """Of one text. `cost` is shared with other texts."""

    def __init__(self, cost: TextCost) -> None:
        self._cost = cost
        self._gain = FIRST_GAIN
        self._is_met = False  # it has been asked in this text
        self._suffixes: set[tuple[int, ...]] = set()
        self._seen_len = 0  # tokens whose suffixes are in there

    def are_worth_it(self, rate: float) -> bool:
        """Whether they bring more than asking takes, at so many tokens per unit of time."""
        return self._gain > max(rate, 1.0) * self._cost.units

    def settle(self, gain: float, units: float | None) -> None:
        """They were asked for.

        gain   tokens that they brought, less what their rows are worth
        units  that asking took; None where nobody knows
        """
        self._gain += GAIN_WEIGHT * (gain - self._gain)
        if self._is_met and units is not None:  # the first time the whole prompt is taken in
            self._cost.units = moved(self._cost.units, units, COST_WEIGHT)
        self._is_met = True

    def try_again(self, rate: float) -> None:
        """The text repeats itself: they are worth another try."""
        self._gain = max(self._gain, FIRST_GAIN, EVENT_GAIN * max(rate, 1.0) * self._cost.units)

    def recurs(self, tokens: Sequence[int]) -> bool:
        """Whether the text ends in tokens that stood in it before."""
        length = len(tokens)
        first = max(self._seen_len, length - SUFFIX_REACH, SUFFIX_LEN)  # ends of what is taken in, all but the newest
        last = min(first + SUFFIX_STEP, length)
        new = tokens[first - SUFFIX_LEN : last - 1]
        self._suffixes.update(zip(*(new[i:] for i in range(SUFFIX_LEN)), strict=False))
        self._seen_len = max(last, self._seen_len)
        return tuple(tokens[-SUFFIX_LEN:]) in self._suffixes
