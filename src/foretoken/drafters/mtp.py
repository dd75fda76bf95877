"""The MTP drafter: a chain of steps of the assistant model, each fed with the last one's token and hidden row.

The position is held constant while drafting (the index of the newest token), for the keys do not grow during a
round. Source: specification 3.1, 3.2; transformers 5.24, SinglePositionMultiTokenCandidateGenerator.get_candidates.
"""

from __future__ import annotations

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

    def propose(self, state: Any, limit: int) -> Draft:
        """Guess `limit` tokens after `state.last`.

        state.hidden    (D,) float32, the target's row that chose `last`, after its final norm
        state.cache     read only; ends just before `last`
        state.sampler   the guess uses the target's own noise, so that it agrees as often as it can
        returns         tokens (limit,), confidence (limit,): softmax over the candidates, without noise
        raises          DraftError if the cache does not end just before `last`
        """
        if state.cache.length != len(state.tokens) - 1:
            raise DraftError(
                f"the cache holds {state.cache.length} positions, expected {len(state.tokens) - 1}: all but the newest."
            )
        segments = read_only_segments([state.cache])
        rotations = self.assistant.rotations(segments)
        token, hidden = state.last, state.hidden[None]  # (1, D)
        tokens: list[int] = []
        confidence = np.empty(limit, dtype=np.float32)
        for i in range(limit):
            ids = np.array([token], dtype=np.int32)
            (candidates,), hidden = self.assistant.step(ids, hidden, segments, rotations)
            position = len(state.tokens) + i  # of the token being guessed
            token = state.sampler.token(candidates.logits, position, candidates.ids)
            confidence[i] = _chance(candidates, token)
            tokens.append(token)
        return Draft(tokens, confidence)


def _chance(candidates: Candidates, token: int) -> float:
    """Softmax of one candidate among all of them; a figure for planning, it decides no token."""
    logits = candidates.logits
    index = token if candidates.ids is None else int(np.flatnonzero(candidates.ids == token)[0])
    return float(1.0 / np.exp(logits - logits[index]).sum())
