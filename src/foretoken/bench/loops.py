"""Where an answer begins to repeat itself: drafts of a loop are all accepted, so figures must leave it out."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST_PERIOD, LENGTH = 16, 48


def repeats(tokens: Sequence[int], period: int) -> list[int]:
    """For each token, how many tokens up to it equal the one `period` places before, without a break."""
    runs = [0] * len(tokens)
    for i in range(period, len(tokens)):
        runs[i] = runs[i - 1] + 1 if tokens[i] == tokens[i - period] else 0
    return runs


def is_loop(tokens: Sequence[int]) -> bool:
    """True where 48 tokens in a row repeat with some period of up to 16: a block of at most 16, three times or more."""
    return any(max(repeats(tokens, p), default=0) >= LENGTH - p for p in range(1, LONGEST_PERIOD + 1))
