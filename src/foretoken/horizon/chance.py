"""How likely the target is to write a draft token, given those before it: the drafter's confidence, judged.

A logistic over a few features that cost nothing, with two speeds of learning: weights that belong to the model and its
drafter and change slowly, and an offset by depth that belongs to one text and changes fast. Both move by what the
target wrote where a draft token stood, whether that token had a row or not. What is done for every token is native
(csrc/text/chances.h), for it is paid in every round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from foretoken.errors import InputError
from foretoken.ops import Stop, native
from foretoken.stats import TEXT_ITSELF

# Fitted by `bench/fit_chance.py` on rounds of the embedded pair over bench/prompts/small, at temperature 0 and 0.8.
# In order: constant, log-odds of the confidence, log(1 + depth), is sampled, its log-odds, right share of the last
# draft.
MODEL_PRIOR = (-0.175, 0.818, 0.421, -0.082, -0.356, 0.699)
TEXT_PRIOR = (0.0, 1.0, 0.0, 0.0, 0.0, 0.0)  # what the text says is a chance, and taken at its word
SHARED_STEP: Final = 0.01  # of the weights; a drafter that nobody knows yet moves them faster
FIRST_STEP: Final = 0.05
FIRST_OUTCOMES: Final = 60
LEAST_TRUST: Final = 2  # outcomes of a text that its weights count for at first, and so many more as they have seen
MOST_TRUST: Final = 4
OUTCOMES_A_TRUST: Final = 200
WEIGHT_LIMIT: Final = 20.0
TALLY_FADE: Final = 0.97  # the tally is that of about the last thirty drafts
USELESS: Final = 0.03  # right share, of so many: something is wrong with the drafter
USELESS_MIN_DRAFTS: Final = 8


class Weights:
    """What is learned of a drafter over all texts.

    constant, odds, depth, sampled, sampled_odds, last  see `MODEL_PRIOR`
    """

    def __init__(self, name: str) -> None:
        self._is_model = name != TEXT_ITSELF  # which costs nothing, so it is never useless
        self.values = MODEL_PRIOR if self._is_model else TEXT_PRIOR
        self.count = 0  # outcomes that they were learned from
        self.drafts = self.right = 0.0  # compared, and those of which at least the first token was right; older fade

    @property
    def values(self) -> tuple[float, ...]:
        """All of them, in order."""
        return self.constant, self.odds, self.depth, self.sampled, self.sampled_odds, self.last

    @values.setter
    def values(self, values: Sequence[float]) -> None:
        self.constant, self.odds, self.depth, self.sampled, self.sampled_odds, self.last = values

    @property
    def is_useless(self) -> bool:
        """Whether the target has written hardly any token that this drafter guessed."""
        return self._is_model and self.drafts >= USELESS_MIN_DRAFTS and self.right <= USELESS * self.drafts

    def tally(self, is_right: bool) -> None:
        """Count a draft whose first token was right, or was not."""
        self.drafts = TALLY_FADE * self.drafts + 1.0
        self.right = TALLY_FADE * self.right + is_right

    def restore_tally(self, kept: Any) -> None:
        """Take over what a file says; raises InputError where it is no [drafts, right]."""
        drafts, right = kept
        if not 0.0 <= right <= drafts <= 1.0 / (1.0 - TALLY_FADE) + 1.0:
            raise InputError("the tally of a drafter is not two numbers, drafts and right ones.")
        self.drafts, self.right = float(drafts), float(right)

    def restore(self, kept: Any) -> None:
        """Take over what a file says; raises InputError where it is not such a list."""
        numbers = [v for v in kept if isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) < WEIGHT_LIMIT]
        if not isinstance(kept, list) or len(numbers) != len(kept) or len(kept) != len(self.values):
            raise InputError(f"the weights of a drafter are not {len(self.values)} numbers below {WEIGHT_LIMIT:g}.")
        self.values = tuple(float(value) for value in numbers)
        self.count = MOST_TRUST * OUTCOMES_A_TRUST


class Chance:
    """The judge of one text's drafts."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self._text = native.TextChances()
        self._offset = 0.0  # of the text, as log-odds
        self._errors = self._odds_errors = self._depth_errors = 0.0  # sums, since a draft's fate was known
        self._num_chances = 0  # of the last draft
        self._last_share = 0.5  # of the last draft's tokens: those that were right, of all that had a chance
        self._is_sampled = False
        self._trust = LEAST_TRUST + min(weights.count // OUTCOMES_A_TRUST, MOST_TRUST)

    def of(self, confidence: Sequence[float], is_sampled: bool) -> list[float]:
        """The chance of each draft token of a round, given those before it."""
        self._is_sampled = is_sampled
        constant, odds, depth = self._line(is_sampled)
        chances: list[float] = self._text.of(confidence, constant, odds, depth)
        self._num_chances = len(chances)
        return chances

    def stop(self, least: float, is_sampled: bool) -> Stop:
        """Where a guess ends whose chance to be kept has fallen below `least`; what belongs to a depth is left out."""
        constant, odds, depth = self._line(is_sampled)
        return Stop(least, constant, odds, depth)

    def _line(self, is_sampled: bool) -> tuple[float, float, float]:
        """A chance's log-odds at depth 0 and confidence ½, and their slopes over log-odds of it and over log-depth."""
        weights = self.weights
        constant, odds = weights.constant, weights.odds
        if is_sampled:
            constant += weights.sampled
            odds += weights.sampled_odds
        return constant + weights.last * self._last_share + self._offset, odds, weights.depth

    def learn(self, draft: Sequence[int], known: int, written: Sequence[int], at: int) -> tuple[int, bool]:
        """Compare the last draft, which began at `at`, with what the target has written since.

        known    draft tokens whose fate was known before
        returns  how many are known now, and whether all of them were right
        """
        found: tuple[int, bool, float, float, float, float] = self._text.learn(draft, known, written, at, self._trust)
        known, is_right, self._offset, errors, odds_errors, depth_errors = found
        self._errors += errors
        self._odds_errors += odds_errors
        self._depth_errors += depth_errors
        return known, is_right

    def close(self, right: int, known: int) -> None:
        """The fate of the last draft is known as far as it will be: so many tokens were right, of so many."""
        if not known:
            return
        weights = self.weights
        step = SHARED_STEP if weights.count > FIRST_OUTCOMES else FIRST_STEP
        weights.constant += step * self._errors
        weights.odds += step * self._odds_errors
        weights.depth += step * self._depth_errors
        if self._is_sampled:
            weights.sampled += step * self._errors
            weights.sampled_odds += step * self._odds_errors
        weights.last += step * self._last_share * self._errors
        self._errors = self._odds_errors = self._depth_errors = 0.0
        weights.count += known
        weights.tally(right > 0)
        self._trust = LEAST_TRUST + min(weights.count // OUTCOMES_A_TRUST, MOST_TRUST)
        self._last_share = right / self._num_chances
