"""Tokens per unit of time: what a row, a guess or a look must bring for the time it takes."""

from __future__ import annotations

from typing import Final

FADE: Final = 0.97  # of a round in the next one: about the last thirty count


class Rate:
    """Of the last rounds of one kind: at least that of plain decoding when they were counted.

    value   tokens per unit; before the first round `plain`
    tokens  that the rounds gave, and
    time    units that they took, both fading
    """

    def __init__(self, tokens: float = 0.0, time: float = 0.0, plain: float = 0.0) -> None:
        self.tokens, self.time = tokens, time
        self.value = max(tokens / time if time else 0.0, plain)

    def count(self, tokens: int, units: float, plain: float) -> None:
        """A round: what it gave and took, and the rate of plain decoding."""
        self.tokens = FADE * self.tokens + tokens
        self.time = FADE * self.time + units
        value = self.tokens / self.time
        self.value = value if value > plain else plain

    def count_plain(self, rounds: int, units: float) -> None:
        """So many rounds of plain decoding, each of so many units."""
        kept = FADE**rounds
        added = (1.0 - kept) / (1.0 - FADE)
        self.tokens = kept * self.tokens + added
        self.time = kept * self.time + added * units
        self.value = max(self.tokens / self.time, 1.0 / units)

    def forget(self) -> None:
        """Let the next round alone say what the rate is; until then it stays."""
        self.tokens = self.time = 0.0
