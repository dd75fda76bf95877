"""`foretoken bench prompt`: how fast a prompt is read, as a share of what the kernels reach at best."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

from foretoken import engine
from foretoken.bench.limits import READ_BYTES, Limits, prompt_work
from foretoken.bench.matrices import matrices
from foretoken.bench.subject import CHUNK, Subject
from foretoken.bench.timing import Figure, Times, fields, interleaved
from foretoken.ops import Packed, native

PROMPT, LINEARS = "prompt", "linears"
Progress = Callable[[int, int], None]


def measure(
    subject: Subject, tokens: int, repeats: int, told: Progress | None = None, read_bytes: int = READ_BYTES
) -> dict[str, Any]:
    """The fields of `bench prompt --json` (design section 8).

    peak_share         multiply-adds of weights that are really executed (layers that store no keys see the last row
                       only; attention is not counted) per second, over the peak of the same turn
    linear_peak_share  the same of the products alone, one after the other, of the layers that all rows pass
    """
    subject.check_context("tokens", tokens, 1)
    limits, alone = Limits(subject.format, read_bytes), Linears(subject, min(tokens, CHUNK))
    runner = engine.Engine(subject.target, CHUNK)
    prompt = subject.prompt(tokens)

    def read() -> float:
        sequence = subject.sequence(prompt, runner.pool(tokens + 1))
        while sequence.is_reading:
            runner.step([sequence])
            if sequence.error is not None:
                raise sequence.error
        return sequence.stats.prefill_s

    cases: dict[Any, Callable[[], float]] = {(PROMPT, 0): read, (LINEARS, 0): alone.run, **limits.cases()}
    times = interleaved(cases, repeats, told)
    prompt_ms, linears_ms = times[PROMPT, 0].ms, times[LINEARS, 0].ms
    peaks = [turn.gmac_per_s for turn in limits.by_turn(times)]

    def share(macs: float, time: Times) -> Figure:
        turns = zip(time.seconds, peaks, strict=True)
        return Figure(tuple(macs / seconds / 1e9 / peak for seconds, peak in turns))

    return {
        "shape": subject.name,
        "format": subject.format,
        "isa": native.isa(),
        "threads": native.threads(),
        "tokens": tokens,
        "chunk": CHUNK,
        "repeats": repeats,
        "tok_per_s": 1e3 * tokens / prompt_ms,
        **fields("peak_share", share(prompt_work(subject, tokens).macs, times[PROMPT, 0])),
        **fields("linear_peak_share", share(alone.macs, times[LINEARS, 0])),
        "prompt_ms": prompt_ms,
        "linears_ms": linears_ms,
        "spread": {PROMPT: times[PROMPT, 0].spread, LINEARS: times[LINEARS, 0].spread},
        **limits.found(times).fields(),
    }


class Linears:
    """The products of the layers that all rows of a prompt pass, with nothing between them; experts are left out."""

    def __init__(self, subject: Subject, rows: int) -> None:
        stores = tuple(f"layers.{index}." for index in range(subject.target.config.first_shared))
        self._weights: list[Packed] = [
            matrix
            for name, matrix in matrices(subject.target.weights)
            if (name.startswith(stores) and ".experts." not in name) or name == "per_layer_model_projection"
        ]
        rng = np.random.default_rng(0)
        widths = {weight.k for weight in self._weights}
        self._inputs = {width: rng.standard_normal((rows, width), dtype=np.float32) for width in widths}
        self._outputs = {n: np.empty((rows, n), dtype=np.float32) for n in {weight.n for weight in self._weights}}
        self.macs = float(sum(rows * weight.n * weight.k for weight in self._weights))

    def run(self) -> float:
        """Seconds of all of them, one after the other."""
        started = perf_counter()
        for weight in self._weights:
            native.linear(self._inputs[weight.k], weight, self._outputs[weight.n])
        return perf_counter() - started
