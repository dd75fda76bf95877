"""What rounds and engine ask of a horizon, and what they tell it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from foretoken.drafters.protocol import Draft
from foretoken.ops import Stop


@dataclass(slots=True)  # made in every pass; frozen ones take four times as long
class Paid:
    """What one pass of the target cost and gave, over all texts in it.

    rows         of the pass, without those of prompts
    prompt_rows  those of prompts
    texts        that were being written: plain decoding would have had so many rows
    tokens       that they gained together
    context      mean length of the texts
    verify_s     seconds of the pass
    drafters     who guessed, as `Draft.source` has it: tokens that took time to guess, one number per text
    draft_s      seconds of guessing and weighing
    other_s      seconds from the end of the pass to the next round, as for judging and text, but no more than of the
                 pass; known when that begins
    rest_s       seconds of the round beside the pass, guessing and judging; known when it is over
    """

    rows: int
    prompt_rows: int
    texts: int
    tokens: int
    context: int
    verify_s: float
    drafters: dict[str, list[int]]
    draft_s: float
    other_s: float = 0.0
    rest_s: float = 0.0

    @property
    def is_alone(self) -> bool:
        """One text was being written, and nothing else done."""
        return self.texts == 1 and not self.prompt_rows


class Horizon(Protocol):
    """Of one text, from its first round to its last."""

    guessed: int  # draft tokens in the last round, with a row or without,
    own: int  # and as `Draft.own` has it
    confidence: Sequence[float]  # the drafter's, for each of them
    reason: str  # why the last round gave none of them a row
    model_limit: int  # draft tokens to ask a model for in the next round; the text itself may be asked for `limit`

    @property
    def useless(self) -> tuple[str, ...]:
        """Models asked in this text of whose guesses the target has kept almost none, in this text and before."""
        ...

    @property
    def chances(self) -> Sequence[float]:
        """Of each of them, given those before it, as the horizon sees it."""
        ...

    @property
    def limit(self) -> int:
        """Draft tokens to ask for in the next round."""
        ...

    @property
    def applied(self) -> int:
        """The horizon of the last round, for figures."""
        ...

    @property
    def stop(self) -> Stop:
        """Where a guess of a model ends in the next round, before its limit."""
        ...

    def read(self, state: Any) -> None:
        """The prompt is read, and `state.tokens` has the first token of the answer."""
        ...

    def choose(self, draft: Draft, state: Any, rows: int) -> int:
        """How many tokens of the draft get a row, in a pass that has so many `rows` without them."""
        ...

    def observe(self, state: Any, paid: Paid) -> None:
        """The pass is over, and `state.tokens` has what the target wrote."""
        ...
