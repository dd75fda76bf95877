"""Wiring that target and drafter share: one attention block and one feed-forward block (specification 2.4 to 2.6).

Knows ops, a layer's weights and where keys and values lie; nothing of tokens, heads for logits, or rounds.
Shape letters: T rows, D hidden width, Hq and Hkv heads, Dh head width, F MLP width, E experts.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from foretoken.cache import PagePool, Segments, View

Ops = Any  # `foretoken.ops.native` or `foretoken.ops.reference`: the same functions, see `foretoken.ops`
Rotation = tuple[np.ndarray, np.ndarray]  # cos, sin (T, R) of each row's position


def freeze(part: Any) -> None:
    """Make every array of a model's weights or rotary tables read-only: a program may refer to what nobody writes."""
    if isinstance(part, np.ndarray):
        part.flags.writeable = False
    elif isinstance(part, (tuple, dict)):
        for one in part.values() if isinstance(part, dict) else part:
            freeze(one)
    elif is_dataclass(part):
        for field in fields(part):
            freeze(part.__dict__[field.name])


def linear(ops: Ops, x: np.ndarray, weight: Any, cap: float | None = None) -> np.ndarray:
    """x rows (T, K) times a packed weight (N, K): (T, N), softcapped where there is a cap."""
    out = ops.empty((len(x), weight.n))
    ops.linear(x, weight, out, cap)
    return out


def normed(ops: Ops, x: np.ndarray, weight: np.ndarray | None, eps: float) -> np.ndarray:
    """RMS norm of each row, as a new array."""
    out = ops.empty(x.shape)
    ops.rms_norm(x, weight, eps, out)
    return out


def rotations(ops: Ops, rope: dict[str, np.ndarray], segments: Segments) -> dict[str, Rotation]:
    """cos and sin of each row's position, per kind of layer; `rope` maps kind to inverse frequencies (R,)."""
    return {kind: ops.rope_rows(view.positions, rope[kind]) for kind, view in segments.views.items()}


def attention_block(
    ops: Ops,
    hidden: np.ndarray,
    w: Any,
    layer: Any,
    source: int,
    eps: float,
    rotation: Rotation,
    pool: PagePool,
    view: View,
) -> None:
    """hidden (T, D) += post_norm(attention(input_norm(hidden))); unshared layers first store their keys and values.

    source  index of the cache layer that is read (the layer itself, or its donor).
    """
    cos, sin = rotation
    q_len, kv_len = layer.num_heads * layer.head_len, layer.num_kv_heads * layer.head_len
    qkv = linear(ops, normed(ops, hidden, w.input_norm, eps), w.qkv)  # (T, Hq·Dh [+ Hkv·Dh, or 2·Hkv·Dh])
    q = qkv[:, :q_len]
    ops.head_norm_rope(q, layer.head_len, w.q_norm, eps, cos, sin)
    keys, values = pool.keys[source], pool.values[source]
    if not layer.is_shared:
        k = qkv[:, q_len : q_len + kv_len]
        if layer.k_eq_v:
            v = ops.empty(k.shape)
            ops.copy(k, v)  # the raw keys: before their norm and rotation
        else:
            v = qkv[:, q_len + kv_len :]
        ops.head_norm_rope(k, layer.head_len, w.k_norm, eps, cos, sin)
        if layer.has_value_norm:
            ops.head_norm_rope(v, layer.head_len, None, eps, None, None)
        ops.append_kv(k, v, keys, values, view.tables, view.row_segment, view.positions)
    mixed = ops.empty((len(hidden), q_len))
    ops.attention(q, keys, values, view.tables, view.row_segment, view.begin, view.end, mixed)
    ops.norm_add(linear(ops, mixed, w.o), w.post_attention_norm, eps, 1.0, hidden)


def feed_forward_block(ops: Ops, hidden: np.ndarray, w: Any, layer: Any, eps: float, scale: float) -> None:
    """hidden (T, D) = (hidden + post_norm(mlp(norm(hidden)) [and experts(hidden)])) · scale."""
    out = ops.empty(hidden.shape)
    ops.mlp(normed(ops, hidden, w.pre_feedforward_norm, eps), w.gate_up, w.down, out)
    if layer.num_experts:
        mixed = _expert_branch(ops, hidden, w.experts, layer, eps)
        ops.norm_add(out, w.experts.post_mlp_norm, eps, 1.0, mixed)  # both branches have a norm of their own
        out = mixed
    ops.norm_add(out, w.post_feedforward_norm, eps, scale, hidden)


def _expert_branch(ops: Ops, hidden: np.ndarray, w: Any, layer: Any, eps: float) -> np.ndarray:
    """post_norm(weighted sum of each row's experts) of the residual stream (T, D), which is not normed yet (2.6)."""
    scores = linear(ops, normed(ops, hidden, w.router_norm, eps), w.router)  # (T, E)
    ids, weights = ops.route(scores, w.scale, layer.top_experts)  # (T, top_experts), ascending ids
    out = ops.empty(hidden.shape)
    ops.experts(normed(ops, hidden, w.norm, eps), ids, weights, w.gate_up, w.down, layer.num_experts, out)
    return normed(ops, out, w.post_norm, eps)
