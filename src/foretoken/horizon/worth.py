"""How many draft tokens are worth asking a model for, by what such tokens have brought lately."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

GUESSED_WORTH: Final = 0.8  # of the worth of one draft token, for the next one where none was seen


def limit_of(
    worth: Sequence[float], rate: float, plain: float, curve: Sequence[float], start: float, step: float, most: int
) -> int:
    """Draft tokens whose worth is more than guessing them costs; 0 where plain decoding is better.

    What beats plain decoding is asked for: at the rate of a lucky stretch it may seem too dear, but without it the rate
    would be that of plain decoding. How many tokens, the rate decides, or one between both at which some are worth it.

    worth  by depth, tokens that a draft token has brought, less what its row costs at the rate of plain decoding
    rate   tokens per unit; plain is that of plain decoding
    curve  units by rows of a pass
    start  units of a draft, whatever its length; below 0 where being without one costs more
    step   units of each token
    most   draft tokens
    """
    limit = 0
    for value in (rate, 0.5 * (rate + plain), plain):
        net, best, limit, gain = -value * start, 0.0, 0, 0.0
        price, num_seen, over = value * step, len(worth), value - plain
        for i in range(most):
            gain = worth[i] if i < num_seen else GUESSED_WORTH * gain
            own = gain - over * (curve[i + 2] - curve[i + 1])
            net += (own if own > 0.0 else 0.0) - price
            if net > best:
                best, limit = net, i + 1
            elif i >= num_seen and gain < price:
                break  # further guesses are lower still
        if limit or value == plain:
            break
    return limit
