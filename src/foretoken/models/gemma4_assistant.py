"""Gemma 4's MTP drafter: one step from (newest token, hidden row) to candidate logits and the next hidden row.

It has queries only: its layers read the keys and values of the target's last unshared layer of their kind, at a
position that stays constant during a round. It keeps no cache; its whole state is (token, hidden).
Source: specification section 3 (transformers 5.24, Gemma4AssistantForCausalLM).
Shape letters: G sequences (one row each), D the target's hidden width, C clusters, V ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from foretoken.cache import Segments
from foretoken.models.gemma4 import Gemma4
from foretoken.models.layers import Ops, attention_block, feed_forward_block, freeze, linear, normed, rotations

MAX_CHAIN = 16  # steps of one `chain`


@dataclass(frozen=True)
class Candidates:
    """What one row may become: logits (n,) float32 and token ids (n,) int32, or None where each is its own index."""

    logits: np.ndarray
    ids: np.ndarray | None


class Assistant:
    """The drafter model, tied to the target whose embeddings and cache it reads."""

    def __init__(self, config: Any, weights: Any, target: Gemma4, ops: Ops) -> None:
        self.config = config
        self.weights = weights
        self.target = target
        self.ops = ops
        freeze((weights, config.rope))
        self._programs = ops.Programs()
        self._donor = target.config.donor
        if config.num_clusters:
            cluster_len = config.head_vocab_len // config.num_clusters
            ids = weights.token_ids if weights.head_ids is None else weights.head_ids[weights.token_ids]
            ids.flags.writeable = False  # a program refers to it
            self._cluster_ids = ids.reshape(config.num_clusters, cluster_len)

    def chain(
        self, tokens: np.ndarray, hidden: np.ndarray, segments: Segments, how: np.ndarray, count: int
    ) -> AbstractContextManager[tuple[np.ndarray, ...]]:
        """Up to `count` steps for G sequences, each fed with the token that the last one drew, and its hidden row.

        tokens, hidden, segments  as for `step`
        how                       (G,) `ops.DRAW`, or its bytes: the tokens are drawn like the target's own, noise
                                  included; once all of them are over, no step follows
        gives   tokens (G, MAX_CHAIN) int32 and their softmax among the candidates (G, MAX_CHAIN), the next hidden rows
                (G, D), and `how` as it is then, which says how many tokens were drawn, as bytes (G, bytes); they
                stand as long as the context is open
        """

        def wiring(
            tokens: np.ndarray,
            hidden: np.ndarray,
            how: np.ndarray,
            drawn: np.ndarray,
            chances: np.ndarray,
            rows: np.ndarray,
        ) -> tuple[np.ndarray, ...]:
            found, following = self.step(tokens, hidden, segments.over(rows))
            for g, row in enumerate(found):
                self.ops.draw(row.logits, row.ids, how[g], tokens[g : g + 1], drawn[g], chances[g])
            self.ops.copy(following, hidden)
            return drawn, chances, hidden, how

        room = (len(tokens), MAX_CHAIN)
        drawn, chances = np.empty(room, np.int32), np.empty(room, np.float32)
        inputs = [tokens, hidden, how.view(np.uint8).reshape(len(how), -1), drawn, chances, segments.rows]
        key = "chain", len(tokens)
        return self._programs.run(key, wiring, inputs, segments.tables, segments.pool, count)

    @contextmanager
    def stepped(
        self, tokens: np.ndarray, hidden: np.ndarray, segments: Segments
    ) -> Iterator[tuple[list[Candidates], np.ndarray]]:
        """`step`, recorded and replayed: its results stand only as long as the context is open."""

        def wiring(tokens: np.ndarray, hidden: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, ...]:
            found, following = self.step(tokens, hidden, segments.over(rows))
            ids = [row.ids for row in found if row.ids is not None]
            return (following, *(row.logits for row in found), *ids)

        inputs = [tokens, hidden, segments.rows]
        programs = self._programs.run(("step", len(tokens)), wiring, inputs, segments.tables, segments.pool)
        with programs as (following, *arrays):
            logits, ids = arrays[: len(tokens)], arrays[len(tokens) :] or [None] * len(tokens)
            yield [Candidates(*pair) for pair in zip(logits, ids, strict=True)], following

    def step(self, tokens: np.ndarray, hidden: np.ndarray, segments: Segments) -> tuple[list[Candidates], np.ndarray]:
        """One draft step for G sequences. Only wiring.

        tokens    (G,) int32, the newest token of each
        hidden    (G, D), the target's row that chose it (after its final norm), or the last step's result
        segments  from `cache.read_only_segments`: one row per sequence, committed keys only
        returns   candidates per sequence, and the next hidden rows (G, D)
        """
        config, w, ops = self.config, self.weights, self.ops
        # Embedding first, hidden second; the embedding is the target's, already scaled. No norm, no further scale.
        width = hidden.shape[1]
        both = ops.empty((len(tokens), 2 * width))
        self.target.embed_into(tokens, both[:, :width])
        ops.copy(hidden, both[:, width:])
        x = linear(ops, both, w.pre_projection)
        rotated = rotations(ops, config.rope, segments)  # the position is held constant during a round
        for layer, layer_weights in zip(config.layers, w.layers, strict=True):
            view, rotation = segments.views[layer.kind], rotated[layer.kind]
            donor = self._donor[layer.kind]
            attention_block(ops, x, layer_weights, layer, donor, config.eps, rotation, segments.pool, view)
            feed_forward_block(ops, x, layer_weights, layer, config.eps, layer_weights.layer_scalar)
        z = normed(ops, x, w.norm, config.eps)
        return self._candidates(z), linear(ops, z, w.post_projection)

    def _candidates(self, z: np.ndarray) -> list[Candidates]:
        """Logits of the likeliest clusters only, or of every token where the head is dense. No softcap."""
        config, w, ops = self.config, self.weights, self.ops
        if not config.num_clusters:
            return [Candidates(row, w.head_ids) for row in linear(ops, z, w.head)]
        cluster_len = self._cluster_ids.shape[1]
        found = []
        for row, scores in zip(z, linear(ops, z, w.centroids), strict=True):
            clusters = ops.top_clusters(scores, config.top_clusters)
            logits = ops.empty((len(clusters) * cluster_len,))
            ops.cluster_logits(row, w.head, clusters, cluster_len, logits)
            found.append(Candidates(logits, ops.take_rows(self._cluster_ids, clusters).reshape(-1)))
        return found
