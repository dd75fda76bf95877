"""How many draft tokens are worth asking a model for, by what such tokens have brought lately.

What a draft token is worth is kept by depth: the tokens that it has brought, less what its row costs at the rate of
plain decoding. At a higher rate the row costs so much more.
"""

from __future__ import annotations

from typing import Final

GUESSED_WORTH: Final = 0.8  # of the worth of one draft token, for the next one where none was seen


def limit_of(
    worth: list[float], rate: float, plain: float, curve: list[float], start: float, step: float, most: int
) -> int:
    """Draft tokens whose worth is more than guessing them costs; 0 where plain decoding is better.

    What beats plain decoding is asked for: at the rate of a lucky stretch it may seem too dear, but without it the rate
    would be that of plain decoding. How many tokens, the rate decides, or one between both at which some are worth it.

    worth  by depth
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


def settle_rest(
    worth: list[float],
    num_weighed: int,
    by_model: int,
    asked: int,
    weight: float,
    rate: float,
    curve: list[float],
    step: float,
) -> None:
    """What depths are worth, from now on, that a model guessed in vain, or did not come to.

    num_weighed, by_model, asked  draft tokens that had a chance, that the model guessed, and that were asked for
    weight                        of this draft
    """
    worth += [0.0] * (by_model - len(worth))
    num_seen = len(worth)
    for i in range(num_weighed, by_model):  # overruled by the text
        worth[i] -= weight * worth[i]
    if by_model < asked:  # the guess ended before: what was not guessed cost nothing either
        price, over = rate * step, rate - 1.0 / curve[1]
        for i in range(by_model, min(asked, num_seen)):
            worth[i] += weight * (price + over * (curve[i + 2] - curve[i + 1]) - worth[i])
    for i in range(max(by_model, asked), num_seen):  # can hardly be worth more than what stands before it
        worth[i] = min(worth[i], worth[i - 1])
