"""Guesses from the text itself: what followed the longest earlier place that ends like the text does now.

A suffix automaton over prompt and answer of one conversation finds that place, a token at a time, and counts how often
each token followed. How sure a guess is, is learnt from the same text: at every token it is known what would have been
guessed there. Nothing is ever undone, for only accepted tokens are taken in, and nothing passes from text to text.

Source: Blumer et al. 1985 (the automaton, online); SuffixDecoding (arXiv 2411.04975) for drafts from counts.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from foretoken.drafters.protocol import NO_DRAFT, Draft

WINDOW = 32768  # tokens that are surely remembered; twice as many are kept before the older half is forgotten
COUNTED = 16  # ends of the text counted per token, from the longest: shorter ones follow nearly every token anyway
MOST_CHILDREN = 16  # a place that so many tokens followed says nothing about the next one
LEAST_CHANCE = 0.2  # a draft ends where a token is less likely than this to be kept
STEP = 0.06  # of the moving averages: about the last 16 guesses count
# Chance of a guess by the length of the match (1, 2, 3-4, 5-8, 9-16, more), where no other token followed it and where
# some did: what comes first, measured on answers of the embedded pair.
SURE, UNSURE = (0.48, 0.6, 0.8, 0.87, 0.94, 0.97), (0.23, 0.22, 0.27, 0.3, 0.5, 0.7)
# Where text and model disagree, the model's odds count so many times: long matches win, short ones do not. Measured.
MODEL_WEIGHT = 2.5
LENGTH_CELLS = len(SURE)
LONGEST = 17  # matches that are longer are alike
CELLS = (0, *((length - 1).bit_length() for length in range(1, LONGEST + 1)))

Place = tuple[int, int]  # a state and the length of the match that it stands for


class SuffixAutomaton:
    """Every substring of a text, online. State 0 is the empty one; states number at most twice the tokens.

    Most states go on with one token only, kept in two arrays; the others have a dict beside them.
    `rates` are chances by cell, see `CELLS`: learnt here, and handed on when a text is taken in anew.
    """

    def __init__(self, rates: Sequence[float] = (*SURE, *UNSURE)) -> None:
        self.size = 0  # tokens taken in
        self.place: Place = (0, 0)  # the longest end of the text that occurred before
        self.rates = list(rates)
        self._link = array("i", [-1])  # the state of the longest shorter end that occurs elsewhere too
        self._length = array("i", [0])  # of a state's longest string
        self._count = array("i", [0])  # how often its strings occur
        self._end = array("i", [0])  # where the newest of them ends
        self._token = array("i", [-1])  # how it goes on first
        self._target = array("i", [-1])
        self._more: dict[int, dict[int, int]] = {}  # and with which other tokens
        self._last = 0

    def push(self, token: int) -> None:
        """Take in the text's next token."""
        if (guess := self.guess(self.place)) is not None:  # how good would it have been?
            cell = guess[1]
            self.rates[cell] += STEP * ((guess[0] == token) - self.rates[cell])
        self.size += 1
        tokens, links, more = self._token, self._link, self._more
        new = self._add_state(self.size, 1)
        state, target = self._last, -1
        while state >= 0:
            first = tokens[state]
            if first < 0:
                tokens[state], self._target[state] = token, new
            elif first == token:
                target = self._target[state]
                break
            elif state not in more:
                more[state] = {token: new}
            elif (target := more[state].setdefault(token, new)) != new:
                break
            state = links[state]
        link = 0 if state < 0 else self._whole(state, token, target)
        links[new] = link
        self._last = new
        self.place = link, self._length[link]
        counts, ends = self._count, self._end
        for _ in range(COUNTED):  # the text ends in one more occurrence of its ends
            if link <= 0:
                break
            counts[link] += 1
            ends[link] = self.size
            link = links[link]

    def guess(self, place: Place) -> tuple[int, int, Place] | None:
        """The likeliest next token at a place, its cell in `rates`, and the place after it; None if there is none."""
        state, length = place
        while (token := self._token[state]) < 0 and state:  # the text's own end: go on from where that occurred before
            state = self._link[state]
            length = self._length[state]
        if not length:
            return None
        target = self._target[state]
        if (others := self._more.get(state)) is None:
            return token, CELLS[length if length < LONGEST else LONGEST], (target, length + 1)
        if len(others) >= MOST_CHILDREN:
            return None
        counts, ends = self._count, self._end
        count, end = counts[target], ends[target]
        for other, its_target in others.items():
            its_count = counts[its_target]
            if its_count > count or (its_count == count and ends[its_target] > end):
                token, target, count, end = other, its_target, its_count, ends[its_target]
        cell = LENGTH_CELLS + CELLS[length if length < LONGEST else LONGEST]
        return token, cell, (target, length + 1)

    def moved(self, place: Place, token: int) -> Place:
        """The longest end of (place's string + token) that occurs in the text."""
        state, length = place
        while True:
            if self._token[state] == token:
                return self._target[state], length + 1
            if state in self._more and token in self._more[state]:
                return self._more[state][token], length + 1
            state = self._link[state]
            if state < 0:
                return 0, 0
            length = self._length[state]

    def _add_state(self, length: int, count: int) -> int:
        """A state that goes on with nothing, whose strings end here."""
        new = len(self._link)
        self._link.append(-1)
        self._length.append(length)
        self._count.append(count)
        self._end.append(self.size)
        self._token.append(-1)
        self._target.append(-1)
        return new

    def _whole(self, state: int, token: int, target: int) -> int:
        """`target`, or where it also stands for longer strings a copy of it that stands for those of `state` only."""
        length = self._length[state] + 1
        if self._length[target] == length:
            return target
        copy = self._add_state(length, self._count[target])
        self._end[copy] = self._end[target]
        self._token[copy], self._target[copy] = self._token[target], self._target[target]
        if target in self._more:
            self._more[copy] = dict(self._more[target])
        self._link[copy], self._link[target] = self._link[target], copy
        while state >= 0:
            if self._token[state] == token:
                if self._target[state] != target:
                    break
                self._target[state] = copy
            elif state in self._more and self._more[state].get(token) == target:
                self._more[state][token] = copy
            else:
                break
            state = self._link[state]
        return copy


class SuffixText:
    """The automaton of one conversation, kept up with its tokens; memory is bounded by the window."""

    def __init__(self, window: int = WINDOW) -> None:
        self.automaton = SuffixAutomaton()
        self._window = window
        self._num_seen = 0
        self._is_whole = True  # False while a token is taken in: an interrupt may leave it half done

    def observe(self, tokens: Sequence[int]) -> None:
        """Take in what was accepted since the last call; `tokens` is the whole text, which only ever grows."""
        is_same = self._is_whole and len(tokens) >= self._num_seen
        if not is_same or self.automaton.size + len(tokens) - self._num_seen > 2 * self._window:
            self.automaton = SuffixAutomaton(self.automaton.rates)
            self._num_seen = max(len(tokens) - self._window, 0)
        self._is_whole = False
        for token in tokens[self._num_seen :]:
            self.automaton.push(token)
        self._num_seen = len(tokens)
        self._is_whole = True

    def draft(self, limit: int, head: Draft = NO_DRAFT) -> Draft:
        """Up to `limit` tokens: those of `head` up to where the text is surer of another, then what the text says."""
        automaton = self.automaton
        rates, guess = automaton.rates, automaton.guess
        tokens, chances, place, survival = list[int](), list[float](), automaton.place, 1.0
        source = head.source
        for token, chance in zip(head.tokens, head.confidence.tolist(), strict=True):
            if (found := guess(place)) is not None:
                own = rates[found[1]]
                if found[0] == token:
                    chance = max(chance, own)
                else:
                    chance, other = _rivals(chance, own)
                    if other > chance:
                        break
            tokens.append(token)
            chances.append(chance)
            survival *= chance
            place = automaton.moved(place, token)
        head_len = len(tokens)
        while len(tokens) < limit and (found := guess(place)) is not None:
            token, cell, place = found
            survival *= rates[cell]
            if survival < LEAST_CHANCE:
                break
            tokens.append(token)
            chances.append(rates[cell])
        if len(tokens) > head_len:
            source = f"{source}+suffix" if head.tokens else "suffix"  # also where no token of the head is left
        return Draft(tokens, np.array(chances, dtype=np.float32), source)


def _rivals(model: float, text: float) -> tuple[float, float]:
    """Chances of two different guesses for one token, from what each would have alone."""
    models = MODEL_WEIGHT * model / (1 - min(model, 0.999))
    texts = text / (1 - min(text, 0.999))
    return models / (models + texts + 1), texts / (models + texts + 1)


class SuffixDrafter:
    """Drafts from each conversation's own text. `name` is what figures call it."""

    name = "suffix"

    def __init__(self) -> None:
        self._texts: WeakKeyDictionary[Any, SuffixText] = WeakKeyDictionary()

    def text(self, state: Any) -> SuffixText:
        """The text of a sequence, up to its newest token."""
        text = self._texts.get(state)
        if text is None:
            text = self._texts[state] = SuffixText()
        text.observe(state.tokens)
        return text

    def propose(self, states: Sequence[Any], limits: Sequence[int]) -> list[Draft]:
        """Up to `limits[g]` tokens after `states[g].last`; none where the text's end never occurred before."""
        return [self.text(state).draft(limit) for state, limit in zip(states, limits, strict=True)]
