"""Whether the text's own guesses are asked for, where no model is, and where a text repeats itself.

They cost microseconds: next to nothing beside a pass of 40 milliseconds, and a tenth of one of 0.2. They are asked for
where the text is so sure that they should bring more than that and their rows. How sure it says it is has been learnt,
so this should hold on average; what they really brought and took is counted all the same, as a balance over all texts,
and they are not asked for while that is used up, until some has come back or the text repeats itself.
"""

from __future__ import annotations

from typing import Any, Final

from foretoken.drafters.line import moved
from foretoken.drafters.suffix import LEAST_CHANCE, SuffixText
from foretoken.horizon.kept import numbers

SUFFIX_LEN: Final = 4  # so many tokens that stood in the text before are an event
NEVER: Final = 2.0  # a chance, and
NO_LEN: Final = 1 << 30  # tokens, that nothing reaches
REPEATS = NEVER, SUFFIX_LEN  # what the text must tell where its guesses are not asked for
FIRST_BALANCE: Final = 2.0  # tokens; much, for luck alone is worth one or two in every guess
MOST_BALANCE: Final = 10.0
MOST_LOSS: Final = 2.0  # of that in one guess: a long one may lose much by one wrong token
TRY_BALANCE: Final = 0.05  # enough for one guess
BALANCE_SHARE: Final = 0.003  # of every token, for guesses that bring less than they take
COST_WEIGHT: Final = 0.25
MOST_KEPT: Final = 1e4  # of tokens or units, in a file
CHANCES: Final = 64  # that are told apart there


class TextGuesses:
    """The guesses of all texts.

    cost  units that asking takes; 0 before the first time
    """

    def __init__(self) -> None:
        self.cost = 0.0
        self._balance = FIRST_BALANCE

    @property
    def are_affordable(self) -> bool:
        """Whether they may be asked for."""
        return self._balance > 0.0

    def settle(self, gain: float, units: float | None, rate: float) -> None:
        """They were asked for, or led beside a model.

        gain   tokens that they brought, less what their rows are worth
        units  that asking took; None where nobody knows
        rate   tokens per unit
        """
        if units is not None:
            self.cost = moved(self.cost, units, COST_WEIGHT)
            gain -= rate * self.cost
        self._balance = min(self._balance + max(gain, -MOST_LOSS), MOST_BALANCE)

    def recover(self, tokens: int) -> None:
        """So many tokens have been written."""
        self._balance = min(self._balance + BALANCE_SHARE * tokens, MOST_BALANCE)

    def as_list(self) -> list[float]:
        """For a file; `restore` reads it."""
        return [round(self.cost, 6), round(self._balance, 4)]

    def restore(self, kept: Any) -> None:
        """Take over what a file says; raises InputError where it is not what `as_list` makes."""
        cost, balance = numbers(kept, -MOST_KEPT, MOST_KEPT, 2)
        self.cost, self._balance = max(cost, 0.0), min(balance, MOST_BALANCE)

    def try_again(self) -> None:
        """The text repeats itself: they are worth another try."""
        self._balance = max(self._balance, TRY_BALANCE)


def least_chance(prices: list[float]) -> float:
    """How sure the text must be of its next token to be asked, were all its tokens alike; NEVER where nothing suffices.

    prices  tokens that a draft of one token, of two, … must bring
    """
    low, high = 0, CHANCES + 1
    while low < high:
        middle = (low + high) // 2
        if _suffices(middle / CHANCES, prices):
            high = middle
        else:
            low = middle + 1
    return max(low / CHANCES, LEAST_CHANCE) if low <= CHANCES else NEVER


def _suffices(chance: float, prices: list[float]) -> bool:
    """Whether a draft of some length is worth it, each of whose tokens is kept with that chance, given the others."""
    survival, kept = 1.0, 0.0
    for price in prices:
        survival *= chance
        kept += survival
        if kept > price:
            return True
    return False


def tells(state: Any, asked: tuple[float, int] = REPEATS) -> bool:
    """Whether the text is so sure of what comes next, or ends in so many tokens that stood in it before.

    False, and no drafts any more, where memory does not suffice to tell.
    """
    if state.drafter is None:
        return False
    text: SuffixText = state.repeats
    try:
        return text.tells(state.tokens, asked[0], asked[1])
    except MemoryError as error:
        state.drafting_failed(error)
        return False
