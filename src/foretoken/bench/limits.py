"""What this machine could do at best, measured in the same run as what it does: read rate and multiply-adds.

read rate  a buffer of 512 MB, far beyond every cache, read once from end to end by all threads; by NumPy (a sum over
           int64, in pieces, a Python thread per worker thread) and by our own one-row product over bf16 weights, which
           does little else than read. The faster of the two counts.
peak       the instructions that multiply 8-bit integers in our kernels, on registers alone: no load, no store, no
           float part. That is what the processor's units can do; no kernel gets there. Where there are no such
           instructions (scalar kernels, floats), the fastest of our own products with weights that stay in the cache.

Roofline of a pass (design promise P4): max(weight bytes ÷ read rate, multiply-adds ÷ peak). It knows weights only:
attention, norms and the cache are on top, for the pass to pay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from foretoken.bench.matrices import matrices
from foretoken.bench.subject import Subject
from foretoken.bench.timing import Times
from foretoken.ops import Packed, native
from foretoken.ops.arena import aligned

READ_BYTES = 512_000_000
PIECE_BYTES = 8 << 20
ROW_COUNTS = (8, 16, 32, 64)
INPUTS, OUTPUTS = 1536, 1024  # of the matrix in the cache
BF16_VALUE = 0x3C80
PEAK_ROUNDS = 200_000  # of the multiply instructions, about a millisecond
TRIES = 5  # of what takes a millisecond: the fastest counts, or one interruption would make a turn's ceiling too low
READ, MULTIPLY, PEAK = "limit: read", "limit: multiply", "limit: instructions"
Key = tuple[str, Any]


class Limits:
    """Cases for `timing.interleaved`, and what their times say."""

    def __init__(self, format: str, read_bytes: int = READ_BYTES) -> None:
        rng = np.random.default_rng(0)
        rows = max(read_bytes // (2 * INPUTS * 16), 1) * 16
        self._buffer = aligned(rows * INPUTS * 2)
        self._buffer.view(np.uint16)[:] = BF16_VALUE
        self._long = Packed("bf16", "panels", rows, INPUTS, self._buffer)
        values = rng.standard_normal((OUTPUTS, INPUTS), dtype=np.float32)
        self._small = native.pack(values, format, "panels")
        self._x = rng.standard_normal((max(ROW_COUNTS), INPUTS), dtype=np.float32)
        self._pool = ThreadPoolExecutor(native.threads())
        self._format = format
        self._peak_macs = native.multiply_peak(format, PEAK_ROUNDS)

    def cases(self) -> dict[Key, Callable[[], float]]:
        """(kind, how) to a function that does it once and gives the seconds."""
        found: dict[Key, Callable[[], float]] = {(READ, "numpy"): self._sum, (READ, "kernel"): self._one_row}
        for rows in ROW_COUNTS:
            found[MULTIPLY, rows] = lambda rows=rows: self._multiply(rows)  # type: ignore[misc]
        if self._peak_macs:
            found[PEAK, None] = self._instructions
        return found

    def found(self, times: Mapping[Any, Times]) -> Ceilings:
        """The ceilings by the medians of `cases`."""
        fastest = self._fastest(times)
        return self._ceilings(fastest, [times[key].ms / 1e3 for key in fastest])

    def by_turn(self, times: Mapping[Any, Times]) -> list[Ceilings]:
        """The ceilings as they were in every turn, by the cases that are the fastest in the median."""
        fastest = self._fastest(times)
        turns = zip(*(times[key].seconds for key in fastest), strict=True)
        return [self._ceilings(fastest, seconds) for seconds in turns]

    def _fastest(self, times: Mapping[Any, Times]) -> list[Key]:
        """The case that reads fastest, the one that multiplies fastest, and the peak's where there is one."""
        read = min(("numpy", "kernel"), key=lambda how: times[READ, how].ms)
        rows = min(ROW_COUNTS, key=lambda rows: times[MULTIPLY, rows].ms / rows)
        return [(READ, read), (MULTIPLY, rows), *([(PEAK, None)] if self._peak_macs else [])]

    def _ceilings(self, fastest: Sequence[Key], seconds: Sequence[float]) -> Ceilings:
        _, (_, rows), *has_peak = fastest
        kernel = rows * INPUTS * OUTPUTS / seconds[1] / 1e9
        return Ceilings(
            read_gb_per_s=self._buffer.nbytes / seconds[0] / 1e9,
            gmac_per_s=self._peak_macs / seconds[2] / 1e9 if has_peak else kernel,
            kernel_gmac_per_s=kernel,
            peak_source="instructions on registers" if has_peak else "own product, weights in cache",
        )

    def _sum(self) -> float:
        values = self._buffer.view(np.int64)
        step = PIECE_BYTES // values.itemsize
        pieces = [values[at : at + step] for at in range(0, len(values), step)]
        started = perf_counter()
        list(self._pool.map(np.add.reduce, pieces))
        return perf_counter() - started

    def _one_row(self) -> float:
        return product(self._long, self._x[:1])

    def _multiply(self, rows: int) -> float:
        return min(product(self._small, self._x[:rows]) for _ in range(TRIES))

    def _instructions(self) -> float:
        def once() -> float:
            started = perf_counter()
            native.multiply_peak(self._format, PEAK_ROUNDS)
            return perf_counter() - started

        return min(once() for _ in range(TRIES))


@dataclass(frozen=True)
class Ceilings:
    """What was reached at best: 10^9 bytes, and 10^9 multiply-adds, a second.

    gmac_per_s         the peak, from `peak_source`
    kernel_gmac_per_s  our product with weights that stay in the cache
    """

    read_gb_per_s: float
    gmac_per_s: float
    kernel_gmac_per_s: float
    peak_source: str

    def fields(self) -> dict[str, Any]:
        """What reports say of the machine."""
        return {
            "read_ceiling_gb_per_s": self.read_gb_per_s,
            "int_peak_gmac_per_s": self.gmac_per_s,
            "int_peak_source": self.peak_source,
            "kernel_peak_gmac_per_s": self.kernel_gmac_per_s,
        }

    def roofline_ms(self, work: Work) -> float:
        """The least time for it: reading or multiplying, whichever takes longer."""
        return max(work.weight_bytes / self.read_gb_per_s, work.macs / self.gmac_per_s) / 1e6


@dataclass(frozen=True)
class Work:
    """What a pass must do at least: bytes of weights to read, and their multiply-adds."""

    weight_bytes: float
    macs: float


def work(subject: Subject, rows: int) -> Work:
    """Of a pass of the target over `rows` rows with all their logits.

    A mapped table is not counted, a few kilobytes a row are read of it. Of experts those are counted that rows with
    independent, even choices would take: E · (1 − (1 − k/E)^rows).
    """
    return _sum_of(subject, rows, lambda name: True)


def prompt_work(subject: Subject, tokens: int) -> Work:
    """Of reading a prompt in one pass: all rows through the layers that store keys, one row through the rest."""
    first_shared = subject.target.config.first_shared
    stores = tuple(f"layers.{index}." for index in range(first_shared))
    every = _sum_of(subject, tokens, lambda name: name.startswith(stores) or name == "per_layer_model_projection")
    rest = _sum_of(subject, 1, lambda name: not (name.startswith(stores) or name == "per_layer_model_projection"))
    return Work(every.weight_bytes + rest.weight_bytes, every.macs + rest.macs)


def _sum_of(subject: Subject, rows: int, is_wanted: Callable[[str], bool]) -> Work:
    num_bytes, macs = 0.0, 0.0
    for name, matrix in matrices(subject.target.weights):
        if name == "per_layer_table" or not is_wanted(name):
            continue
        read_share, row_share = 1.0, 1.0
        if ".experts." in name and not name.endswith("router"):
            layer = subject.target.config.layers[0]
            row_share = layer.top_experts / layer.num_experts
            read_share = 1 - (1 - row_share) ** rows
        num_bytes += matrix.data.nbytes * read_share
        macs += rows * matrix.n * matrix.k * row_share
    return Work(num_bytes, macs)


def product(weight: Packed, x: np.ndarray) -> float:
    """Seconds of one product, x rows (T, K)."""
    out = np.empty((len(x), weight.n), dtype=np.float32)
    started = perf_counter()
    native.linear(x, weight, out)
    return perf_counter() - started
