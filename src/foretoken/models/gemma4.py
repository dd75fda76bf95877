"""Gemma 4, the target: token ids and caches to hidden rows and logits. Wiring only.

Gemma 3 is the same wiring: what it lacks and its constants are in config and weights.
Source: specification sections 2.1 to 2.8 (transformers 5.24, Gemma4TextModel, Gemma4ForCausalLM, Gemma3ForCausalLM).
Shape letters: T rows of this pass, n rows whose result is wanted, D hidden width, L layers, P per-layer width, V ids.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from foretoken.cache import CacheLayer, Segments
from foretoken.models.layers import Ops, attention_block, feed_forward_block, freeze, linear, normed, rotations

MAX_RECORDED_ROWS = 64  # in larger passes (prompt chunks) the time of Python between ops does not count


class Gemma4:
    """The target model. Holds no state of any text: everything that changes is in the caches."""

    def __init__(self, config: Any, weights: Any, ops: Ops) -> None:
        self.config = config
        self.weights = weights
        self.ops = ops
        freeze((weights, config.rope))
        self._programs = ops.Programs()
        self.cache_layers = [
            CacheLayer(index, layer.kind, layer.num_kv_heads, layer.head_len, layer.window)
            for index, layer in enumerate(config.layers)
            if not layer.is_shared
        ]

    def embed(self, ids: np.ndarray) -> np.ndarray:
        """ids (T,) int32 to scaled embeddings (T, D)."""
        out = self.ops.empty((len(ids), self.config.hidden_len))
        self.embed_into(ids, out)
        return out

    def embed_into(self, ids: np.ndarray, out: np.ndarray) -> None:
        """The same, to rows (T, D) that are there; the drafter's token input too (already scaled)."""
        self.ops.embed(ids, self.weights.embed, self.weights.embed_scale, out)

    def scored(
        self, ids: np.ndarray, segments: Segments, keep: np.ndarray
    ) -> AbstractContextManager[tuple[np.ndarray, ...]]:
        """`forward`, then `logits` of its rows: (n, D) and (n, V), which stand only as long as the context is open.

        Small passes are recorded by their shape and replayed: nothing of the wiring runs in Python then.
        """
        if not len(keep) or len(ids) > MAX_RECORDED_ROWS:
            hidden = self.forward(ids, segments, keep)
            return nullcontext((hidden, self.logits(hidden)))

        def wiring(ids: np.ndarray, keep: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, ...]:
            hidden = self.forward(ids, segments.over(rows), keep)
            return hidden, self.logits(hidden)

        shape, inputs = (len(ids), len(keep)), [ids, keep, segments.rows]
        return self._programs.run(shape, wiring, inputs, segments.tables, segments.pool)

    def forward(self, ids: np.ndarray, segments: Segments, keep: np.ndarray) -> np.ndarray:
        """One pass: store keys and values of all T rows, give the hidden rows of some.

        ids       (T,) int32
        segments  whose rows they are; every cache has an open pass of its rows
        keep      (n,) int32, ascending: the rows whose result is wanted. Only they pass the shared layers,
                  which store nothing, so a prompt's earlier rows need not (specification 2.7). May be empty.
        returns   (n, D) float32, after the final norm: input of `logits` and what the drafter receives.
        """
        config, ops = self.config, self.ops
        hidden = self.embed(ids)  # (T, D)
        per_layer = self._per_layer_inputs(hidden, ids)  # (T, L·P)
        rotated = rotations(ops, config.rope, segments)
        for index, (layer, w) in enumerate(zip(config.layers, self.weights.layers, strict=True)):
            if index == config.first_shared and len(keep) < len(ids):
                if not len(keep):
                    return hidden[:0]
                hidden, per_layer = ops.take_rows(hidden, keep), ops.take_rows(per_layer, keep)
                segments = segments.over([ops.take_rows(part, keep) for part in segments.rows])
                rotated = rotations(ops, config.rope, segments)
            view = segments.views[layer.kind]
            attention_block(
                ops, hidden, w, layer, layer.kv_source, config.eps, rotated[layer.kind], segments.pool, view
            )
            has_per_layer = w.per_layer_gate is not None
            feed_forward_block(ops, hidden, w, layer, config.eps, 1.0 if has_per_layer else w.layer_scalar)
            if has_per_layer:
                width = config.per_layer_len
                self._per_layer_block(hidden, w, per_layer[:, index * width : (index + 1) * width])
        if len(hidden) != len(keep):
            hidden = ops.take_rows(hidden, keep)
        return normed(ops, hidden, self.weights.norm, config.eps)

    def logits(self, hidden: np.ndarray) -> np.ndarray:
        """hidden (n, D) after the final norm to logits (n, V); the softcap is always applied, it decides ties."""
        return linear(self.ops, hidden, self.weights.embed, self.config.softcap)

    def _per_layer_inputs(self, embedded: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Per-layer embeddings of all layers (T, L·P), from the scaled embedding and the ids (specification 2.3)."""
        w, config = self.weights, self.config
        if not config.per_layer_len:
            return self.ops.empty((len(ids), 0))
        context = linear(self.ops, embedded, w.per_layer_model_projection)  # (T, L·P)
        out = self.ops.empty(context.shape)
        context_scale, token_scale = config.hidden_len**-0.5, config.per_layer_len**0.5
        self.ops.per_layer(
            context, ids, w.per_layer_table, w.per_layer_norm, config.eps, context_scale, token_scale, out
        )
        return out

    def _per_layer_block(self, hidden: np.ndarray, w: Any, own: np.ndarray) -> None:
        """hidden = (hidden + post_norm(projection(gelu(gate(hidden)) · own))) · layer_scalar; own rows (T, P)."""
        gate = linear(self.ops, hidden, w.per_layer_gate)
        inner = self.ops.empty(gate.shape)
        self.ops.gelu_mul(gate, own, inner)
        projected = linear(self.ops, inner, w.per_layer_projection)
        self.ops.norm_add(projected, w.post_per_layer_norm, self.config.eps, w.layer_scalar, hidden)
