"""The MTP drafter: a chain of steps of the assistant model, each fed with the last one's token and hidden row.

The position is held constant while drafting (the index of the newest token), for the keys do not grow during a
round. Source: specification 3.1, 3.2; transformers 5.24, SinglePositionMultiTokenCandidateGenerator.get_candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from foretoken.cache import read_only_segments
from foretoken.drafters.protocol import Draft
from foretoken.errors import DraftError
from foretoken.models.gemma4_assistant import Assistant, Candidates


class MtpDrafter:
    """Guesses with Gemma 4's assistant. `name` is what figures call it."""

    name = "mtp"

    def __init__(self, assistant: Assistant) -> None:
        self.assistant = assistant

    def propose(self, states: Sequence[Any], limits: Sequence[int]) -> list[Draft]:
        """Guess `limits[g]` tokens after `states[g].last`, all sequences in one pass per step.

        state.hidden    (D,) float32, the target's row that chose `last`, after its final norm
        state.cache     read only; ends just before `last`
        state.sampler   the guess uses the target's own noise, so that it agrees as often as it can
        returns         per sequence tokens (limit,), confidence (limit,): softmax over the candidates, without noise
        raises          DraftError if a cache does not end just before `last`
        """
        for state in states:
            _check(state)
        drafts: list[_Chain] = [_Chain(state) for state in states]
        segments = read_only_segments([state.cache for state in states])
        rotations = self.assistant.rotations(segments)
        active = list(range(len(states)))
        hidden = np.stack([state.hidden for state in states])  # (G, D)
        for step in range(max(limits)):
            rows = np.array([row for row, g in enumerate(active) if limits[g] > step], dtype=np.int32)
            if len(rows) < len(active):  # shorter drafts are finished
                active, hidden, segments = [active[row] for row in rows], hidden[rows], segments.take(rows)
                rotations = {kind: (cos[rows], sin[rows]) for kind, (cos, sin) in rotations.items()}
            ids = np.array([drafts[g].newest for g in active], dtype=np.int32)
            found, hidden = self.assistant.step(ids, hidden, segments, rotations)
            for g, candidates in zip(active, found, strict=True):
                drafts[g].extend(candidates)
        return [Draft(chain.tokens, np.array(chain.confidence, dtype=np.float32)) for chain in drafts]


class _Chain:
    """The draft of one sequence while it grows."""

    def __init__(self, state: Any) -> None:
        self._state = state
        self.newest: int = state.last
        self.tokens: list[int] = []
        self.confidence: list[float] = []

    def extend(self, candidates: Candidates) -> None:
        raw = candidates.logits.copy()
        state = self._state
        self.newest = state.sampler.token(candidates.logits, state.tokens, self.tokens, candidates.ids)
        self.tokens.append(self.newest)
        self.confidence.append(_chance(raw, candidates.ids, self.newest))


def _check(state: Any) -> None:
    if state.cache.length != len(state.tokens) - 1:
        raise DraftError(
            f"the cache holds {state.cache.length} positions, expected {len(state.tokens) - 1}: all but the newest."
        )


def _chance(logits: np.ndarray, ids: np.ndarray | None, token: int) -> float:
    """Softmax of one candidate among all of them; a figure for planning, it decides no token."""
    index = token if ids is None else int(np.flatnonzero(ids == token)[0])
    return float(1.0 / np.exp(logits - logits[index]).sum())
