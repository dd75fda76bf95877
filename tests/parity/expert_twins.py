"""Twins of the expert ops (`route`, `experts` of `foretoken.ops`) for ops that do not have them yet."""

import numpy as np

from foretoken.ops import reference


def route(scores, scale, count):
    """scores (T, E), scale (E,) -> ids (T, count) int32 ascending, weights (T, count) that sum to 1 before `scale`."""
    exps = np.exp(scores - scores.max(1, keepdims=True))
    shares = exps / exps.sum(1, keepdims=True)
    ids = np.sort(np.argsort(-shares, axis=1, kind="stable")[:, :count], axis=1)
    chosen = np.take_along_axis(shares, ids, 1)
    return ids.astype(np.int32), (chosen / chosen.sum(1, keepdims=True) * scale[ids]).astype(np.float32)


def experts(x, ids, weights, gate_up, down, num_experts, out):
    """out (T, D) = sum over a row's experts, ascending, of weight · down(gelu(gate(x)) · up(x))."""
    gate_up, down = (reference.unpack(w).reshape(num_experts, w.n // num_experts, w.k) for w in (gate_up, down))
    out[:] = 0
    for row, (own, shares) in enumerate(zip(ids, weights, strict=True)):
        for expert, share in zip(own, shares, strict=True):
            gate, up = np.split(gate_up[expert] @ x[row], 2)
            inner = np.empty((1, len(gate)), np.float32)
            reference.gelu_mul(gate[None], up[None], inner)
            out[row] += share * (down[expert] @ inner[0])
