"""Gemma 4's MTP drafter: one step from (newest token, hidden row) to candidate logits and the next hidden row.

It has queries only: its layers read the keys and values of the target's last unshared layer of their kind, at a
position that stays constant during a round. It keeps no cache; its whole state is (token, hidden).
Source: specification section 3 (transformers 5.24, Gemma4AssistantForCausalLM).
Shape letters: G sequences (one row each), D the target's hidden width, C clusters, V ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from foretoken.cache import Segments
from foretoken.models.gemma4 import Gemma4
from foretoken.models.layers import Ops, attention_block, feed_forward_block, linear, normed, rotations


@dataclass(frozen=True)
class Candidates:
    """What one row may become: logits (n,) float32 and token ids (n,) int32, or None when n is the vocabulary."""

    logits: np.ndarray
    ids: np.ndarray | None


class Assistant:
    """The drafter model, tied to the target whose embeddings and cache it reads."""

    def __init__(self, config: Any, weights: Any, target: Gemma4, ops: Ops) -> None:
        self.config = config
        self.weights = weights
        self.target = target
        self.ops = ops
        self._donor = target.config.donor
        if config.num_clusters:
            cluster_len = config.vocab_len // config.num_clusters
            self._cluster_ids = weights.token_ids.reshape(config.num_clusters, cluster_len)

    def rotations(self, segments: Segments) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """cos and sin of each row's position, per kind: constant during a round, so made once per draft."""
        return rotations(self.ops, self.config.rope, segments)

    def step(
        self, tokens: np.ndarray, hidden: np.ndarray, segments: Segments, rotations: dict[str, Any]
    ) -> tuple[list[Candidates], np.ndarray]:
        """One draft step for G sequences.

        tokens    (G,) int32, the newest token of each
        hidden    (G, D), the target's row that chose it (after its final norm), or the last step's result
        segments  from `cache.read_only_segments`: one row per sequence, committed keys only
        returns   candidates per sequence, and the next hidden rows (G, D)
        """
        config, w, ops = self.config, self.weights, self.ops
        # Embedding first, hidden second; the embedding is the target's, already scaled. No norm, no further scale.
        x = linear(ops, np.concatenate([self.target.embed(tokens), hidden], axis=1), w.pre_projection)
        for layer, layer_weights in zip(config.layers, w.layers, strict=True):
            view, rotation = segments.views[layer.kind], rotations[layer.kind]
            donor = self._donor[layer.kind]
            attention_block(ops, x, layer_weights, layer, donor, config.eps, rotation, segments.pool, view)
            feed_forward_block(ops, x, layer_weights, layer, config.eps, layer_weights.layer_scalar)
        z = normed(ops, x, w.norm, config.eps)
        return self._candidates(z), linear(ops, z, w.post_projection)

    def _candidates(self, z: np.ndarray) -> list[Candidates]:
        """Logits of the likeliest clusters only, or of every token where the head is dense. No softcap."""
        config, w, ops = self.config, self.weights, self.ops
        if not config.num_clusters:
            return [Candidates(row, None) for row in linear(ops, z, w.head)]
        cluster_len = self._cluster_ids.shape[1]
        found = []
        for row, scores in zip(z, linear(ops, z, w.centroids), strict=True):
            clusters = ops.top_clusters(scores, config.top_clusters)
            logits = np.empty(len(clusters) * cluster_len, dtype=np.float32)
            ops.cluster_logits(row, w.head, clusters, cluster_len, logits)
            found.append(Candidates(logits, self._cluster_ids[clusters].reshape(-1)))
        return found
