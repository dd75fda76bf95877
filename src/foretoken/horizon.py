"""How many draft tokens are worth a row of the target's pass. Sees drafts and state, no model.

Fixed horizons for now; the planner that measures cost and chance replaces `auto`.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import index
from typing import Any

from foretoken.drafters.protocol import Draft
from foretoken.errors import InputError, shown

MAX_HORIZON = 16
NAMED = {"auto": 4, "short": 3, "long": 8}


@dataclass(frozen=True)
class FixedHorizon:
    """The same number of draft tokens in every round, as far as the budget goes."""

    limit: int

    def choose(self, draft: Draft, state: Any) -> int:
        """How many tokens of the draft get a row: all that were asked for."""
        return len(draft.tokens)


def parse_horizon(value: int | str) -> int:
    """ "auto", "short", "long", or 0 … 16, as a number or its digits; anything else raises InputError."""
    if isinstance(value, str):
        if value in NAMED:
            return NAMED[value]
        if value.isascii() and value.isdigit() and len(value) < 4:
            value = int(value)
    try:
        number = -1 if isinstance(value, (bool, str)) else index(value)
    except TypeError:
        number = -1
    if not 0 <= number <= MAX_HORIZON:
        raise InputError(f"horizon is {shown(value)}, expected auto, short, long, or 0 to {MAX_HORIZON}.")
    return number
