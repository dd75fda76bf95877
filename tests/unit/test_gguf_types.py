"""Every tensor type of GGUF against a slow decoder, one weight at a time, written from the block structs of ggml."""

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from foretoken.gguf.types import NAMES, TYPES, as_q4_0, as_q8_0, decode

f32 = np.float32
BLOCKS = [name for name in TYPES if name not in ("I32", "I64")]


def half(block, at):
    return f32(np.frombuffer(bytes(block[at : at + 2]), np.float16)[0])


def signed(byte):
    return byte - 256 if byte > 127 else byte


def q4_0(b):
    d = half(b, 0)
    return [d * f32((b[2 + i] & 15) - 8) for i in range(16)] + [d * f32((b[2 + i] >> 4) - 8) for i in range(16)]


def q4_1(b):
    d, m = half(b, 0), half(b, 2)
    return [d * f32(b[4 + i] & 15) + m for i in range(16)] + [d * f32(b[4 + i] >> 4) + m for i in range(16)]


def fifth(b, at, i):
    return int.from_bytes(bytes(b[at : at + 4]), "little") >> i & 1


def q5_0(b):
    d = half(b, 0)
    low = [d * f32((b[6 + i] & 15 | fifth(b, 2, i) << 4) - 16) for i in range(16)]
    return low + [d * f32((b[6 + i] >> 4 | fifth(b, 2, i + 16) << 4) - 16) for i in range(16)]


def q5_1(b):
    d, m = half(b, 0), half(b, 2)
    low = [d * f32(b[8 + i] & 15 | fifth(b, 4, i) << 4) + m for i in range(16)]
    return low + [d * f32(b[8 + i] >> 4 | fifth(b, 4, i + 16) << 4) + m for i in range(16)]


def q8_0(b):
    return [half(b, 0) * f32(signed(b[2 + i])) for i in range(32)]


def scale_and_min(b, j):
    """get_scale_min_k4 over the 12 bytes from byte 4."""
    q = b[4:16]
    if j < 4:
        return q[j] & 63, q[j + 4] & 63
    return q[j + 4] & 15 | q[j - 4] >> 6 << 4, q[j + 4] >> 4 | q[j] >> 6 << 4


def k_part(b, j, codes):
    scale, offset = scale_and_min(b, j)
    d, m = half(b, 0) * f32(scale), half(b, 2) * f32(offset)
    return [d * f32(code) - m for code in codes]


def q4_k(b):
    found = []
    for j in range(0, 8, 2):
        data = b[16 + 16 * j : 16 + 16 * j + 32]
        found += k_part(b, j, [x & 15 for x in data]) + k_part(b, j + 1, [x >> 4 for x in data])
    return found


def q5_k(b):
    found, high = [], b[16:48]
    for j in range(0, 8, 2):
        data = b[48 + 16 * j : 48 + 16 * j + 32]
        found += k_part(b, j, [(x & 15) + (16 if high[i] >> j & 1 else 0) for i, x in enumerate(data)])
        found += k_part(b, j + 1, [(x >> 4) + (16 if high[i] >> (j + 1) & 1 else 0) for i, x in enumerate(data)])
    return found


def q6_k(b):
    d, found = half(b, 208), [None] * 256
    for n in (0, 1):
        ql, qh, sc = b[64 * n : 64 * n + 64], b[128 + 32 * n : 160 + 32 * n], b[192 + 8 * n : 200 + 8 * n]
        for i in range(32):
            codes = (
                ql[i] & 15 | (qh[i] & 3) << 4,
                ql[i + 32] & 15 | (qh[i] >> 2 & 3) << 4,
                ql[i] >> 4 | (qh[i] >> 4 & 3) << 4,
                ql[i + 32] >> 4 | (qh[i] >> 6 & 3) << 4,
            )
            for part, code in enumerate(codes):
                scale = f32(signed(sc[i // 16 + 2 * part]))
                found[128 * n + 32 * part + i] = d * scale * f32(code - 32)
    return found


SLOW = {
    "F32": lambda b: [np.frombuffer(bytes(b), np.float32)[0]],
    "F16": lambda b: [half(b, 0)],
    "BF16": lambda b: [np.frombuffer(b"\0\0" + bytes(b), np.float32)[0]],
    "Q4_0": q4_0, "Q4_1": q4_1, "Q5_0": q5_0, "Q5_1": q5_1, "Q8_0": q8_0, "Q4_K": q4_k, "Q5_K": q5_k, "Q6_K": q6_k,
}  # fmt: skip
SCALES_AT = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "F32": (), "BF16": ()}


def random_rows(name, rows, blocks, seed=0):
    """(rows, bytes) of random blocks with finite scales of both signs."""
    rng = np.random.default_rng(seed)
    size = TYPES[name][1]
    raw = rng.integers(0, 256, (rows * blocks, size), np.uint8)
    for at in SCALES_AT.get(name, (0,)):
        raw[:, at : at + 2] = rng.normal(0, 0.1, (rows * blocks, 1)).astype(np.float16).view(np.uint8)
    if name in ("F32", "BF16"):
        raw[:, -1] &= 0xBF  # below 2: no infinity, no NaN
    return raw.reshape(rows, blocks * size)


@pytest.mark.parametrize("name", BLOCKS)
def test_each_type_against_one_weight_at_a_time(name):
    raw = random_rows(name, 5, 3)
    blocks = raw.reshape(-1, TYPES[name][1]).tolist()
    expected = np.array([SLOW[name](block) for block in blocks], np.float32).reshape(5, -1)
    assert np.array_equal(decode(name, raw).view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("name", BLOCKS)
def test_each_type_against_the_package(name):
    raw = random_rows(name, 7, 2, seed=1)
    expected = gguf.quants.dequantize(raw, Type[name])
    assert np.array_equal(decode(name, raw), expected)


def test_numbers_and_sizes_are_those_of_the_package():
    for number, name in NAMES.items():
        assert Type(number).name == name
    for name, size in TYPES.items():
        assert gguf.constants.GGML_QUANT_SIZES[Type[name]] == size


@pytest.mark.parametrize("name", ["Q8_0", "Q5_0", "Q4_0"])
def test_what_becomes_q8_without_loss(name):
    raw = random_rows(name, 6, 4)
    found = as_q8_0(name, raw)
    assert found.shape == (6, 4, 34)
    assert np.array_equal(decode("Q8_0", found.reshape(6, -1)), decode(name, raw))


def test_what_is_not_in_our_grids():
    assert as_q4_0("Q4_0", random_rows("Q4_0", 2, 1)).shape == (2, 1, 18)
    for name in BLOCKS:
        raw = random_rows(name, 2, 1)
        assert (as_q4_0(name, raw) is None) == (name != "Q4_0")
        assert (as_q8_0(name, raw) is None) == (name not in ("Q8_0", "Q5_0", "Q4_0"))


def test_a_damaged_scale_is_quiet_here_and_not_finite():
    raw = random_rows("Q6_K", 1, 1)
    raw[:, 208:210] = np.array([np.inf], np.float16).view(np.uint8)
    with np.errstate(all="raise"):
        assert not np.isfinite(decode("Q6_K", raw)).all()
