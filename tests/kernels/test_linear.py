"""linear and cluster_logits: twin, instruction sets, row rule, threads; packing against its error bound."""

import numpy as np
import pytest
from kernels.kernel_checks import EPS, assert_bits, assert_within, each_thread_count, empty, floats, same_bits

from foretoken.errors import ShapeError, WeightsError
from foretoken.ops import native, reference

FORMATS = ["f32", "bf16", "q8", "q4"]


def run_linear(x, weight):
    out = empty(len(x), weight.n)
    native.linear(x, weight, out)
    return out


def row_by_row(x, weight):
    return np.concatenate([run_linear(x[i : i + 1], weight) for i in range(len(x))])


def linear_bound(x, weight):
    # A chain of n roundings errs by at most n * eps times the sum of magnitudes; q8 and q4 have one chain step a
    # block and two more roundings in it, and the twin's quantised activations differ in at most one rounding of q * d.
    has_blocks = weight.format in ("q8", "q4")
    steps = -(-weight.k // 32) + 3 if has_blocks else weight.k
    seen = reference.quantized(x) if has_blocks else x
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
    assert_bits(together, row_by_row(x, weight))


@pytest.mark.parametrize("format", ["q8", "q4"])
@pytest.mark.parametrize("rows", [1, 3, 7, 8, 9, 10, 16, 17, 18, 19, 33])
def test_many_inputs(format, rows, rng):
    """Tiles change with the inputs, and a row is quantised in parts; the last one is not full."""
    weight, x = native.pack(floats(rng, 75, 4100), format, "panels"), floats(rng, rows, 4100)
    alone = row_by_row(x, weight)
    for _ in each_thread_count(1, 3):
        assert_bits(same_bits(lambda: run_linear(x, weight)), alone)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rows", [1, 4, 17, 40])
def test_threads(format, rows, rng):
    weight, x = native.pack(floats(rng, 1003, 320), format, "panels"), floats(rng, rows, 320)
    results = []
    for _ in each_thread_count(1, 2, 3, 8):
        results.append(run_linear(x, weight))
    for result in results[1:]:
        assert_bits(result, results[0])


@pytest.mark.parametrize("format", FORMATS)
def test_column_slices(format, rng):
    weight, wide = native.pack(floats(rng, 40, 64), format, "panels"), floats(rng, 5, 200)
    out = empty(5, 100)
    native.linear(wide[:, 70:134], weight, out[:, 30:70])
    assert_bits(np.ascontiguousarray(out[:, 30:70]), run_linear(wide[:, 70:134].copy(), weight))
    assert np.isnan(out[:, :30]).all() and np.isnan(out[:, 70:]).all()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("rows", "n"), [(1, 16), (3, 1), (5, 37), (17, 4097)])
def test_softcap(format, rows, n, rng):
    weight, x = native.pack(floats(rng, n, 32, scale=7), format, "panels"), floats(rng, rows, 32)

    def run():
        out = empty(rows, n)
        native.linear(x, weight, out, 30.0)
        return out

    plain = run_linear(x, weight).astype(np.float64)
    assert_within(same_bits(run), 30 * np.tanh(plain / 30), 6 * EPS * np.abs(plain))
    expected = empty(rows, n)
    reference.linear(x, weight, expected, 30.0)
    assert_within(run(), expected, linear_bound(x, weight) + 6 * EPS * np.abs(plain))


@pytest.mark.parametrize("format", ["q8", "q4"])
def test_extreme_activations(format, rng):
    weight = native.pack(floats(rng, 33, 128), format, "panels")
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


def pack_bound(w, format):
    """The error of each weight that docs/formats.md allows."""
    if format == "f32":
        return np.zeros_like(w)
    if format == "bf16":
        return np.abs(w) * 2.0**-8  # half of the last of 8 bits
    blocks = reference._blocks(w)
    size = np.abs(blocks).max(-1, keepdims=True)
    # Half a step; the clip costs the rounding of the scale to 11 bits over all steps, and in q4 one step at the far
    # end.
    if format == "q8":
        bound = np.broadcast_to(size / 127 * (1 + 2.0**-11) * (0.5 + 127 * 2.0**-11), blocks.shape)
    else:
        top = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)
        is_far = -blocks * np.sign(top) > 7.49 / 8 * size
        bound = size / 8 * (1 + 2.0**-11) * (np.where(is_far, 1, 0.5) + 8 * 2.0**-11)
    return bound.reshape(len(w), -1)[:, : w.shape[1]]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("layout", ["panels", "rows"])
@pytest.mark.parametrize("shape", [(1, 1), (16, 32), (17, 33), (50, 200)])
def test_pack_bytes_and_bound(format, layout, shape, rng):
    w = floats(rng, *shape)
    w[0, 0] = 0
    w[-1] = np.round(w[-1])  # ties for the largest
    packed, twin = native.pack(w, format, layout), reference.pack(w, format, layout)
    assert_bits(packed.data, twin.data)
    assert_bits(native.unpack(packed), np.ascontiguousarray(reference.unpack(packed)))
    assert packed.data.ctypes.data % 64 == 0
    assert_within(native.unpack(packed), w, pack_bound(w, format))
    if format == "f32":
        assert_bits(native.unpack(packed), w)


@pytest.mark.parametrize(("format", "steps"), [("q8", 127), ("q4", 8)])
def test_pack_edges(format, steps):
    w = np.zeros((2, 32), np.float32)
    w[0, :3] = [1e-9, -2e-9, 1e-30]  # the scale rounds to 0
    w[1, :3] = [65504 * steps, -5, 1.5 * 65504]
    packed = native.pack(w, format, "panels")
    assert_bits(native.unpack(packed)[0], np.zeros(32, np.float32))
    assert native.unpack(packed)[1, 0] == 65504 * steps
    for bad, word in ((65520.0 * steps, "too large"), (np.inf, "NaN or infinite"), (np.nan, "NaN or infinite")):
        w[1, 7] = bad
        for layout in ("panels", "rows"):
            for module in (native, reference):
                with pytest.raises(WeightsError, match=word):
                    module.pack(w, format, layout)


def test_bf16_rounds_to_nearest_even():
    middle = 1 + 2.0**-8  # between two neighbours, of which 1 is even
    x = np.array([1, middle, middle + 2**-7, middle + 2**-20, -middle, 2**-133, -1e-45, -0.0, 3.38e38], np.float32)
    expected = np.array([1, 1, 1 + 2**-6, 1 + 2**-7, -1, 2**-133, -0.0, -0.0, 254 * 2.0**120], np.float32)
    for layout in ("panels", "rows"):
        packed = native.pack(x[:, None], "bf16", layout)
        assert_bits(np.ascontiguousarray(native.unpack(packed)[:, 0]), expected)
        assert packed.data.size == 2 * (16 if layout == "panels" else 9)
        for bad, word in ((3.3999e38, "too large"), (np.inf, "NaN or infinite"), (np.nan, "NaN or infinite")):
            for module in (native, reference):
                with pytest.raises(WeightsError, match=word):
                    module.pack(np.full((3, 5), bad, np.float32), "bf16", layout)


def q4_0_blocks(rng, n, count):
    """Any codes, any finite scales: both signs, denormals and both zeros among them."""
    blocks = rng.integers(0, 256, (n, count, 18), dtype=np.uint8)
    scale = floats(rng, n, count).astype(np.float16)
    scale.reshape(-1)[:4] = [0.0, -0.0, 6e-8, -65504]
    blocks[..., :2] = scale[..., None].view(np.uint8)
    return blocks


@pytest.mark.parametrize(("n", "count"), [(1, 4), (16, 1), (17, 3), (70, 5)])
def test_q4_0_as_it_is(n, count, rng):
    blocks = q4_0_blocks(rng, n, count)
    # By the book of the format: byte j holds input j in its low half and input j + 16 in its high half.
    expected = empty(n, count, 32)
    scale = np.ascontiguousarray(blocks[..., :2]).view(np.float16).astype(np.float32)
    for j in range(16):
        expected[..., j] = ((blocks[..., 2 + j] & 15).astype(np.float32) - 8) * scale[..., 0]
        expected[..., j + 16] = ((blocks[..., 2 + j] >> 4).astype(np.float32) - 8) * scale[..., 0]
    x, results = floats(rng, 3, 32 * count), []
    for layout in ("panels", "rows"):
        packed = native.pack_q4_0(blocks, layout)
        assert (packed.format, packed.layout, packed.n, packed.k) == ("q4", layout, n, 32 * count)
        assert_bits(packed.data, reference.pack_q4_0(blocks, layout).data)
        assert_bits(native.unpack(packed), expected.reshape(n, -1))
    assert_bits(packed.data, blocks.reshape(-1))
    packed = native.pack_q4_0(blocks, "panels")
    results = empty(3, n)
    reference.linear(x, packed, results)
    assert_within(same_bits(lambda: run_linear(x, packed)), results, linear_bound(x, packed))


def test_q4_0_of_our_own_packing(rng):
    """Blocks whose largest weight is a whole step are found again from their floats."""
    blocks = q4_0_blocks(rng, 33, 4)
    blocks.reshape(-1, 18)[:4, :2] = 0, 60
    blocks[..., 2] &= 0xF0  # code 0: 8 steps, the largest
    w = native.unpack(native.pack_q4_0(blocks, "rows"))
    for layout in ("panels", "rows"):
        assert_bits(native.pack(w, "q4", layout).data, native.pack_q4_0(blocks, layout).data)


def test_q4_0_hostile(rng):
    good = q4_0_blocks(rng, 20, 2)
    for bad in (good[..., :17], good.reshape(20, 36), good.view(np.int8), good[:, ::2], good[:0], good[:, :0], "text"):
        with pytest.raises((ShapeError, AttributeError)):
            native.pack_q4_0(bad, "panels")
    with pytest.raises(ShapeError):
        native.pack_q4_0(good, "columns")
    for scale in (np.inf, -np.inf, np.nan):
        bad = good.copy()
        bad[19, 1, :2] = np.array([scale], np.float16).view(np.uint8)
        for layout in ("panels", "rows"):
            for module in (native, reference):
                with pytest.raises(WeightsError, match="damaged"):
                    module.pack_q4_0(bad, layout)


def test_q4_extreme_codes():
    """The largest sums that the integer dot can meet, of either sign."""
    for byte in (0x00, 0xFF, 0x0F, 0xF0):
        blocks = np.full((16, 2, 18), byte, np.uint8)
        blocks[..., :2] = np.array([1.0], np.float16).view(np.uint8)
        packed = native.pack_q4_0(blocks, "panels")
        w = native.unpack(packed).astype(np.float64)
        for x in (np.full((5, 64), 127, np.float32), np.full((5, 64), -127, np.float32)):
            assert_bits(
                same_bits(lambda x=x, p=packed: run_linear(x, p)), (x.astype(np.float64) @ w.T).astype(np.float32)
            )


def test_wrong_layout(rng):
    weight = native.pack(floats(rng, 4, 8), "f32", "rows")
    with pytest.raises(ShapeError, match="panels"):
        native.linear(floats(rng, 1, 8), weight, empty(1, 4))


@pytest.mark.parametrize("format", ["q8", "q4"])
def test_multiply_peak_counts_what_every_thread_does(format):
    native.set_threads(2)
    for isa in native.isas():
        native.set_isa(isa)
        one, two = native.multiply_peak(format, 1000), native.multiply_peak(format, 2000)
        assert two == 2 * one
        if isa in ("avx2", "avxvnni"):  # 512 bits are emulated in some builds, and then not told
            products = 16 if (isa, format) == ("avx2", "q8") else 32  # of an instruction
            assert one == 2 * 1000 * 12 * products
    assert native.multiply_peak("f32", 1000) == 0
    with pytest.raises(ShapeError, match="rounds: -1, expected 0"):
        native.multiply_peak(format, -1)
