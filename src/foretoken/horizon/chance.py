"""How likely the target is to write a draft token, given those before it: the drafter's confidence, judged.

A logistic over a few features that cost nothing, with two speeds of learning: weights that belong to the model and its
drafter and change slowly, and an offset by depth that belongs to one text and changes fast. Both move by what the
target wrote where a draft token stood, whether that token had a row or not. What is done for every token is native
(csrc/text/chances.h), for it is paid in every round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foretoken.errors import InputError
from foretoken.ops import Stop, native
from foretoken.stats import TEXT_ITSELF

# Fitted by `bench/fit_chance.py` on rounds of the embedded pair over bench/prompts/small, at temperature 0 and 0.8.
# In order: constant, log-odds of the confidence, log(1 + depth), is sampled, its log-odds, right share of the last
# draft.
MTP_PRIOR = (-0.175, 0.818, 0.421, -0.082, -0.356, 0.699)
OTHER_PRIOR = (0.0, 1.0, 0.0, 0.0, 0.0, 0.0)  # a source that says a chance is taken at its word
SHARED_STEP = 0.01  # of the weights; a drafter that nobody knows yet moves them faster
FIRST_STEP, FIRST_OUTCOMES = 0.05, 60
LEAST_TRUST = 2  # outcomes of a text that its weights count for at first, and so many more as they have seen
MOST_TRUST, OUTCOMES_A_TRUST = 4, 200
WEIGHT_LIMIT = 20.0
TALLY_FADE = 0.97  # the tally is that of about the last thirty drafts
USELESS, USELESS_MIN_DRAFTS = 0.03, 8  # right share, of so many: something is wrong with the drafter


class Weights:
    """What is learned of a drafter over all texts."""

    def __init__(self, name: str) -> None:
        self.values = list(MTP_PRIOR if name.startswith("mtp") else OTHER_PRIOR)
        self.count = 0  # outcomes that they were learned from
        self.drafts = self.right = 0.0  # compared, and those of which at least the first token was right; older fade
        self._is_model = name != TEXT_ITSELF  # which costs nothing, so it is never useless

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
        self.values = [float(value) for value in numbers]
        self.count = MOST_TRUST * OUTCOMES_A_TRUST


class Chance:
    """The judge of one text's drafts."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self._text = native.TextChances()
        self._num_chances = 0  # of the last draft
        self._last_share = 0.5  # of the last draft's tokens that were right, of those whose fate is known
        self._is_sampled = False
        self._trust = LEAST_TRUST + min(weights.count // OUTCOMES_A_TRUST, MOST_TRUST)

    def of(self, confidence: Sequence[float], is_sampled: bool) -> list[float]:
        """The chance of each draft token of a round, given those before it."""
        self._is_sampled = is_sampled
        chances: list[float] = self._text.of(confidence, *self._line(is_sampled))
        self._num_chances = len(chances)
        return chances

    def stop(self, least: float, is_sampled: bool) -> Stop:
        """Where a guess ends whose chance to be kept has fallen below `least`; what belongs to a depth is left out."""
        return Stop(least, *self._line(is_sampled))

    def _line(self, is_sampled: bool) -> tuple[float, float, float]:
        """A chance's log-odds at depth 0 and confidence ½, and their slopes over log-odds of it and over log-depth."""
        constant, odds_weight, depth_weight, sampled, sampled_odds, last = self.weights.values
        if is_sampled:
            constant += sampled
            odds_weight += sampled_odds
        return constant + last * self._last_share + self._text.offset, odds_weight, depth_weight

    def learn(self, draft: Sequence[int], known: int, written: Sequence[int], at: int) -> tuple[int, bool]:
        """Compare the last draft, which began at `at`, with what the target has written since.

        known    draft tokens whose fate was known before
        returns  how many are known now, and whether all of them were right
        """
        found: tuple[int, bool] = self._text.learn(draft, known, written, at, self._trust)
        return found

    def close(self, right: int, known: int) -> None:
        """The fate of the last draft is known as far as it will be: so many tokens were right, of so many."""
        if not known:
            return
        weights = self.weights
        errors, odds_errors, depth_errors = self._text.take_errors()
        step = SHARED_STEP if weights.count > FIRST_OUTCOMES else FIRST_STEP
        values = weights.values
        values[0] += step * errors
        values[1] += step * odds_errors
        values[2] += step * depth_errors
        if self._is_sampled:
            values[3] += step * errors
            values[4] += step * odds_errors
        values[5] += step * self._last_share * errors
        weights.count += known
        weights.tally(right > 0)
        self._trust = LEAST_TRUST + min(weights.count // OUTCOMES_A_TRUST, MOST_TRUST)
        self._last_share = right / self._num_chances
