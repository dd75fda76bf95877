"""NumPy twins: what each op means, as short as it can be said. Contracts in `foretoken.ops`.

Never a source of bits (NumPy's exp and sums differ between processors), never fast. `tests/kernels` compares the C++
kernels with these within a tolerance computed from epsilon, K and norms.
"""

import threading
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from foretoken.errors import InputError, ShapeError, WeightsError
from foretoken.ops import DRAW, PAGE, Packed, Stop
from foretoken.ops.blocks import pack_q8_0  # noqa: F401 - one of the ops

BLOCK, PANEL, CHUNK = 32, 16, 256
_threads = 1


def _check(is_ok: bool, message: str) -> None:
    if not is_ok:
        raise ShapeError(message)


def _same_shape(**arrays: np.ndarray) -> None:
    shapes = {name: a.shape for name, a in arrays.items()}
    _check(len(set(shapes.values())) == 1, f"shapes differ: {shapes}")


# Weights


FORMATS = ("f32", "bf16", "q8", "q4")


def _blocks(x: np.ndarray) -> np.ndarray:
    rows, k = x.shape
    return np.pad(x, ((0, 0), (0, -k % BLOCK))).reshape(rows, -1, BLOCK)  # (N, blocks, 32)


def _grid(w: np.ndarray, format: str) -> tuple[np.ndarray, np.ndarray]:
    """(N, K) -> whole numbers (N, blocks, 32) int8 and scales (N, blocks) float16."""
    blocks = _blocks(w)
    if not np.isfinite(blocks).all():
        raise WeightsError("a weight is NaN or infinite: the file is damaged")
    largest = np.abs(blocks).argmax(-1)[..., None]  # the first of equals
    top = np.take_along_axis(blocks, largest, -1)[..., 0]
    steps, low, high = (127, -127, 127) if format == "q8" else (8, -8, 7)
    with np.errstate(over="ignore"):
        scale = (np.abs(top) / np.float32(127) if format == "q8" else top / np.float32(-8)).astype(np.float16)
    if np.isinf(scale).any():
        raise WeightsError(f"a weight is too large for format {format}: |w| / {steps} must fit f16; use format f32")
    scale[scale == 0] = 0  # not -0
    grid = scale.astype(np.float32)[..., None]
    with np.errstate(over="ignore"):
        ratio = np.divide(blocks, grid, out=np.zeros_like(blocks), where=grid != 0)
    return np.rint(np.clip(ratio, low, high)).astype(np.int8), scale


def _scale_bytes(scale: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(scale).view(np.uint8)


def _in_panels(q: np.ndarray) -> np.ndarray:
    """(N, blocks, bytes) -> (panels, blocks, bytes · 16): 4 bytes of each of 16 outputs in turn."""
    n, blocks, count = q.shape
    return q.reshape(n // PANEL, PANEL, blocks, count // 4, 4).transpose(0, 2, 3, 1, 4).reshape(-1, blocks, count * 16)


def _from_panels(q: np.ndarray) -> np.ndarray:
    panels, blocks, count = q.shape
    return q.reshape(panels, blocks, -1, PANEL, 4).transpose(0, 3, 1, 2, 4).reshape(-1, blocks, count // 16)


def _layout(q: np.ndarray, scale: np.ndarray, layout: str) -> np.ndarray:
    """Bytes of every output's blocks (N, blocks, 32 or 16) and scales (N, blocks) -> packed bytes."""
    if layout == "rows":
        return np.concatenate([_scale_bytes(scale[..., None]), q], axis=-1).reshape(-1)
    scale = scale.reshape(-1, PANEL, scale.shape[1]).swapaxes(1, 2)  # (panels, blocks, 16)
    return np.concatenate([_in_panels(q), _scale_bytes(scale)], axis=-1).reshape(-1)


def _bf16(w: np.ndarray) -> np.ndarray:
    """float32 -> the bits of bfloat16 (uint16), to nearest even."""
    if not np.isfinite(w).all():
        raise WeightsError("a weight is NaN or infinite: the file is damaged")
    bits = np.ascontiguousarray(w).view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1) >> 16).astype(np.uint16)
    if ((rounded & 0x7FFF) == 0x7F80).any():
        raise WeightsError("a weight is too large for format bf16; use format f32")
    return rounded


def pack(w: np.ndarray, format: str, layout: str) -> Packed:
    _check(w.ndim == 2 and w.dtype == np.float32 and w.size > 0, f"w: expected float32 (N, K), got {w.dtype} {w.shape}")
    _check(format in FORMATS and layout in ("panels", "rows"), f"unknown format {format} or layout {layout}")
    n, k = w.shape
    if layout == "panels":
        w = np.pad(w, ((0, -n % PANEL), (0, 0)))
    if format in ("f32", "bf16"):
        w = w if format == "f32" else _bf16(w)
        data = w.reshape(-1, PANEL, k).swapaxes(1, 2) if layout == "panels" else w
        return Packed(format, layout, n, k, np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8))
    q, scale = _grid(w, format)
    if format == "q4":
        code = (q + 8).astype(np.uint8)
        data = code[..., :16] | code[..., 16:] << 4
    else:
        data = q.view(np.uint8) ^ np.uint8(0x80 if layout == "panels" else 0)
    return Packed(format, layout, n, k, _layout(data, scale, layout))


def pack_q4_0(blocks: np.ndarray, layout: str) -> Packed:
    _check(blocks.ndim == 3 and blocks.dtype == np.uint8 and blocks.size > 0 and blocks.shape[2] == 18, "blocks")
    n, count, _ = blocks.shape
    if layout == "panels":
        missing = np.array([0, 0] + [0x88] * 16, np.uint8)
        blocks = np.concatenate([blocks, np.broadcast_to(missing, (-n % PANEL, count, 18))])
    scale = np.ascontiguousarray(blocks[..., :2]).view(np.float16)[..., 0]
    if not np.isfinite(scale).all():
        raise WeightsError("a scale of a Q4_0 block is NaN or infinite: the file is damaged")
    return Packed("q4", layout, n, count * BLOCK, _layout(blocks[..., 2:], scale, layout))


def unpack(weight: Packed) -> np.ndarray:
    n, k, data = weight.n, weight.k, np.ascontiguousarray(weight.data)
    is_panels = weight.layout == "panels"
    if weight.format in ("f32", "bf16"):
        is_f32 = weight.format == "f32"
        w = data.view(np.float32) if is_f32 else (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        return w.reshape(-1, k, PANEL).swapaxes(1, 2).reshape(-1, k)[:n] if is_panels else w.reshape(n, k)
    size, blocks = (16 if weight.format == "q4" else 32), -(-k // BLOCK)  # bytes of one output's block
    if is_panels:
        data = data.reshape(-1, blocks, (size + 2) * PANEL)
        q = _from_panels(data[..., : size * PANEL])
        scale = np.ascontiguousarray(data[..., size * PANEL :]).view(np.float16).swapaxes(1, 2).reshape(-1, blocks, 1)
    else:
        data = data.reshape(n, blocks, size + 2)
        q, scale = data[..., 2:], np.ascontiguousarray(data[..., :2]).view(np.float16)
    if weight.format == "q4":
        q = np.concatenate([q & 15, q >> 4], axis=-1).astype(np.int8) - np.int8(8)
    else:
        q = (q ^ np.uint8(0x80 if is_panels else 0)).view(np.int8)
    return (q * scale.astype(np.float32)).reshape(len(q), -1)[:n, :k]


def quantized(x: np.ndarray) -> np.ndarray:
    """(T, K) as a q8 or q4 linear sees it: per row and block of 32, q · d."""
    blocks = _blocks(x)
    amax = np.abs(blocks).max(-1, keepdims=True)
    amax = np.where(amax < np.float32(2.0**-120), np.float32(0), amax)
    inverse = np.divide(np.float32(127), amax, out=np.zeros_like(amax), where=amax > 0)
    q = np.clip(np.rint(blocks * inverse), -127, 127)
    return (q * (amax / np.float32(127))).reshape(len(x), -1)[:, : x.shape[1]]


# Rows


def linear(x: np.ndarray, weight: Packed, out: np.ndarray, cap: float | None = None) -> None:
    _check(x.shape[1:] == (weight.k,), f"x: shape {x.shape}, expected (T, {weight.k})")
    _check(out.shape == (len(x), weight.n), f"out: shape {out.shape}, expected ({len(x)}, {weight.n})")
    x, w = quantized(x) if weight.format in ("q8", "q4") else x, unpack(weight)
    for row, result in zip(x, out, strict=True):  # row by row: NumPy's @ gives other bits for other row counts
        result[:] = w.astype(np.float64) @ row.astype(np.float64)
    if cap is not None:
        out[:] = cap * np.tanh(out / np.float32(cap))


def cluster_logits(z: np.ndarray, weight: Packed, clusters: np.ndarray, cluster_len: int, out: np.ndarray) -> None:
    last = weight.n // cluster_len
    _check(bool(((clusters >= 0) & (clusters < last)).all()), f"clusters: expected ids from 0 to {last - 1}")
    _check(out.shape == (len(clusters) * cluster_len,), f"out: shape {out.shape}")
    logits = np.empty((1, weight.n), np.float32)
    linear(z[None], weight, logits)
    out[:] = logits[0, : last * cluster_len].reshape(last, cluster_len)[clusters].reshape(-1)


def embed(ids: np.ndarray, weight: Packed, scale: float, out: np.ndarray) -> None:
    _check(bool(((ids >= 0) & (ids < weight.n)).all()), f"ids: expected 0 to {weight.n - 1}")
    out[:] = unpack(weight)[ids] * np.float32(scale)


def _normed(x: np.ndarray, weight: np.ndarray | None, eps: float) -> np.ndarray:
    inverse = 1 / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + eps)
    return (x * inverse).astype(np.float32) * (np.float32(1) if weight is None else weight)


def copy(x: np.ndarray, out: np.ndarray) -> None:
    _same_shape(x=x, out=out)
    out[:] = x


def take_rows(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    _check(bool(((rows >= 0) & (rows < len(x))).all()), f"rows: expected 0 to {len(x) - 1}")
    return x[rows]


def rms_norm(x: np.ndarray, weight: np.ndarray | None, eps: float, out: np.ndarray) -> None:
    _same_shape(x=x, out=out)
    out[:] = _normed(x, weight, eps)


def norm_add(x: np.ndarray, weight: np.ndarray | None, eps: float, scale: float, residual: np.ndarray) -> None:
    _same_shape(x=x, residual=residual)
    residual[:] = (residual + _normed(x, weight, eps)) * np.float32(scale)


def gelu_mul(gate: np.ndarray, up: np.ndarray, out: np.ndarray) -> None:
    _same_shape(gate=gate, up=up, out=out)
    x = gate.astype(np.float64)
    out[:] = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) * up


def mlp(x: np.ndarray, gate_up: Packed, down: Packed, out: np.ndarray) -> None:
    _check((gate_up.n, gate_up.k) == (2 * down.k, x.shape[1]), f"gate_up: {gate_up.n} x {gate_up.k} for x and down")
    both, gated = np.empty((len(x), 2 * down.k), np.float32), np.empty((len(x), down.k), np.float32)
    linear(x, gate_up, both)
    gate, up = np.split(both, 2, axis=1)
    gelu_mul(gate, up, gated)
    linear(gated, down, out)


def per_layer(
    context: np.ndarray,
    ids: np.ndarray,
    table: Packed,
    weight: np.ndarray,
    eps: float,
    context_scale: float,
    token_scale: float,
    out: np.ndarray,
) -> None:
    _same_shape(context=context, out=out)
    tokens = np.empty_like(context)
    embed(ids, table, token_scale, tokens)
    parts = context.reshape(len(context), -1, len(weight)) * np.float32(context_scale)  # (T, L, P)
    out[:] = (_normed(parts, weight, eps).reshape(context.shape) + tokens) * np.float32(0.5**0.5)


def route(scores: np.ndarray, scale: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    _check(0 <= count <= scores.shape[1] and scale.shape == scores.shape[1:], f"count {count} of {scores.shape[1]}")
    _check(bool(np.isfinite(scores.max(-1)).all()), "scores: a NaN, or a row's largest is infinite")
    share = np.exp(scores.astype(np.float64) - scores.max(-1, keepdims=True))
    share /= share.sum(-1, keepdims=True)
    ids = np.sort(np.argsort(-scores, axis=-1, kind="stable")[:, :count], axis=-1)  # (T, count)
    chosen = np.take_along_axis(share, ids, -1)
    return ids.astype(np.int32), (chosen / chosen.sum(-1, keepdims=True) * scale[ids]).astype(np.float32)


def experts(
    x: np.ndarray,
    ids: np.ndarray,
    weights: np.ndarray,
    gate_up: Packed,
    down: Packed,
    num_experts: int,
    out: np.ndarray,
) -> None:
    f, d = down.k, x.shape[1]
    _same_shape(x=x, out=out)
    _same_shape(ids=ids, weights=weights)
    _check((gate_up.n, gate_up.k, down.n) == (num_experts * 2 * f, d, num_experts * d), "gate_up or down: wrong shape")
    _check(d % PANEL == 0 and 2 * f % PANEL == 0, f"D {d} and 2F {2 * f}: expected multiples of 16")
    _check(bool(((ids >= 0) & (ids < num_experts)).all() and (np.diff(ids) > 0).all()), "ids: expected ascending ids")
    hidden, y = np.empty((1, gate_up.n), np.float32), np.empty((1, down.n), np.float32)
    for t, row in enumerate(x):
        total = np.zeros(d)
        for e, weight in zip(ids[t], weights[t], strict=True):
            linear(row[None], gate_up, hidden)
            gated = np.empty((1, f), np.float32)
            own = hidden[:, e * 2 * f :]
            gelu_mul(own[:, :f], own[:, f : 2 * f], gated)
            linear(gated, down, y)
            total += np.float64(weight) * y[0, e * d : (e + 1) * d]
        out[t] = total


def rope_rows(positions: np.ndarray, inv_freq: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    angles = (positions.astype(np.float32)[:, None] * inv_freq).astype(np.float64)  # the product is float32
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def head_norm_rope(
    x: np.ndarray,
    head_len: int,
    weight: np.ndarray | None,
    eps: float,
    cos: np.ndarray | None,
    sin: np.ndarray | None,
) -> None:
    _check(x.shape[1] % head_len == 0, f"head_len: {head_len} does not divide {x.shape[1]}")
    heads = _normed(x.reshape(len(x), -1, head_len), weight, eps)  # (T, H, Dh)
    if cos is not None and sin is not None:
        half, pairs = head_len // 2, cos.shape[1]
        a, b = heads[..., :pairs].copy(), heads[..., half : half + pairs].copy()
        c, s = cos[:, None], sin[:, None]
        heads[..., :pairs], heads[..., half : half + pairs] = a * c - b * s, b * c + a * s
    x[:] = heads.reshape(x.shape)


# Attention


def append_kv(
    k: np.ndarray,
    v: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    tables: np.ndarray,
    row_segment: np.ndarray,
    positions: np.ndarray,
) -> None:
    heads, head_len = keys.shape[1], keys.shape[3]
    for t, position in enumerate(positions):
        page, slot = _page(tables, len(keys), row_segment[t], position), position % PAGE
        keys[page, :, slot // 16, :, slot % 16] = k[t].reshape(heads, head_len)
        values[page, :, slot] = v[t].reshape(heads, head_len)


def _page(tables: np.ndarray, num_pages: int, segment: int, position: int) -> int:
    _check(0 <= segment < len(tables) and 0 <= position < tables.shape[1] * PAGE, f"position {position} has no page")
    page = int(tables[segment, position // PAGE])
    _check(0 <= page < num_pages, f"tables[{segment}, {position // PAGE}] is {page}")
    return page


def attention(
    q: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    tables: np.ndarray,
    row_segment: np.ndarray,
    begin: np.ndarray,
    end: np.ndarray,
    out: np.ndarray,
) -> None:
    _same_shape(q=q, out=out)
    heads, head_len = keys.shape[1], keys.shape[3]
    for t in range(len(q)):
        out[t] = 0
        seen = range(begin[t], end[t])
        if not seen:
            continue
        pages = [_page(tables, len(keys), row_segment[t], p) for p in seen]
        slots = np.array(seen) % PAGE
        k = keys[pages, :, slots // 16, :, slots % 16].astype(np.float64)  # (S, Hkv, Dh)
        v = values[pages, :, slots].astype(np.float64)
        query = q[t].reshape(heads, -1, head_len).astype(np.float64)  # (Hkv, Hq / Hkv, Dh)
        scores = np.einsum("hgd,shd->hgs", query, k)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        out[t] = np.einsum("hgs,shd->hgd", weights, v).reshape(-1)


# Sampling


def top_clusters(scores: np.ndarray, count: int) -> np.ndarray:
    _check(0 <= count <= len(scores) and not np.isnan(scores).any(), f"count {count} of {len(scores)} scores")
    return np.sort(np.argsort(-scores, kind="stable")[:count]).astype(np.int32)


def _philox(counter: np.ndarray, seed: int) -> np.ndarray:
    """Philox4x32-10 for counters (n, 4) uint64-valued; key = the two halves of `seed`."""
    mask, c, key = np.uint64(0xFFFFFFFF), counter.astype(np.uint64).T.copy(), [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        high_a, high_b = a >> np.uint64(32), b >> np.uint64(32)
        c = np.stack([high_b ^ c[1] ^ np.uint64(key[0]), b & mask, high_a ^ c[3] ^ np.uint64(key[1]), a & mask])
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c.T


def noise(ids: np.ndarray, seed: int, position: int) -> np.ndarray:
    """The Gumbel noise (float64) of each token id at a position."""
    counter = np.stack(np.broadcast_arrays(position & 0xFFFFFFFF, position >> 32, ids // 4, 0), axis=-1)
    words = _philox(counter.reshape(-1, 4), seed)[np.arange(len(ids)), ids % 4]
    u = np.minimum((words.astype(np.float64) + 0.5) * 2.0**-32, 1 - 2.0**-24)
    return -np.log(-np.log1p(-u))


def sample_row(
    logits: np.ndarray,
    ids: np.ndarray | None,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    seed: int,
    position: int,
) -> int:
    ids = np.arange(len(logits)) if ids is None else ids.astype(np.int64)
    largest = logits.max()
    _check(bool(np.isfinite(largest)), "logits: a NaN, or the largest is infinite")
    if temperature < 1e-5:
        return int(ids[logits == largest].min())
    score = (logits - largest) / np.float32(temperature)
    order = np.lexsort((ids, -score))
    if top_k:
        order = order[:top_k]
    if top_p < 1:
        mass = np.floor(np.exp(score[order].astype(np.float64)) * 2.0**44)  # whole numbers: sums have no order
        order = order[: np.searchsorted(np.cumsum(mass), top_p * mass.sum()) + 1]
    if min_p > 0:
        order = order[score[order] >= np.log(np.float32(min_p))]
    value = score[order] + noise(ids[order], seed, position)
    return int(ids[order][value == value.max()].min())


def draw(
    logits: np.ndarray,
    ids: np.ndarray | None,
    how: np.ndarray,
    token: np.ndarray,
    drawn: np.ndarray,
    chances: np.ndarray,
) -> None:
    s = how.view(DRAW)[0]
    _check(0 <= s["count"] < len(drawn), f"drawn: room for {len(drawn)} tokens, all taken")
    choice = (s["temperature"], int(s["top_k"]), s["top_p"], s["min_p"], int(s["seed"]), int(s["position"]))
    found = sample_row(logits, ids, *choice)
    at = found if ids is None else int(np.flatnonzero(ids == found)[0])
    token[0] = drawn[s["count"]] = found
    chance = chances[s["count"]] = 1 / np.exp(logits.astype(np.float64) - logits[at]).sum()
    if s["least"] > 0:
        stop = Stop(*(float(s[name]) for name in Stop._fields))
        s["survival"] = stop.survival(s["survival"], int(s["depth"]), chance)
    for name in ("position", "count", "depth"):
        s[name] += 1
    if _runs.draws is not None:
        _runs.draws.append(s)


class _Runs(threading.local):
    """The records of the draws that this thread's wiring has made; None where none runs."""

    draws: list[Any] | None = None


_runs = _Runs()


# Process


def empty(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    return np.empty(shape, dtype)


class Programs:
    def run(
        self,
        key: Hashable,
        wiring: Callable[..., tuple[np.ndarray, ...]],
        inputs: Sequence[np.ndarray],
        tables: Sequence[np.ndarray],
        pages: Any,
        times: int = 1,
    ) -> AbstractContextManager[tuple[np.ndarray, ...]]:
        own = [value.copy() for value in inputs]
        found: tuple[np.ndarray, ...] = ()
        try:
            for _ in range(times):
                _runs.draws = []
                found = wiring(*own)
                if _runs.draws and all(draw["survival"] < draw["least"] for draw in _runs.draws):
                    break
        finally:
            _runs.draws = None
        return nullcontext(found)


def finite(x: np.ndarray) -> bool:
    return bool(np.isfinite(x).all())


def set_threads(n: int) -> None:
    global _threads
    _check(1 <= n <= 256, f"threads: {n}, expected 1 to 256")
    _threads = n


def threads() -> int:
    return _threads


def isas() -> tuple[str, ...]:
    return ("numpy",)


def isa() -> str:
    return "numpy"


def set_isa(name: str) -> None:
    if name != "numpy":
        raise InputError(f"instruction set {name!r} is not available here; the NumPy twins are: numpy")
