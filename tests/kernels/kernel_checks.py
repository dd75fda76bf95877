"""What the kernel tests share: one run per instruction set, and errors bounded by epsilon, K and norms."""

import itertools
from collections.abc import Callable

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


def floats(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def empty(*shape: int) -> np.ndarray:
    return np.full(shape, np.nan, np.float32)
