"""The ops in C++: thin calls into `_core`, which this module alone imports. Contracts in `foretoken.ops`.

Must not know models, caches or files. What it adds to `_core`: outputs that an op returns, and the choice of
instruction set and thread count at import.
"""

import os
from pathlib import Path

import numpy as np

import foretoken._core as _core
from foretoken.errors import InputError
from foretoken.ops import Packed

linear = _core.linear
embed = _core.embed
rms_norm = _core.rms_norm
norm_add = _core.norm_add
gelu_mul = _core.gelu_mul
head_norm_rope = _core.head_norm_rope
append_kv = _core.append_kv
attention = _core.attention
per_layer = _core.per_layer
experts = _core.experts
softcap = _core.softcap
cluster_logits = _core.cluster_logits
sample_row = _core.sample_row
finite = _core.finite
set_threads = _core.set_threads
threads = _core.threads
isa = _core.isa


def rope_rows(positions: np.ndarray, inv_freq: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    shape = (len(positions), len(inv_freq))  # (T, R)
    cos, sin = np.empty(shape, np.float32), np.empty(shape, np.float32)
    _core.rope_rows(positions, inv_freq, cos, sin)
    return cos, sin


def route(scores: np.ndarray, scale: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    shape = (len(scores), max(count, 0))  # (T, count)
    ids, weights = np.empty(shape, np.int32), np.empty(shape, np.float32)
    _core.route(scores, scale, ids, weights)
    return ids, weights


def top_clusters(scores: np.ndarray, count: int) -> np.ndarray:
    chosen = np.empty(max(count, 0), np.int32)
    _core.top_clusters(scores, chosen)
    return chosen


def pack(w: np.ndarray, format: str, layout: str) -> Packed:
    n, k = w.shape if w.ndim == 2 else (0, 0)
    data = _aligned_bytes(_core.packed_bytes(format, layout, n, k))
    _core.pack(w, format, layout, data)
    return Packed(format, layout, n, k, data)


def pack_q4_0(blocks: np.ndarray, layout: str) -> Packed:
    n, count, _ = blocks.shape if blocks.ndim == 3 else (0, 0, 0)
    data = _aligned_bytes(_core.packed_bytes("q4", layout, n, count * 32))
    _core.pack_q4_0(blocks, layout, data)
    return Packed("q4", layout, n, count * 32, data)


def unpack(weight: Packed) -> np.ndarray:
    out = np.empty((weight.n, weight.k), np.float32)
    _core.unpack(weight, out)
    return out


def isas() -> tuple[str, ...]:
    return tuple(_core.isas())


def set_isa(name: str) -> None:
    if not _core.set_isa(name):
        choices = ", ".join(isas())
        raise InputError(f"instruction set {name!r} is not available here; this processor can run: {choices}")


def _aligned_bytes(count: int, alignment: int = 64) -> np.ndarray:
    raw = np.empty(count + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + count]


def _default_threads() -> int:
    """Physical cores that this process may use: SMT siblings count once, and a container's quota is respected."""
    if not hasattr(os, "sched_getaffinity"):
        return max(1, min(256, os.cpu_count() or 1))
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings.read_text() if siblings.exists() else str(cpu))
    count = len(cores)
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.exists():
        limit, period = quota.read_text().split()
        if limit != "max":
            count = min(count, -(-int(limit) // int(period)))
    return max(1, min(256, count))


if _choice := os.environ.get("FORETOKEN_ISA"):
    set_isa(_choice)
set_threads(_default_threads())
