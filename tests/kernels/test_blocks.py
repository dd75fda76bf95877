"""Blocks of Q8_0 taken as they are: in both layouts the values that the file holds, bit for bit."""

import numpy as np
import pytest

from foretoken.errors import ShapeError, WeightsError
from foretoken.ops import native, reference


def random_blocks(rows, count, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(-127, 128, (rows, count, 32)).astype(np.int8).view(np.uint8)
    scales = rng.normal(0, 0.1, (rows, count, 1)).astype(np.float16).view(np.uint8)
    return np.concatenate([scales, codes], axis=-1)


def values(blocks):
    scale = np.ascontiguousarray(blocks[..., :2]).view(np.float16).astype(np.float32)
    return (blocks[..., 2:].view(np.int8) * scale).reshape(len(blocks), -1)


@pytest.mark.parametrize("layout", ["panels", "rows"])
@pytest.mark.parametrize("rows", [1, 15, 16, 17, 48])
def test_the_values_are_those_of_the_blocks(rows, layout):
    blocks = random_blocks(rows, 3)
    weight = native.pack_q8_0(blocks, layout)
    assert (weight.format, weight.layout, weight.n, weight.k) == ("q8", layout, rows, 96)
    assert weight.data.ctypes.data % 64 == 0
    for ops in (native, reference):
        assert np.array_equal(ops.unpack(weight), values(blocks))


@pytest.mark.parametrize("layout", ["panels", "rows"])
def test_the_bytes_are_those_that_pack_makes_of_the_same_values(layout):
    """Where the grid is the same: a block whose largest code is 127 gets its own scale again."""
    blocks = random_blocks(21, 2)
    blocks[..., 2] = 127
    blocks[..., :2] = np.array([0.125], np.float16).view(np.uint8)
    made = native.pack(values(blocks), "q8", layout)
    assert np.array_equal(native.pack_q8_0(blocks, layout).data, made.data)


def test_what_the_grid_cannot_hold():
    blocks = random_blocks(16, 1)
    blocks[3, 0, 9] = 0x80
    with pytest.raises(WeightsError, match="-128"):
        native.pack_q8_0(blocks, "panels")
    blocks = random_blocks(16, 1)
    blocks[3, 0, :2] = np.array([np.nan], np.float16).view(np.uint8)
    with pytest.raises(WeightsError, match="NaN"):
        native.pack_q8_0(blocks, "rows")
    with pytest.raises(ShapeError, match="34"):
        native.pack_q8_0(blocks[..., :33], "rows")
    with pytest.raises(ShapeError, match="layout"):
        native.pack_q8_0(blocks, "columns")
