"""draw, copy and take_rows: what a recorded wiring does where a direct one would turn to Python or NumPy."""

import numpy as np
import pytest
from kernels.kernel_checks import assert_within, empty, floats, same_bits

from foretoken.errors import ShapeError
from foretoken.ops import DRAW, DRAW_RECORD, NO_STOP, Stop, native, reference

MODULES = pytest.mark.parametrize("ops", [native, reference], ids=["native", "twins"])
HOW = (0.7, 0.9, 0.01, 30, 2**64 - 5, 2**33 + 7, 0, 0, *NO_STOP, 1.0)


def drawn(ops, logits, ids, how=HOW, room=4, times=1):
    """The record, the token, and the rows of tokens and chances after so many draws."""
    record, token = np.array([how], dtype=DRAW), np.zeros(1, np.int32)
    tokens, chances = np.zeros(room, np.int32), np.zeros(room, np.float32)
    for _ in range(times):
        ops.draw(logits, ids, record.view(np.uint8), token, tokens, chances)
    return record[0], token[0], tokens, chances


def test_a_record_is_the_same_bytes_by_either_name():
    how = (*HOW[:6], 3, 4, 0.5, -1.5, 0.25, 2.0, 0.75)
    assert DRAW_RECORD.pack(*how) == np.array([how], dtype=DRAW).tobytes()
    assert DRAW_RECORD.unpack(np.array([how], dtype=DRAW).tobytes()) == how


@MODULES
@pytest.mark.parametrize("has_ids", [False, True])
def test_draw_is_sample_row_at_one_position_after_the_other(rng, ops, has_ids):
    logits = floats(rng, 300)
    ids = rng.permutation(1000)[:300].astype(np.int32) if has_ids else None
    for temperature in (0.0, 0.7):
        how = (temperature, *HOW[1:])
        expected = [ops.sample_row(logits, ids, temperature, 30, 0.9, 0.01, 2**64 - 5, 2**33 + 7 + i) for i in range(4)]
        record, token, tokens, _ = drawn(ops, logits, ids, how, times=4)
        assert tokens.tolist() == expected and token == expected[-1]
        assert record["position"] == 2**33 + 11 and record["count"] == 4


@pytest.mark.parametrize("count", [1, 15, 17, 4097])
def test_chances_are_softmax(rng, count):
    """Each exponential within 4 units in the last place, and a sum of whole numbers of 2^-44 rounded down."""
    logits = floats(rng, count, scale=4.0)
    logits[1:2] = -np.inf
    got = same_bits(lambda: drawn(native, logits, None, times=4)[3])
    tokens = drawn(native, logits, None, times=4)[2]
    wide = np.exp(logits.astype(np.float64) - logits.max())
    expected = wide[tokens] / wide.sum()
    assert_within(got, expected, expected * 2.0**-21 + count * 2.0**-44)
    assert_within(drawn(reference, logits, None, times=4)[3], expected, expected * 2.0**-21 + count * 2.0**-44)


@MODULES
def test_survival_is_the_product_of_the_chances_to_stay(rng, ops):
    """Compared with a logistic over the drawn chances, from a depth and a survival that others have left."""
    logits, stop = floats(rng, 50, scale=4.0), Stop(0.01, -0.2, 0.8, 0.4)
    how = (*HOW[:7], 3, *stop, 0.9)
    record, _, _, chances = drawn(ops, logits, None, how, times=4)
    expected = 0.9
    for depth, p in enumerate(chances.astype(np.float64), 3):
        odds = np.clip(np.log(p / (1 - p)), -4.0, 4.5)
        expected /= 1 + np.exp(0.2 - 0.8 * odds - 0.4 * np.log(1 + depth))
    assert record["survival"] == pytest.approx(expected, rel=1e-5) and record["depth"] == 7
    certain = np.array([1000.0, 0.0], np.float32)  # a chance of 1 has no odds
    record, *_ = drawn(ops, certain, None, how)
    assert record["survival"] == pytest.approx(0.9 / (1 + np.exp(0.2 - 0.8 * 4.5 - 0.4 * np.log(4))))
    record, *_ = drawn(ops, logits, None, HOW, times=2)
    assert record["survival"] == 1.0 and record["depth"] == 2


@MODULES
def test_draw_refuses_and_then_changes_nothing(rng, ops):
    logits = floats(rng, 20)
    record, token = np.array([HOW], dtype=DRAW), np.zeros(1, np.int32)
    tokens, chances = np.zeros(1, np.int32), np.zeros(1, np.float32)
    with pytest.raises(ShapeError):
        ops.draw(np.full(20, np.nan, np.float32), None, record.view(np.uint8), token, tokens, chances)
    assert record[0].item() == HOW
    ops.draw(logits, None, record.view(np.uint8), token, tokens, chances)
    with pytest.raises(ShapeError, match="room for 1"):
        ops.draw(logits, None, record.view(np.uint8), token, tokens, chances)
    assert record["count"][0] == 1


def test_draw_refuses_shapes(rng):
    logits, how, one = floats(rng, 20), np.array([HOW], dtype=DRAW).view(np.uint8), np.zeros(1, np.int32)
    chance, many = np.zeros(1, np.float32), np.zeros(2, np.int32)
    raw = np.zeros(128, np.uint8)
    at = -raw.ctypes.data % 8
    wrong = [
        (how[:103], one, one, chance), (how, many, one, chance), (how, one, many, chance), (how, one, one, one),
        (how.view(DRAW), one, one, chance), (raw[at + 1 : at + 105], one, one, chance),
    ]  # fmt: skip
    for arguments in wrong:
        with pytest.raises(ShapeError):
            native.draw(logits, None, *arguments)


@MODULES
def test_copy_and_take_rows(rng, ops):
    x, both = floats(rng, 7, 5), empty(7, 10)
    ops.copy(x, both[:, 5:])
    assert np.array_equal(both[:, 5:], x) and np.isnan(both[:, :5]).all()
    ids = rng.integers(0, 1 << 31, (7, 3)).astype(np.int32)
    for rows in ([0, 6, 6, 2], [3], []):
        at = np.array(rows, np.int32)
        for array in (x, ids, x[:, 0].copy(), ids[:, 0].copy()):
            taken = ops.take_rows(array, at)
            assert np.array_equal(taken, array[at]) and taken.dtype == array.dtype
    for rows in ([7], [-1], [0, 2**31 - 1]):
        with pytest.raises(ShapeError):
            ops.take_rows(x, np.array(rows, np.int32))
    with pytest.raises(ShapeError):
        ops.copy(x, both)
