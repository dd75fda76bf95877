"""The ops in C++: thin calls into `_core`, which this module alone imports. Contracts in `foretoken.ops`.

Must not know models, caches or files. What it adds to `_core`: outputs that an op returns, programs with the memory
that their ops refer to, and the choice of instruction set and thread count at import.
"""

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

import foretoken._core as _core
from foretoken.errors import InputError
from foretoken.ops import Packed
from foretoken.ops.arena import Arena, aligned
from foretoken.ops.blocks import pack_q8_0  # noqa: F401 - one of the ops

MAX_PROGRAMS = 64  # of one wiring, per thread that runs it at the same time
MAX_IDLE = 4  # threads' sets of programs that are kept while they do not run

linear = _core.linear
embed = _core.embed
rms_norm = _core.rms_norm
norm_add = _core.norm_add
gelu_mul = _core.gelu_mul
mlp = _core.mlp
head_norm_rope = _core.head_norm_rope
append_kv = _core.append_kv
attention = _core.attention
per_layer = _core.per_layer
experts = _core.experts
cluster_logits = _core.cluster_logits
copy = _core.copy
draw = _core.draw
sample_row = _core.sample_row
finite = _core.finite
set_threads = _core.set_threads
threads = _core.threads
multiply_peak = _core.multiply_peak
isa = _core.isa
is_intel = _core.is_intel  # some ways to the same bits are chosen by the maker of the processor
take_for_intel = _core.take_for_intel  # tests take both
SuffixAutomaton = _core.SuffixAutomaton
TextChances = _core.TextChances


def rope_rows(positions: np.ndarray, inv_freq: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    shape = (len(positions), len(inv_freq))  # (T, R)
    cos, sin = empty(shape), empty(shape)
    _core.rope_rows(positions, inv_freq, cos, sin)
    return cos, sin


def route(scores: np.ndarray, scale: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    shape = (len(scores), max(count, 0))  # (T, count)
    ids, weights = empty(shape, np.int32), empty(shape)
    _core.route(scores, scale, ids, weights)
    return ids, weights


def top_clusters(scores: np.ndarray, count: int) -> np.ndarray:
    chosen = empty((max(count, 0),), np.int32)
    _core.top_clusters(scores, chosen)
    return chosen


def take_rows(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    out = empty((len(rows), *x.shape[1:]), x.dtype)
    flat, width = (len(x), -1) if x.size else (len(x), 0), int(np.prod(x.shape[1:]))
    op = _core.take_ids if x.dtype == np.int32 else _core.take_rows
    op(x.reshape(flat), rows, out.reshape(len(rows), width))
    return out


class _Recording(threading.local):
    """What this thread records, if it does."""

    arena: Arena | None = None
    program: Any = None


_recording = _Recording()


def empty(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    if _recording.arena is None:
        return np.empty(shape, dtype)
    array = _recording.arena.empty(shape, dtype)
    _recording.program.allow(array)
    return array


class _Recorded:
    """One program: what the core runs, the results as views that hold no block, and whose pages stand in its slots."""

    def __init__(self, core: Any, outputs: tuple[np.ndarray, ...]) -> None:
        self.core = core
        self.outputs = outputs
        self._owner: Callable[[], Any] = lambda: None

    def bind(self, first: int, pages: Any) -> None:
        """Put `pages.arrays` into the slots from `first` on, where they do not stand there already."""
        if self._owner() is pages:
            return
        self._owner = lambda: None  # until all of them are in
        self.core.bind(first, pages.arrays)
        self._owner = weakref.ref(pages)


class _Shelf:
    """Programs over one arena, least recently used first, for one thread at a time: they spoil each other's memory."""

    def __init__(self) -> None:
        self._arena = Arena()
        self._programs: OrderedDict[Hashable, _Recorded] = OrderedDict()

    def run(
        self,
        key: Hashable,
        wiring: Callable[..., tuple[np.ndarray, ...]],
        inputs: Sequence[np.ndarray],
        tables: Sequence[np.ndarray],
        pages: Any,
        times: int,
    ) -> tuple[np.ndarray, ...]:
        program = self._programs.get(key)
        is_new = program is None
        if program is None:
            program = self._programs[key] = self._record(wiring, inputs, tables, pages)
            while len(self._programs) > MAX_PROGRAMS:
                self._programs.popitem(last=False)
            times -= 1
        else:
            self._programs.move_to_end(key)
            program.bind(len(tables), pages)
            program.core.load(inputs, tables)
        if times:
            program.core.run(times, is_new)
        return program.outputs

    def _record(
        self,
        wiring: Callable[..., tuple[np.ndarray, ...]],
        inputs: Sequence[np.ndarray],
        tables: Sequence[np.ndarray],
        pages: Any,
    ) -> _Recorded:
        core = _core.Program()
        core.set_slots(len(tables) + len(pages.arrays))
        core.bind(0, tables)
        core.bind(len(tables), pages.arrays)
        buffers = [self._arena.empty(value.shape, value.dtype) for value in inputs]
        for buffer, value in zip(buffers, inputs, strict=True):
            core.add_input(buffer)
            buffer[...] = value
        try:  # from here on, for an interrupt may come at once
            _recording.arena, _recording.program = self._arena, core
            core.begin()
            outputs = wiring(*buffers)
        finally:
            core.end()
            _recording.arena = _recording.program = None
        return _Recorded(core, tuple(self._arena.unleased(output) for output in outputs))


class Programs:
    def __init__(self) -> None:
        self._idle: list[_Shelf] = []  # nobody runs these now

    def run(
        self,
        key: Hashable,
        wiring: Callable[..., tuple[np.ndarray, ...]],
        inputs: Sequence[np.ndarray],
        tables: Sequence[np.ndarray],
        pages: Any,
        times: int = 1,
    ) -> AbstractContextManager[tuple[np.ndarray, ...]]:
        try:
            shelf = self._idle.pop()
        except IndexError:
            shelf = _Shelf()
        try:
            return _Lent(self._idle, shelf, shelf.run(key, wiring, inputs, tables, pages, times))
        except BaseException:
            _Lent(self._idle, shelf, ()).__exit__()
            raise


class _Lent:
    """The results of a run, until the context closes and others may have the shelf."""

    def __init__(self, idle: list[_Shelf], shelf: _Shelf, outputs: tuple[np.ndarray, ...]) -> None:
        self._idle, self._shelf, self._outputs = idle, shelf, outputs

    def __enter__(self) -> tuple[np.ndarray, ...]:
        return self._outputs

    def __exit__(self, *_: Any) -> None:
        if len(self._idle) < MAX_IDLE:
            self._idle.append(self._shelf)


def pack(w: np.ndarray, format: str, layout: str) -> Packed:
    n, k = w.shape if w.ndim == 2 else (0, 0)
    data = aligned(_core.packed_bytes(format, layout, n, k))
    _core.pack(w, format, layout, data)
    return Packed(format, layout, n, k, data)


def pack_q4_0(blocks: np.ndarray, layout: str) -> Packed:
    n, count, _ = blocks.shape if blocks.ndim == 3 else (0, 0, 0)
    data = aligned(_core.packed_bytes("q4", layout, n, count * 32))
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


def _default_threads() -> int:
    """Physical cores that this process may use: SMT siblings count once, and a container's quota is respected."""
    if not hasattr(os, "sched_getaffinity"):
        return max(1, min(256, os.cpu_count() or 1))
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings.read_text() if os.path.exists(siblings) else str(cpu))
    count = len(cores)
    quota = Path("/sys/fs/cgroup/cpu.max")
    if os.path.exists(quota):
        limit, period = quota.read_text().split()
        if limit != "max":
            count = min(count, -(-int(limit) // int(period)))
    return max(1, min(256, count))


if _choice := os.environ.get("FORETOKEN_ISA"):
    set_isa(_choice)
set_threads(_default_threads())
