"""Our own exp, log, log1p, tanh, sin, cos against float64; float16 conversion, exhaustively."""

import numpy as np
import pytest
from kernels.kernel_checks import assert_bits, same_bits

from foretoken import _core

INF = np.float32(np.inf)


def apply(name, x):
    out = np.empty_like(x)
    _core.apply_math(name, x, out)
    return out


def ulps(got, exact):
    """Distance in units of the last place of the exact result, denormals included."""
    unit = np.spacing(np.maximum(np.abs(exact), 2.0**-126).astype(np.float32)).astype(np.float64)
    return np.abs(got.astype(np.float64) - exact) / unit


def grid(low, high, count=200_000):
    return np.random.default_rng(1).uniform(low, high, count).astype(np.float32)


def powers(sign=1):
    return (sign * 2.0 ** np.random.default_rng(2).uniform(-149, 127.9, 200_000)).astype(np.float32)


CASES = {
    "exp": (np.exp, [grid(-104, 88.7), grid(-1, 1), powers(-1)]),
    "log": (np.log, [powers(), grid(0.5, 2)]),
    "log1p": (np.log1p, [powers(), grid(-0.9999, 1), grid(-1e-3, 1e-3), -(np.float32(2.0) ** -np.arange(1, 149))]),
    "tanh": (np.tanh, [grid(-10, 10), powers(), powers(-1)]),
}


@pytest.mark.parametrize("name", CASES)
def test_accuracy(name):
    exact, inputs = CASES[name]
    for x in inputs:
        x = x.astype(np.float32)
        worst = ulps(same_bits(lambda x=x: apply(name, x)), exact(x.astype(np.float64))).max()
        assert worst <= 2, worst


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        ("exp", [0, -0.0, INF, -INF, 100, -105, 89, 88.73], [1, 1, INF, 0, INF, 0, INF, INF]),
        ("log", [1, 0, -0.0, INF, -1, -INF], [0, -INF, -INF, INF, np.nan, np.nan]),
        ("log1p", [0, -0.0, -1, INF, -2], [0, -0.0, -INF, INF, np.nan]),
        ("tanh", [0, -0.0, INF, -INF, 20, -20], [0, -0.0, 1, -1, 1, -1]),
    ],
)
def test_exact_points(name, x, expected):
    got = same_bits(lambda: apply(name, np.array(x, np.float32)))
    assert np.array_equal(got, np.array(expected, np.float32), equal_nan=True)
    assert np.isnan(apply(name, np.array([np.nan], np.float32))).all()


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_angles(name):
    for x in (grid(0, 262144), grid(0, 7), grid(-100, 100), powers()[:1000] * 0):
        exact = getattr(np, name)(x.astype(np.float64))
        assert ulps(apply(name, x), exact).max() <= 0.51
    # Multiples of pi / 2, where the reduction cancels most.
    x = (np.arange(1, 160_000) * (np.pi / 2)).astype(np.float32)
    assert ulps(apply(name, x), getattr(np, name)(x.astype(np.float64))).max() <= 0.51


def test_half_exhaustive():
    bits = np.arange(65536, dtype=np.uint16)
    half = bits.view(np.float16)
    wide = np.empty(65536, np.float32)
    _core.widen_half(half, wide)
    number = ~np.isnan(half)
    assert_bits(wide[number], half[number].astype(np.float32))
    assert np.isnan(wide[~number]).all()
    # Every half, the midpoints between neighbours, and their float32 neighbours.
    finite = np.sort(wide[np.isfinite(wide)])
    middle = ((finite[1:].astype(np.float64) + finite[:-1]) / 2).astype(np.float32)
    x = np.concatenate([wide[number], middle, np.nextafter(middle, INF), np.nextafter(middle, -INF)])
    x = np.concatenate([x, np.array([65519.996, 65520, 1e30, 1e-30, -1e-45], np.float32)])
    got = np.empty(len(x), np.float16)
    _core.round_half(x, got)
    with np.errstate(over="ignore"):
        assert_bits(got, x.astype(np.float16))
