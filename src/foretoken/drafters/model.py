"""A second, smaller model as drafter: it writes on by itself, and the target judges.

It needs nothing of the target but the same token ids, so any model with the same vocabulary will do. Each text has a
cache of this model's own beside the target's: accepted tokens that it has not read yet are read first, those of its
draft that were rejected are rolled back. Texts are drafted one after the other, for each has a cache memory of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from foretoken.cache import Cache, PagePool, segments
from foretoken.drafters.protocol import Draft
from foretoken.errors import CacheError
from foretoken.models.gemma4 import Gemma4
from foretoken.sampling import chance_of

CHUNK = 256  # rows of a pass over tokens that were not read yet
MAX_DRAFT = 64  # tokens of a draft that can be undone; far more than any horizon


class ModelDrafter:
    """Guesses with a whole model. `name` is what figures call it."""

    def __init__(self, model: Gemma4, name: str = "model") -> None:
        self.model = model
        self.name = name
        self._readers: WeakKeyDictionary[Any, _Reader] = WeakKeyDictionary()

    def propose(self, states: Sequence[Any], limits: Sequence[int]) -> list[Draft]:
        """Guess `limits[g]` tokens after `states[g].last`, fewer where this model's context or the guess ends.

        state.horizon            its `stop` says where a guess is too unlikely to be kept to go on
        state.tokens, state.end  the text, and the length that it never grows beyond
        state.sampler            the guess uses the target's own noise, so that it agrees as often as it can
        returns                  per sequence tokens (n,), confidence (n,): softmax of all logits, without noise
        """
        return [self._guess(state, limit) for state, limit in zip(states, limits, strict=True)]

    def _guess(self, state: Any, limit: int) -> Draft:
        reader = self._readers.get(state)
        if reader is None:
            reader = self._readers[state] = _Reader(self.model, state.end)
        tokens: list[int] = []
        confidence: list[float] = []
        limit = min(limit, MAX_DRAFT, reader.room - len(state.tokens))
        stop, survival = state.horizon.stop, 1.0
        while len(tokens) < limit and survival >= stop.least:
            logits = reader.read(state.tokens, tokens)
            token = state.sampler.token(logits.copy(), state.tokens, tokens)
            confidence.append(chance_of(token, logits))
            survival = stop.survival(survival, len(tokens), confidence[-1])
            tokens.append(token)
        return Draft(tokens, confidence)


class _Reader:
    """One text as far as the model has read it. `room` is the most tokens that it can read."""

    def __init__(self, model: Gemma4, end: int) -> None:
        self.room = min(end, model.config.max_positions)
        self._model = model
        self._cache = Cache(PagePool(model.cache_layers, self.room, 1, CHUNK + MAX_DRAFT))
        self._read: list[int] = []  # what the cache holds
        self._num_final = 0  # how many of them are of the text; the rest were a draft
        self._is_whole = True  # no interrupt came while it read

    def read(self, text: Sequence[int], draft: Sequence[int]) -> np.ndarray:
        """(V,) logits after text and draft, of which what stands in the cache already is not read again."""
        if not self._is_whole:
            self._cache.pool.recount()
        self._is_whole = False
        self._go_back(text, draft)
        logits = None
        while len(self._read) < len(text):
            logits = self._pass(text[len(self._read) : len(self._read) + CHUNK], goes_on=False)
            self._num_final = len(self._read)
        for token in draft[len(self._read) - len(text) :]:
            logits = self._pass([token], goes_on=True)
        assert logits is not None  # at least one token was new
        self._is_whole = True
        return logits

    def _go_back(self, text: Sequence[int], draft: Sequence[int]) -> None:
        """Undo what is not the beginning of text and draft, and their last token, whose logits are wanted."""
        keep = min(self._num_final, len(text))
        for token, own in zip([*text[keep:], *draft], self._read[keep:], strict=False):
            if token != own:
                break
            keep += 1
        keep = min(keep, len(text) + len(draft) - 1)
        try:
            if self._cache.length != len(self._read):
                raise CacheError("an interrupt came between a pass and the note of what it read.")
            self._cache.roll_back(len(self._read) - keep)
        except CacheError:  # where the last pass was interrupted: read everything anew
            keep = 0
            self._cache.release()
        del self._read[keep:]
        self._num_final = min(keep, len(text))

    def _pass(self, tokens: Sequence[int], goes_on: bool) -> np.ndarray:
        """Read tokens; (V,) logits after the last of them."""
        cache = self._cache
        cache.abort_pass()  # one that an interrupt left open
        cache.begin_pass(len(tokens), goes_on)
        ids, keep = np.array(tokens, dtype=np.int32), np.array([len(tokens) - 1], dtype=np.int32)
        with self._model.scored(ids, segments([cache], [len(tokens)]), keep) as (_, logits):
            last: np.ndarray = logits[0].copy()
        cache.end_pass()
        self._read.extend(tokens)
        return last
