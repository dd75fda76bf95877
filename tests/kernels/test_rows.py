"""Norms, gates, rotation, embeddings: against their twins, on every instruction set, row by row."""

import numpy as np
import pytest
from kernels.kernel_checks import EPS, assert_bits, assert_within, empty, floats, same_bits

from foretoken.ops import native, reference

WIDTHS = [1, 15, 16, 17, 32, 100, 256]


def norm_bound(expected, width):
    # The mean errs by (width / 16 + 6) roundings, the root halves that; then about six more.
    return (width / 32 + 10) * EPS * np.abs(expected)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("has_weight", [True, False])
def test_rms_norm(width, has_weight, rng):
    x, weight = floats(rng, 5, width, scale=3), floats(rng, width) if has_weight else None

    def run(rows=slice(None)):
        out = empty(len(x[rows]), width)
        native.rms_norm(x[rows], weight, 1e-6, out)
        return out

    got, expected = same_bits(run), empty(5, width)
    reference.rms_norm(x, weight, 1e-6, expected)
    assert_within(got, expected, norm_bound(expected, width))
    assert_bits(np.concatenate([run(slice(i, i + 1)) for i in range(5)]), got)


@pytest.mark.parametrize("width", WIDTHS)
def test_norm_add(width, rng):
    x, weight, residual = floats(rng, 3, width), floats(rng, width), floats(rng, 3, width)

    def run(module=native):
        out = residual.copy()
        module.norm_add(x, weight, 1e-6, 0.7, out)
        return out

    size = (np.abs(run(reference)) + np.abs(residual)) * (width / 32 + 12)
    assert_within(same_bits(run), run(reference), EPS * size)


@pytest.mark.parametrize("width", WIDTHS)
def test_gelu_mul(width, rng):
    fused = floats(rng, 4, 2 * width, scale=4)
    gate, up = fused[:, :width], fused[:, width:]

    def run(module=native):
        out = empty(4, width)
        module.gelu_mul(gate, up, out)
        return out

    # 1 + tanh cancels for negative gates, so the bound is absolute in it: a few roundings of 1.
    assert_within(same_bits(run), run(reference), 12 * EPS * np.abs(gate * up))


@pytest.mark.parametrize(("head_len", "pairs"), [(2, 1), (8, 4), (32, 16), (36, 18), (64, 8), (256, 64)])
@pytest.mark.parametrize("has_weight", [True, False])
def test_head_norm_rope(head_len, pairs, has_weight, rng):
    wide = floats(rng, 4, 3 * head_len + 5)
    weight = floats(rng, head_len) if has_weight else None
    cos, sin = native.rope_rows(np.arange(4, dtype=np.int32), np.linspace(0.01, 1, pairs, dtype=np.float32))

    def run(module=native, c=cos, s=sin):
        x = wide.copy()
        module.head_norm_rope(x[:, : 3 * head_len], head_len, weight, 1e-6, c, s)
        return x

    for c, s in ((cos, sin), (None, None)):
        got, expected = same_bits(lambda c=c, s=s: run(native, c, s)), run(reference, c, s)
        size = np.abs(expected[:, : 3 * head_len]).reshape(4, 3, head_len).max(-1, keepdims=True)
        bound = np.broadcast_to((head_len / 16 + 24) * EPS * size, (4, 3, head_len)).reshape(4, -1)
        assert_within(got[:, : 3 * head_len], expected[:, : 3 * head_len], bound)
        assert_bits(np.ascontiguousarray(got[:, 3 * head_len :]), np.ascontiguousarray(wide[:, 3 * head_len :]))


def test_rope_rows(rng):
    positions = np.array([0, 1, 77, 4095, 131071, 262144], np.int32)
    inv_freq = (1e6 ** -np.linspace(0, 1, 128)).astype(np.float32)
    got = native.rope_rows(positions, inv_freq)
    for mine, twin in zip(got, reference.rope_rows(positions, inv_freq), strict=True):
        assert_within(mine, twin, 2 * EPS)
        assert_bits(mine[3:4], mine[3:4].copy())
    alone = native.rope_rows(positions[3:4], inv_freq)
    assert_bits(alone[0], np.ascontiguousarray(got[0][3:4]))


@pytest.mark.parametrize("format", ["f32", "bf16", "q8", "q4"])
@pytest.mark.parametrize("k", [1, 16, 31, 32, 33, 100])
def test_embed(format, k, rng):
    w, ids = floats(rng, 37, k), np.array([0, 36, 5, 5, 17], np.int32)
    results = []
    for layout in ("rows", "panels"):
        weight = native.pack(w, format, layout)

        def run(module=native, weight=weight):
            out = empty(len(ids), k)
            module.embed(ids, weight, 39.25, out)
            return out

        results.append(same_bits(run))
        assert_bits(results[-1], run(reference))
    assert_bits(results[0], results[1])


@pytest.mark.parametrize("format", ["f32", "bf16", "q8", "q4"])
@pytest.mark.parametrize(("layers", "width"), [(1, 1), (3, 32), (4, 24), (2, 256)])
def test_per_layer(format, layers, width, rng):
    table = native.pack(floats(rng, 21, layers * width), format, "rows")
    context, weight = floats(rng, 3, layers * width), floats(rng, width)
    ids = np.array([20, 0, 7], np.int32)

    def run(module=native):
        out = empty(*context.shape)
        module.per_layer(context, ids, table, weight, 1e-6, 0.0255, 16.0, out)
        return out

    expected = run(reference)
    tokens = empty(*context.shape)
    reference.embed(ids, table, 16.0, tokens)
    assert_within(same_bits(run), expected, (width / 32 + 14) * EPS * (np.abs(expected) + np.abs(tokens)))


def test_many_rows_on_threads(rng):
    x, weight = floats(rng, 300, 256), floats(rng, 256)
    results = []
    for threads in (1, 2, 3):
        native.set_threads(threads)
        results.append(empty(300, 256))
        native.rms_norm(x, weight, 1e-6, results[-1])
    assert_bits(results[1], results[0])
    assert_bits(results[2], results[0])


def test_finite():
    for size in (1, 15, 16, 17, 100):
        x = np.zeros(size, np.float32)
        assert native.finite(x)
        for bad in (np.nan, np.inf, -np.inf):
            for at in (0, size - 1):
                y = x.copy()
                y[at] = bad
                for isa in native.isas():
                    native.set_isa(isa)
                    assert not native.finite(y)
    assert native.finite(np.zeros(0, np.float32))
