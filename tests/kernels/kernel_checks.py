"""What the kernel tests share: one run per instruction set, and errors bounded by epsilon, K and norms."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from foretoken.ops import native

EPS = 2.0**-24  # half a unit in the last place of a float32 near 1


def same_bits(run: Callable[[], np.ndarray]) -> np.ndarray:
    """Run once per instruction set and maker; every result must have the bits of the scalar one, which is returned."""
    results = {}
    for isa, is_intel in itertools.product(native.isas(), (False, True)):
        native.set_isa(isa)
        native.take_for_intel(is_intel)
        results[isa, is_intel] = np.ascontiguousarray(run())
    scalar = results["scalar", False]
    for name, result in results.items():
        assert_bits(result, scalar, name)
    return scalar


def assert_bits(got: np.ndarray, expected: np.ndarray, what: object = "") -> None:
    assert got.dtype == expected.dtype and got.shape == expected.shape
    differ = got.view(np.uint8) != expected.view(np.uint8)
    assert not differ.any(), f"{what}: {differ.sum()} bytes of {differ.size} differ"


def assert_within(got: np.ndarray, expected: np.ndarray, bound: np.ndarray | float) -> None:
    excess = np.abs(got.astype(np.float64) - expected) - bound
    assert (excess <= 0).all(), f"worst excess {excess.max()} over the bound"


def gated_bound(x: np.ndarray, first: np.ndarray, second: np.ndarray, format: str, more: int = 0) -> np.ndarray:
    """First-order error of second · (gelu(gate · x) · (up · x)), first = [gate, up]: (T, D), (2F, D), (N, F) -> (T, N).

    more  roundings of the result
    """
    has_blocks, f = format in ("q8", "q4"), second.shape[1]
    steps = [(-(-k // 32) + 4 if has_blocks else k + 1) for k in (x.shape[1], f)]
    both, size = np.abs(x.astype(np.float64) @ first.T), np.abs(x).astype(np.float64) @ np.abs(first).T  # (T, 2F)
    if has_blocks:
        off = half_steps(x) @ np.abs(first).T
        both, size = both + off, size + off
    # |gelu(a)| <= |a| and its slope is below 1.13: the product errs by both factors' errors.
    error = size[:, :f] * size[:, f:] * (2.2 * steps[0] + 16) * EPS
    gated = both[:, :f] * both[:, f:] + error
    if has_blocks:  # a rounding may go the other way, by one step of the block
        error = error + 2 * half_steps(gated)
    return (error + gated * (steps[1] + more) * EPS) @ np.abs(second).T


def half_steps(x: np.ndarray) -> np.ndarray:
    """What 8 bits for a block of 32 inputs are off by at most, (T, K)."""
    blocks = np.pad(np.abs(x).astype(np.float64), ((0, 0), (0, -x.shape[1] % 32))).reshape(len(x), -1, 32)
    return np.repeat(blocks.max(-1) / 254, 32, axis=1)[:, : x.shape[1]]


def floats(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def empty(*shape: int) -> np.ndarray:
    return np.full(shape, np.nan, np.float32)


def each_thread_count(*counts: int) -> Iterator[int]:
    """Set each number of threads, and leave nothing in the ops' own memory that could pass for their work."""
    weight = native.pack(np.ones((16, 8192), np.float32), "q8", "panels")
    for threads in counts:
        native.set_threads(threads)
        native.linear(np.full((200, 8192), np.nan, np.float32), weight, empty(200, 16))
        yield threads
