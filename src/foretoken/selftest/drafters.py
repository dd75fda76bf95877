"""Drafters that are wrong on purpose, so that every kind of roll-back happens whatever the model's own would guess."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foretoken.drafters.protocol import Draft


class WrongDrafter:
    """Guesses right by luck only: tokens by a fixed rule from the position."""

    name = "wrong"

    def __init__(self, vocab_len: int) -> None:
        self._vocab_len = vocab_len

    def propose(self, states: Sequence[Any], limits: Sequence[int]) -> list[Draft]:
        """`limits[i]` tokens that have nothing to do with the text of `states[i]`."""
        return [self._guess(len(state.tokens), limit) for state, limit in zip(states, limits, strict=True)]

    def _guess(self, start: int, limit: int) -> Draft:
        tokens = [position * 2654435761 % self._vocab_len for position in range(start, start + limit)]
        return Draft(tokens, [0.0] * limit)


class ForcedDrafter:
    """Knows the plain answer of one text and forces where a draft is rejected.

    The first round's draft is wrong at its token 0, the next one's at 1, …, then one is right throughout, and again.
    What follows the wrong token is right again, so that nothing but the round's own rule stops there.

    text      prompt and plain answer
    rejected  (draft tokens, index) of the rounds that kept just the tokens before the wrong one
    """

    name = "forced"

    def __init__(self, text: Sequence[int], vocab_len: int) -> None:
        self.rejected: set[tuple[int, int]] = set()
        self._text = list(text)
        self._vocab_len = vocab_len
        self._num_rounds = 0
        self._last: tuple[int, int, int] | None = None  # length of the text before the last round, its limit and index

    def propose(self, states: Sequence[Any], limits: Sequence[int]) -> list[Draft]:
        """A draft for the one sequence that this drafter was made for."""
        return [self._guess(len(state.tokens), limit) for state, limit in zip(states, limits, strict=True)]

    def _guess(self, start: int, limit: int) -> Draft:
        self._look_back(start)
        index = self._num_rounds % (limit + 1)
        self._num_rounds += 1
        self._last = start, limit, index
        tokens = self._text[start : start + limit]
        if index < limit:
            tokens[index] = (tokens[index] + 1) % self._vocab_len
        return Draft(tokens, [1.0] * limit)

    def _look_back(self, start: int) -> None:
        """Note the last round if it went as forced: so many draft tokens kept, and one of the target's own."""
        if self._last is not None:
            before, limit, index = self._last
            if start - before == index + 1:
                self.rejected.add((limit, index))


def rounds_len(horizon: int) -> int:
    """Tokens of an answer in which a `ForcedDrafter` passes every index of that horizon.

    One token from the prompt, then 1, 2 … horizon + 1 a round; two more, so that it sees what came of the last round.
    """
    return 1 + (horizon + 1) * (horizon + 2) // 2 + 2
