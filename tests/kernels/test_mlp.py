"""The feed-forward block: the bits of its parts, twins, instruction sets, row rule, threads, hostile arguments."""

import dataclasses

import numpy as np
import pytest
from kernels.kernel_checks import assert_bits, assert_within, each_thread_count, empty, floats, gated_bound, same_bits

from foretoken.errors import ShapeError
from foretoken.ops import native, reference

FORMATS = ["f32", "bf16", "q8", "q4"]


def make(rng, format, d, f):
    gate_up = native.pack(floats(rng, 2 * f, d, scale=d**-0.5), format, "panels")
    return gate_up, native.pack(floats(rng, d, f, scale=f**-0.5), format, "panels")


def run_mlp(x, gate_up, down, module=native):
    out = empty(len(x), down.n)
    module.mlp(x, gate_up, down, out)
    return out


def by_other_ops(x, gate_up, down):
    both, gated, out = empty(len(x), gate_up.n), empty(len(x), down.k), empty(len(x), down.n)
    native.linear(x, gate_up, both)
    native.gelu_mul(both[:, : down.k], both[:, down.k :], gated)
    native.linear(gated, down, out)
    return out


def bound(x, gate_up, down):
    first, second = (native.unpack(w).astype(np.float64) for w in (gate_up, down))
    return gated_bound(x, first, second, gate_up.format)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("d, f", [(16, 8), (40, 24), (64, 32), (48, 100), (96, 160), (32, 1040), (64, 2100)])
def test_mlp(format, d, f, rng):
    gate_up, down = make(rng, format, d, f)
    for rows in (1, 2, 5, 17, 18, 19, 40):
        x = floats(rng, rows, d)
        got = same_bits(lambda x=x: run_mlp(x, gate_up, down))
        assert_bits(got, by_other_ops(x, gate_up, down))
        assert_within(got, run_mlp(x, gate_up, down, reference), bound(x, gate_up, down))


@pytest.mark.parametrize(("format", "d", "f"), [("f32", 160, 600), ("f32", 2100, 70), ("q4", 4100, 100)])
def test_mlp_whose_panels_fill_the_cache(format, d, f, rng):
    """Several tiles of rows make fewer outputs at a time, down to one block; rows may lie apart."""
    gate_up, down = make(rng, format, d, f)
    for rows in (19, 40):
        x = floats(rng, rows, d + 7)[:, 3:-4]
        assert_bits(same_bits(lambda x=x: run_mlp(x, gate_up, down)), by_other_ops(x, gate_up, down))


@pytest.mark.parametrize("format", FORMATS)
def test_mlp_row_rule_and_threads(format, rng):
    gate_up, down = make(rng, format, 64, 1072)
    x = floats(rng, 45, 64)
    together = run_mlp(x, gate_up, down)
    for first, last in [(i, i + 1) for i in range(45)] + [(3, 5), (10, 27), (0, 33)]:
        assert_bits(run_mlp(x[first:last], gate_up, down), together[first:last].copy())
    for _ in each_thread_count(1, 2, 3, 7):
        assert_bits(run_mlp(x, gate_up, down), together)


def test_mlp_mixed_formats_and_slices(rng):
    for first, second in (("q4", "bf16"), ("f32", "q8"), ("bf16", "q4"), ("q8", "f32")):
        gate_up, down = make(rng, first, 32, 80)[0], make(rng, second, 32, 80)[1]
        wide, out = floats(rng, 5, 100), empty(5, 80)
        native.mlp(wide[:, 40:72], gate_up, down, out[:, 8:40])
        assert_bits(out[:, 8:40].copy(), by_other_ops(wide[:, 40:72].copy(), gate_up, down))
        assert np.isnan(out[:, :8]).all() and np.isnan(out[:, 40:]).all()
    native.mlp(wide[:0, :32], gate_up, down, empty(0, 32))


def test_mlp_of_a_row_that_is_not_finite(rng):
    """NaN stays in its row."""
    for format in FORMATS:
        gate_up, down = make(rng, format, 64, 96)
        x = floats(rng, 3, 64)
        expected = run_mlp(x, gate_up, down)
        x[1, 5] = np.nan
        got = run_mlp(x, gate_up, down)
        assert np.isnan(got[1]).all()
        assert_bits(got[[0, 2]], expected[[0, 2]])


def test_mlp_hostile(rng):
    gate_up, down = make(rng, "q4", 32, 48)
    given = {"x": floats(rng, 2, 32), "gate_up": gate_up, "down": down, "out": empty(2, 32)}
    native.mlp(*given.values())
    hostile = [
        {"x": floats(rng, 1, 32)}, {"x": floats(rng, 2, 31)}, {"x": given["x"].astype(np.float64)},
        {"out": empty(2, 31)}, {"out": empty(1, 32)}, {"gate_up": down}, {"down": gate_up}, {"gate_up": None},
        {"down": make(rng, "q4", 32, 32)[1]}, {"gate_up": make(rng, "q4", 32, 40)[0]},
        {"down": dataclasses.replace(down, layout="rows")}, {"gate_up": dataclasses.replace(gate_up, layout="rows")},
    ]  # fmt: skip
    for change in hostile:
        with pytest.raises((ShapeError, TypeError)):
            native.mlp(*(given | change).values())
    for change in ({"gate_up": down}, {"down": make(rng, "q4", 32, 32)[1]}, {"out": empty(2, 31)}):
        with pytest.raises(ShapeError):
            reference.mlp(*(given | change).values())
