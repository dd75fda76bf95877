"""linear and cluster_logits: twin, instruction sets, row rule, threads; packing against its error bound."""

import numpy as np
import pytest
from kernels.kernel_checks import EPS, assert_bits, assert_within, empty, floats, same_bits

from foretoken.errors import ShapeError, WeightsError
from foretoken.ops import native, reference

FORMATS = ["f32", "q8"]


def run_linear(x, weight):
    out = empty(len(x), weight.n)
    native.linear(x, weight, out)
    return out


def linear_bound(x, weight):
    # A chain of n roundings errs by at most n * eps times the sum of magnitudes; q8 has one chain step a block and
    # two more roundings in it, and the twin's quantised activations differ in at most one rounding of q * d.
    steps = weight.k if weight.format == "f32" else -(-weight.k // 32) + 3
    seen = reference.quantized(x) if weight.format == "q8" else x
    return (steps + 1) * EPS * (np.abs(seen).astype(np.float64) @ np.abs(native.unpack(weight)).T.astype(np.float64))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("n", [1, 15, 16, 17, 48, 65, 113])
@pytest.mark.parametrize("k", [1, 31, 32, 33, 100, 256])
def test_sizes(format, n, k, rng):
    weight, x = native.pack(floats(rng, n, k), format, "panels"), floats(rng, 3, k)
    expected = empty(3, n)
    reference.linear(x, weight, expected)
    assert_within(same_bits(lambda: run_linear(x, weight)), expected, linear_bound(x, weight))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rows", [*range(1, 18), 18, 33, 40])
def test_row_rule(format, rows, rng):
    weight, x = native.pack(floats(rng, 75, 96), format, "panels"), floats(rng, rows, 96)
    together = same_bits(lambda: run_linear(x, weight))
    alone = np.concatenate([run_linear(x[i : i + 1], weight) for i in range(rows)])
    assert_bits(together, alone)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rows", [1, 4, 17, 40])
def test_threads(format, rows, rng):
    weight, x = native.pack(floats(rng, 1003, 320), format, "panels"), floats(rng, rows, 320)
    results = []
    for threads in (1, 2, 3):
        native.set_threads(threads)
        results.append(run_linear(x, weight))
    assert_bits(results[1], results[0])
    assert_bits(results[2], results[0])


@pytest.mark.parametrize("format", FORMATS)
def test_column_slices(format, rng):
    weight, wide = native.pack(floats(rng, 40, 64), format, "panels"), floats(rng, 5, 200)
    out = empty(5, 100)
    native.linear(wide[:, 70:134], weight, out[:, 30:70])
    assert_bits(np.ascontiguousarray(out[:, 30:70]), run_linear(wide[:, 70:134].copy(), weight))
    assert np.isnan(out[:, :30]).all() and np.isnan(out[:, 70:]).all()


def test_extreme_activations(rng):
    weight = native.pack(floats(rng, 33, 128), "q8", "panels")
    x = floats(rng, 5, 128)
    x[0] = 0
    x[1] *= 2.0**-125  # below the smallest amax
    x[2, 5] = np.inf
    x[3, 70] = np.nan
    x[4] *= 2.0**100
    out = same_bits(lambda: run_linear(x, weight))
    assert (out[:2] == 0).all() and np.isnan(out[2:4]).all() and np.isfinite(out[4]).all()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("cluster_len", [1, 7, 16, 40])
def test_cluster_logits(format, cluster_len, rng):
    weight, z = native.pack(floats(rng, 163, 70), format, "panels"), floats(rng, 70)
    clusters = np.array([2, 0, 3], np.int32)

    def run():
        out = empty(3 * cluster_len)
        native.cluster_logits(z, weight, clusters, cluster_len, out)
        return out

    rows = (clusters[:, None] * cluster_len + np.arange(cluster_len)).reshape(-1)
    assert_bits(same_bits(run), np.ascontiguousarray(run_linear(z[None], weight)[0, rows]))
    expected = empty(3 * cluster_len)
    reference.cluster_logits(z, weight, clusters, cluster_len, expected)
    assert_within(run(), expected, linear_bound(z[None], weight)[0, rows])


@pytest.mark.parametrize("layout", ["panels", "rows"])
@pytest.mark.parametrize("shape", [(1, 1), (16, 32), (17, 33), (50, 200)])
def test_pack_bytes_and_bound(layout, shape, rng):
    w = floats(rng, *shape)
    w[0, 0] = 0
    exact, rough = native.pack(w, "f32", layout), native.pack(w, "q8", layout)
    for packed in (exact, rough):
        twin = reference.pack(w, packed.format, layout)
        assert_bits(packed.data, twin.data)
        assert_bits(native.unpack(packed), np.ascontiguousarray(reference.unpack(packed)))
        assert packed.data.ctypes.data % 64 == 0
    assert_bits(native.unpack(exact), w)
    # Half a step of the grid, whose step is amax / 127 rounded to 11 bits; the clip at 127 costs 127 steps of that.
    blocks = reference._q8_blocks(w)
    step = np.abs(blocks).max(-1, keepdims=True) / 127 * (1 + 2.0**-11)
    bound = np.broadcast_to(step * (0.5 + 127 * 2.0**-11), blocks.shape).reshape(len(w), -1)[:, : w.shape[1]]
    assert_within(native.unpack(rough), w, bound)


def test_pack_edges():
    w = np.zeros((2, 32), np.float32)
    w[0, :3] = [1e-9, -2e-9, 1e-30]  # the scale rounds to 0
    w[1, :3] = [65504 * 127, -5, 1.5 * 65504]
    packed = native.pack(w, "q8", "panels")
    assert (native.unpack(packed)[0] == 0).all()
    assert native.unpack(packed)[1, 0] == 65504 * 127
    for bad, word in ((65520 * 127.0, "too large"), (np.inf, "NaN or infinite"), (np.nan, "NaN or infinite")):
        w[1, 7] = bad
        for layout in ("panels", "rows"):
            with pytest.raises(WeightsError, match=word):
                native.pack(w, "q8", layout)


def test_wrong_layout(rng):
    weight = native.pack(floats(rng, 4, 8), "f32", "rows")
    with pytest.raises(ShapeError, match="panels"):
        native.linear(floats(rng, 1, 8), weight, empty(1, 4))
