"""Guesses from the text itself: what followed the longest earlier place that ends like the text does now.

A suffix automaton over prompt and answer of one conversation finds that place, a token at a time, and counts how often
each token followed. How sure a guess is, is learnt from the same text: at every token it is known what would have been
guessed there. Nothing is ever undone, for only accepted tokens are taken in, and nothing passes from text to text.

Source: Blumer et al. 1985 (the automaton, online); SuffixDecoding (arXiv 2411.04975) for drafts from counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import sqrt
from typing import Any

from foretoken.drafters.protocol import NO_DRAFT, Draft
from foretoken.ops.native import SuffixAutomaton

WINDOW = 32768  # tokens that are surely remembered; twice as many are kept before the older half is forgotten
LEAST_CHANCE = 0.2  # a draft ends where a token is less likely than this to be kept
STEP = 0.06  # of the moving averages: about the last 16 guesses count
# Chance of a guess by the length of the match (1, 2, 3-4, 5-8, 9-16, more), where no other token followed it and where
# some did: what comes first, measured on answers of the embedded pair.
SURE, UNSURE = (0.48, 0.6, 0.8, 0.87, 0.94, 0.97), (0.23, 0.22, 0.27, 0.3, 0.5, 0.7)
# Where text and model disagree, the model's odds count so many times: long matches win, short ones do not. Measured.
MODEL_WEIGHT = 2.5
# A model's odds beside a guess of the text: times this and the root of the text's odds where both guess the same token,
# over that root where they do not. About what a logistic over both says, fitted on answers of the embedded pair.
SECOND_OPINION = 0.6
LEAST_TEXT_ODDS = 0.1  # of the text beside a model: the root of less would say more than any count of it tells


class SuffixText(SuffixAutomaton):  # type: ignore[misc,valid-type]  # the native core has no stubs
    """The automaton of one conversation, kept up with its tokens; memory is bounded by the window.

    observe(tokens) -> chance    take in what was accepted since the last call; `tokens` is the whole text, which only
                                 ever grows. The chance is that of the token that the text says is next, 0 for none
                                 and where it says the end
    tells(tokens, chance, n)     whether that chance is at least `chance`, or n tokens at the end occurred before;
                                 takes tokens in only where a match may be that long and its last two stood together
                                 before, and costs next to nothing elsewhere; of a chance it may tell some tokens late
    """

    def __init__(self, window: int = WINDOW, stop_ids: Iterable[int] = ()) -> None:
        super().__init__([*SURE, *UNSURE], STEP, window, list(stop_ids))

    def draft(self, limit: int, head: Draft = NO_DRAFT) -> Draft:
        """Up to `limit` tokens: those of `head` up to where the text is surer of another, then what the text says."""
        if not head.tokens:
            tokens, chances = self.follow(self.place, limit, 1.0, LEAST_CHANCE)
            return Draft(tokens, chances, "suffix") if tokens else NO_DRAFT
        rates, guess = self.rates, self.guess
        tokens, chances, place, survival, rival = list[int](), list[float](), self.place, 1.0, 0.0
        source = head.source
        for token, chance in zip(head.tokens, head.confidence, strict=True):
            if (found := guess(place)) is not None:
                text, model = max(_odds(rates[found[1]]), LEAST_TEXT_ODDS), _odds(chance)
                if found[0] != token:
                    if text > MODEL_WEIGHT * model:
                        rival = text / (1.0 + text + MODEL_WEIGHT * model)
                        survival *= rival / rates[found[1]]  # `follow` counts the text's own chance of it
                        break
                    text = 1.0 / text
                odds = SECOND_OPINION * model * sqrt(text)
                chance = odds / (1.0 + odds)
            tokens.append(token)
            chances.append(chance)
            survival *= chance
            place = self.moved(place, token)
        more, their_chances = self.follow(place, limit - len(tokens), survival, LEAST_CHANCE)
        if more:
            source = f"{source}+suffix"  # also where no token of the head is left
            tokens += more
            chances += [rival, *their_chances[1:]] if rival else their_chances
        own = len(head.tokens)
        return Draft(tokens, chances, source, own) if tokens else NO_DRAFT


def _odds(chance: float) -> float:
    return chance / (1.0 - min(chance, 0.999))


class SuffixDrafter:
    """Drafts from each conversation's own text, a state's `repeats`. `name` is what figures call it."""

    name = "suffix"

    @staticmethod
    def text(state: Any) -> SuffixText:
        """The text of a sequence, up to its newest token."""
        text: SuffixText = state.repeats
        text.observe(state.tokens)
        return text

    def propose(self, states: Sequence[Any], limits: Sequence[int]) -> list[Draft]:
        """Up to `limits[g]` tokens after `states[g].last`; none where the text's end never occurred before."""
        return [self.text(state).draft(limit) for state, limit in zip(states, limits, strict=True)]
