"""route and experts: twins, instruction sets, row rule, threads, waves, hostile arguments."""

import dataclasses

import numpy as np
import pytest
from kernels.kernel_checks import (
    EPS,
    assert_bits,
    assert_within,
    each_thread_count,
    empty,
    floats,
    gated_bound,
    same_bits,
)

from foretoken.errors import ShapeError
from foretoken.ops import Packed, native, reference

FORMATS = ["f32", "bf16", "q8", "q4"]


# route


def run_route(scores, scale, count):
    """Ids and the bits of the weights side by side: int32 (T, 2 · count)."""
    ids, weights = native.route(scores, scale, count)
    assert ids.dtype == np.int32 and weights.dtype == np.float32 and ids.shape == weights.shape == (len(scores), count)
    return np.concatenate([ids, weights.view(np.int32)], axis=1)


@pytest.mark.parametrize("num_experts", [1, 8, 15, 16, 17, 100, 128])
@pytest.mark.parametrize("rows", [1, 2, 40])
def test_route(num_experts, rows, rng):
    scores, scale = floats(rng, rows, num_experts, scale=3), floats(rng, num_experts)
    for count in {1, min(8, num_experts), num_experts}:
        got = same_bits(lambda count=count: run_route(scores, scale, count))
        alone = [run_route(scores[i : i + 1], scale, count) for i in range(rows)]
        assert_bits(got, np.concatenate(alone))
        ids, expected = reference.route(scores, scale, count)
        assert_bits(np.ascontiguousarray(got[:, :count]), ids)
        # exp errs by 2 units and the subtraction before it by half; then a sum of E, one of count, three more.
        bound = (8 + np.abs(scores).max() * 2 + num_experts / 16 + 6 + count + 3) * EPS * np.abs(expected)
        assert_within(np.ascontiguousarray(got[:, count:]).view(np.float32), expected, bound)


def test_route_ties_and_extremes():
    scores = np.zeros((3, 20), np.float32)
    scores[1, [3, 7, 19]] = 5
    scores[2] = -np.inf
    scores[2, 11] = -300
    for isa in native.isas():
        native.set_isa(isa)
        ids, weights = native.route(scores, np.ones(20, np.float32), 4)
        assert ids.tolist() == [[0, 1, 2, 3], [0, 3, 7, 19], [0, 1, 2, 11]]
        assert (weights[0] == 0.25).all() and weights[2].tolist() == [0, 0, 0, 1]
    ids, weights = native.route(scores[:, 2:12], np.full(10, 2, np.float32), 0)
    assert ids.shape == weights.shape == (3, 0)


def test_route_hostile(rng):
    scores, scale = floats(rng, 2, 20), floats(rng, 20)
    for count in (21, 2**20, -1):
        with pytest.raises(ShapeError):
            native.route(scores, scale, count) if count > 0 else reference.route(scores, scale, count)
    for bad in (np.nan, np.inf):
        row = scores.copy()
        row[1, 17] = bad
        for module in (native, reference):
            with pytest.raises(ShapeError):
                module.route(row, scale, 4)
    with pytest.raises(ShapeError):
        native.route(np.full((1, 20), -np.inf, np.float32), scale, 4)
    for bad in (scale[:19], scale.astype(np.float64), scale[None]):
        with pytest.raises(ShapeError):
            native.route(scores, bad, 4)


# experts


def make(rng, format, num_experts, d, f):
    gate_up = native.pack(floats(rng, num_experts * 2 * f, d, scale=d**-0.5), format, "panels")
    return gate_up, native.pack(floats(rng, num_experts * d, f, scale=f**-0.5), format, "panels")


def choose(rng, rows, num_experts, count):
    ids = np.stack([np.sort(rng.permutation(num_experts)[:count]) for _ in range(rows)]).astype(np.int32)
    return ids, floats(rng, rows, count)


def run_experts(x, ids, weights, gate_up, down, num_experts, module=native):
    out = empty(*x.shape)
    module.experts(x, ids, weights, gate_up, down, num_experts, out)
    return out


def part(weight: Packed, first: int, count: int) -> Packed:
    """Rows first … of a matrix whose parts begin at panels."""
    unit = weight.data.size // (weight.n // 16)
    return dataclasses.replace(weight, n=count, data=weight.data[first // 16 * unit : (first + count) // 16 * unit])


def by_other_ops(x, ids, weights, gate_up, down):
    """The same with linear and gelu_mul, whose bits are known; a float32 product is a chain acc = fma(w, y, acc)."""
    out, d, f = empty(*x.shape), x.shape[1], down.k
    for t in range(len(x)):
        results = empty(ids.shape[1], d)
        for j, e in enumerate(ids[t]):
            hidden, gated = empty(1, 2 * f), empty(1, f)
            native.linear(x[t : t + 1], part(gate_up, e * 2 * f, 2 * f), hidden)
            native.gelu_mul(hidden[:, :f], hidden[:, f:], gated)
            native.linear(gated, part(down, e * d, d), results[j : j + 1])
        native.linear(weights[t : t + 1], native.pack(np.ascontiguousarray(results.T), "f32", "panels"), out[t : t + 1])
    return out


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("rows", "num_experts", "d", "f", "count"),
    [
        (1, 1, 16, 8, 1),
        (1, 8, 32, 16, 4),
        (3, 5, 48, 24, 2),
        (17, 4, 64, 40, 3),
        (40, 16, 96, 32, 8),
        (33, 3, 32, 88, 1),
    ],
)
def test_experts(format, rows, num_experts, d, f, count, rng):
    gate_up, down = make(rng, format, num_experts, d, f)
    x, (ids, weights) = floats(rng, rows, d), choose(rng, rows, num_experts, count)
    got = same_bits(lambda: run_experts(x, ids, weights, gate_up, down, num_experts))
    assert_bits(got, by_other_ops(x, ids, weights, gate_up, down))
    assert_within(got, run_experts(x, ids, weights, gate_up, down, num_experts, reference),
                  bound(x, ids, weights, gate_up, down))  # fmt: skip


def bound(x, ids, weights, gate_up, down):
    """First-order error of the two products, the gate between them and the sum, from magnitudes."""
    d, f = x.shape[1], down.k
    first, second = (native.unpack(w).astype(np.float64) for w in (gate_up, down))
    first, second = first.reshape(-1, 2 * f, d), second.reshape(-1, d, f)
    total = np.zeros(x.shape)
    for t in range(len(x)):
        for e, weight in zip(ids[t], np.abs(weights[t]).astype(np.float64), strict=True):
            own = gated_bound(x[t : t + 1], first[e], second[e], gate_up.format, more=len(ids[t]) + 1)
            total[t] += weight * own[0]
    return total


@pytest.mark.parametrize("format", FORMATS)
def test_experts_row_rule_and_threads(format, rng):
    gate_up, down = make(rng, format, 16, 64, 48)
    x, (ids, weights) = floats(rng, 45, 64), choose(rng, 45, 16, 6)
    together = run_experts(x, ids, weights, gate_up, down, 16)
    for first, last in [(i, i + 1) for i in range(45)] + [(3, 5), (10, 27), (0, 33)]:
        some = slice(first, last)
        assert_bits(run_experts(x[some], ids[some], weights[some], gate_up, down, 16), together[some].copy())
    for _ in each_thread_count(1, 2, 3, 8):
        assert_bits(run_experts(x, ids, weights, gate_up, down, 16), together)


def test_experts_in_waves(rng):
    """More pairs than are held in memory at a time, experts with many rows, with few and with none."""
    gate_up, down = make(rng, "q8", 9, 16, 8)
    x, (ids, weights) = floats(rng, 700, 16), choose(rng, 700, 8, 5)
    ids[ids >= 3] += 1  # nobody takes 3
    together = run_experts(x, ids, weights, gate_up, down, 9)
    for i in range(0, 700, 23):
        some = slice(i, i + 1)
        assert_bits(run_experts(x[some], ids[some], weights[some], gate_up, down, 9), together[some].copy())
    one = np.zeros((1500, 1), np.int32)
    x, weights = floats(rng, 1500, 16), np.ones((1500, 1), np.float32)
    assert_bits(run_experts(x, one, weights, gate_up, down, 9)[1400:1401].copy(),
                run_experts(x[1400:1401], one[:1], weights[:1], gate_up, down, 9))  # fmt: skip


def test_experts_mixed_formats_and_slices(rng):
    for first, second in (("q4", "bf16"), ("f32", "q8"), ("bf16", "q4")):
        gate_up, down = make(rng, first, 4, 32, 16)[0], make(rng, second, 4, 32, 16)[1]
        wide, (ids, weights) = floats(rng, 5, 100), choose(rng, 5, 4, 2)
        out, x = empty(5, 80), wide[:, 40:72]
        native.experts(x, ids, weights, gate_up, down, 4, out[:, 8:40])
        expected = by_other_ops(x.copy(), ids, weights, gate_up, down)
        assert_bits(out[:, 8:40].copy(), expected)
        assert np.isnan(out[:, :8]).all() and np.isnan(out[:, 40:]).all()
    nobody = np.zeros((5, 0), np.int32)
    assert (run_experts(x.copy(), nobody, nobody.view(np.float32), gate_up, down, 4) == 0).all()
    native.experts(x[:0].copy(), ids[:0], weights[:0], gate_up, down, 4, empty(0, 32))


def test_experts_hostile(rng):
    gate_up, down = make(rng, "q4", 4, 32, 16)
    x, (ids, weights) = floats(rng, 2, 32), choose(rng, 2, 4, 2)
    given = {"x": x, "ids": ids, "weights": weights, "gate_up": gate_up, "down": down, "num_experts": 4}

    def run(out=None, **changes):
        native.experts(*(given | changes).values(), empty(2, 32) if out is None else out)

    run()
    narrow, odd = make(rng, "q4", 4, 24, 16), make(rng, "q4", 4, 32, 20)
    hostile = [
        {"ids": np.array([[0, 1], [1, 1]], np.int32)}, {"ids": np.array([[0, 1], [2, 1]], np.int32)},
        {"ids": np.array([[0, 4], [0, 1]], np.int32)}, {"ids": np.array([[-1, 1], [0, 1]], np.int32)},
        {"ids": np.array([[0, 2**31 - 1], [0, 1]], np.int32)}, {"ids": ids[:1]}, {"ids": ids[:, :1]},
        {"ids": ids.astype(np.int64)}, {"weights": weights[:, :1]}, {"weights": weights.astype(np.float64)},
        {"x": x[:1]}, {"x": x[:, :31].copy()}, {"out": empty(2, 31)}, {"out": empty(1, 32)}, {"num_experts": 0},
        {"num_experts": 2}, {"num_experts": -4}, {"num_experts": 2**62}, {"gate_up": down}, {"down": gate_up},
        {"down": dataclasses.replace(down, layout="rows")}, {"down": make(rng, "q4", 3, 32, 16)[1]}, {"gate_up": None},
        {"x": x[:, :24].copy(), "gate_up": narrow[0], "down": narrow[1], "out": empty(2, 24)},
        {"gate_up": odd[0], "down": odd[1]},
    ]  # fmt: skip
    for change in hostile:
        with pytest.raises((ShapeError, TypeError)):
            run(**change)
        if not {"weights", "out", "gate_up"} & set(change) and change.get("num_experts", 4) == 4:
            changed = given | change
            if changed["ids"].dtype == np.int32 and changed["down"].layout == "panels":
                with pytest.raises(ShapeError):
                    reference.experts(*changed.values(), empty(2, 32))
