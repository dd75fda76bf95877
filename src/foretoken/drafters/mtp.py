"""The MTP drafter: a chain of steps of the assistant model, each fed with the last one's token and hidden row.

The position is held constant while drafting (the index of the newest token), for the keys do not grow during a
round. Source: specification 3.1, 3.2; transformers 5.24, SinglePositionMultiTokenCandidateGenerator.get_candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from foretoken.cache import Segments, read_only_segments
from foretoken.drafters.protocol import Draft
from foretoken.errors import DraftError
from foretoken.models.gemma4_assistant import MAX_CHAIN, Assistant, Candidates
from foretoken.ops import DRAW_COUNT, DRAW_RECORD, DRAW_SURVIVAL, Stop
from foretoken.sampling import chance_of


class MtpDrafter:
    """Guesses with Gemma 4's assistant. `name` is what figures call it."""

    def __init__(self, assistant: Assistant, name: str = "mtp") -> None:
        self.assistant = assistant
        self.name = name

    def propose(self, states: Sequence[Any], limits: Sequence[int]) -> list[Draft]:
        """Guess up to `limits[g]` tokens after `states[g].last`, all sequences in one pass per step.

        state.horizon   its `stop` says where a guess is too unlikely to be kept to go on
        state.hidden    (D,) float32, the target's row that chose `last`, after its final norm
        state.cache     read only; ends just before `last`
        state.sampler   the guess uses the target's own noise, so that it agrees as often as it can
        returns         per sequence tokens (n,), confidence (n,): softmax over the candidates, without noise
        raises          DraftError if a cache does not end just before `last`
        """
        for state in states:
            _check(state)
        chains = [_Chain(state) for state in states]
        done = 0
        for limit in sorted(set(limits)):  # shorter drafts are finished first
            active = [chain for chain, own in zip(chains, limits, strict=True) if own >= limit and not chain.is_over]
            plain = [chain for chain in active if chain.is_plain]
            self._draw(plain, limit - done)
            self._extend([chain for chain in active if not chain.is_plain], limit - done)
            done = limit
        return [Draft(chain.tokens, chain.confidence) for chain in chains]

    def _draw(self, chains: Sequence[_Chain], count: int) -> None:
        """`count` tokens more for each chain, all drawn natively."""
        while chains and count:
            now = min(count, MAX_CHAIN)
            how = np.frombuffer(bytearray().join(DRAW_RECORD.pack(*chain.draws) for chain in chains), np.uint8)
            inputs = *_inputs(chains), how.reshape(len(chains), -1), now
            with self.assistant.chain(*inputs) as (tokens, chances, hidden, after):
                found = tokens.tolist(), chances.tolist(), hidden.copy(), DRAW_RECORD.iter_unpack(after.data)
                for chain, own_tokens, own_chances, row, record in zip(chains, *found, strict=True):
                    drawn = record[DRAW_COUNT]
                    chain.extend(own_tokens[:drawn], own_chances[:drawn], row, record[DRAW_SURVIVAL])
            chains = [chain for chain in chains if not chain.is_over]
            count -= now

    def _extend(self, chains: Sequence[_Chain], count: int) -> None:
        """The same for chains whose sampler looks at the tokens before: it is asked token by token."""
        while chains and count:
            with self.assistant.stepped(*_inputs(chains)) as (found, hidden):
                for chain, candidates, row in zip(chains, found, hidden.copy(), strict=True):
                    token, chance = chain.choose(candidates)
                    chain.extend([token], [chance], row, chain.survival_with(chance))
            chains = [chain for chain in chains if not chain.is_over]
            count -= 1


class _Chain:
    """The draft of one sequence while it grows: its tokens, how sure each is, and the hidden row to go on from."""

    def __init__(self, state: Any) -> None:
        self.cache = state.cache
        self.newest: int = state.last
        self.hidden: np.ndarray = state.hidden
        self.tokens: list[int] = []
        self.confidence: list[float] = []
        self._stop: Stop = state.horizon.stop
        self._survival = 1.0
        self._history = state.tokens
        self._sampler = state.sampler
        self.is_plain: bool = state.sampler.sampling.is_plain

    @property
    def draws(self) -> tuple[Any, ...]:
        """How the next tokens are drawn, as `ops.DRAW`."""
        depth = len(self.tokens)
        return self._sampler.sampling.draws(len(self._history) + depth, depth, self._stop, self._survival)

    @property
    def is_over(self) -> bool:
        """Whether further tokens are too unlikely to be kept."""
        return self._survival < self._stop.least

    def extend(self, tokens: Sequence[int], confidence: Sequence[float], hidden: np.ndarray, survival: float) -> None:
        self.tokens.extend(tokens)
        self.confidence.extend(confidence)
        self.newest, self.hidden, self._survival = tokens[-1], hidden, survival

    def choose(self, candidates: Candidates) -> tuple[int, float]:
        """The next token and its confidence, by the sequence's own sampler."""
        raw = candidates.logits.copy()
        token = self._sampler.token(candidates.logits, self._history, self.tokens, candidates.ids)
        return token, chance_of(token, raw, candidates.ids)

    def survival_with(self, chance: float) -> float:
        """The chance that all tokens are kept, with one more."""
        return self._stop.survival(self._survival, len(self.tokens), chance)


def _inputs(chains: Sequence[_Chain]) -> tuple[np.ndarray, np.ndarray, Segments]:
    """Tokens (G,), hidden rows (G, D) and segments of the chains' next step."""
    tokens = np.array([chain.newest for chain in chains], dtype=np.int32)
    hidden = chains[0].hidden[np.newaxis] if len(chains) == 1 else np.array([chain.hidden for chain in chains])
    return tokens, hidden, read_only_segments([chain.cache for chain in chains])


def _check(state: Any) -> None:
    if state.cache.length != len(state.tokens) - 1:
        raise DraftError(
            f"the cache holds {state.cache.length} positions, expected {len(state.tokens) - 1}: all but the newest."
        )
