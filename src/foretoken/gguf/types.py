"""The tensor types of GGUF that we read: bytes to float32, many blocks at a time.

A decoder takes blocks (n, bytes) uint8 and returns their values (n, values) float32, all arithmetic in float32 and in
the order of ggml's own `dequantize_row_*` (without fused operations). A scale that is NaN or infinite gives values
that are, which the packer refuses.
Source: the block structs of the ggml project; docs/formats.md says what becomes of each type.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

TYPES = {  # values and bytes of one block
    "F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "Q8_0": (32, 34), "Q4_0": (32, 18), "Q4_1": (32, 20),
    "Q5_0": (32, 22), "Q5_1": (32, 24), "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210),
    "I32": (1, 4), "I64": (1, 8),
}  # fmt: skip
NAMES = {  # by number; those not in TYPES are here for messages
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
}  # fmt: skip


def decode(dtype: str, raw: np.ndarray) -> np.ndarray:
    """Rows of stored bytes (N, bytes) uint8 -> values (N, K) float32, a new array."""
    size = TYPES[dtype][1]
    blocks = np.ascontiguousarray(raw).reshape(-1, size)
    with np.errstate(all="ignore"):
        return np.asarray(DECODERS[dtype](blocks), np.float32).reshape(len(raw), -1)


def as_q4_0(dtype: str, raw: np.ndarray) -> np.ndarray | None:
    """Rows as blocks of Q4_0, (N, blocks, 18) uint8, where they are just that; else None."""
    return raw.reshape(len(raw), -1, 18) if dtype == "Q4_0" else None


def as_q8_0(dtype: str, raw: np.ndarray) -> np.ndarray | None:
    """Rows as blocks of Q8_0, (N, blocks, 34) uint8, of the same values exactly; None where the type has no such."""
    if dtype not in CODES:
        return None
    blocks = np.ascontiguousarray(raw).reshape(-1, TYPES[dtype][1])
    codes = CODES[dtype](blocks).view(np.uint8)
    return np.concatenate([blocks[:, :2], codes], axis=1).reshape(len(raw), -1, 34)


def _half(blocks: np.ndarray, at: int) -> np.ndarray:
    """The f16 at a byte of each block, (n, 1) float32."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _nibbles(data: np.ndarray) -> np.ndarray:
    """(…, b) -> (…, 2b): the low halves of the bytes, then the high ones."""
    return np.concatenate([data & 15, data >> 4], axis=-1)


def _bits(data: np.ndarray) -> np.ndarray:
    """(n, b) -> (n, 8b): bits as bytes 0 and 16, the lowest of each byte first; the fifth bit of a weight."""
    return np.unpackbits(data, axis=1, bitorder="little") << np.uint8(4)


def _codes_q8_0(blocks: np.ndarray) -> np.ndarray:
    return blocks[:, 2:].view(np.int8)


def _codes_q4_0(blocks: np.ndarray) -> np.ndarray:
    return _nibbles(blocks[:, 2:]).view(np.int8) - np.int8(8)


def _codes_q5_0(blocks: np.ndarray) -> np.ndarray:
    return (_nibbles(blocks[:, 6:]) | _bits(blocks[:, 2:6])).view(np.int8) - np.int8(16)


CODES: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # whole numbers (n, 32) int8, times the scale in bytes 0, 1
    "Q8_0": _codes_q8_0,
    "Q4_0": _codes_q4_0,
    "Q5_0": _codes_q5_0,
}


def _scaled(dtype: str) -> Callable[[np.ndarray], np.ndarray]:
    return lambda blocks: _half(blocks, 0) * CODES[dtype](blocks)


def _q4_1(blocks: np.ndarray) -> np.ndarray:
    return _half(blocks, 0) * _nibbles(blocks[:, 4:]) + _half(blocks, 2)


def _q5_1(blocks: np.ndarray) -> np.ndarray:
    return _half(blocks, 0) * (_nibbles(blocks[:, 8:]) | _bits(blocks[:, 4:8])) + _half(blocks, 2)


def _k_scales(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset of the 8 parts of 32 of each block, (n, 8, 1) float32 both.

    12 bytes from byte 4 hold 8 scales s and 8 offsets m of 6 bits: bytes 0 … 3 have s0 … s3 and, in the two highest
    bits, those of s4 … s7; bytes 4 … 7 likewise of m; bytes 8 … 11 have the low halves of s4 … s7, m4 … m7 above.
    """
    first, second, third = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = np.concatenate([first & 63, third & 15 | first >> 6 << 4], axis=1)
    offsets = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], axis=1)
    return (_half(blocks, 0) * scales)[..., None], (_half(blocks, 2) * offsets)[..., None]


def _q4_k(blocks: np.ndarray) -> np.ndarray:
    scale, offset = _k_scales(blocks)
    codes = _nibbles(blocks[:, 16:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    return scale * codes - offset


def _q5_k(blocks: np.ndarray) -> np.ndarray:
    scale, offset = _k_scales(blocks)
    codes = _nibbles(blocks[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    fifth = blocks[:, 16:48].reshape(-1, 1, 32) >> np.arange(8, dtype=np.uint8)[:, None] & 1  # bit j belongs to part j
    return scale * (codes | fifth << 4) - offset


def _q6_k(blocks: np.ndarray) -> np.ndarray:
    low = _halves_of_64(blocks[:, :128].reshape(-1, 2, 64))
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> np.arange(0, 8, 2, dtype=np.uint8)[:, None] & 3
    codes = (low | high << 4).view(np.int8) - np.int8(32)
    scale = _half(blocks, 208) * blocks[:, 192:208].view(np.int8)  # (n, 16): one for 16 values
    return scale[..., None] * codes.reshape(-1, 16, 16)


def _halves_of_64(data: np.ndarray) -> np.ndarray:
    """(n, 2, 64) bytes -> (n, 2, 4, 32): low halves of bytes 0 … 31 and 32 … 63, then high halves likewise."""
    return _nibbles(data).reshape(len(data), 2, 4, 32)


DECODERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "F32": lambda blocks: blocks.view("<f4"),
    "F16": lambda blocks: blocks.view("<f2"),
    "BF16": lambda blocks: (blocks.view("<u2").astype(np.uint32) << 16).view(np.float32),
    **{dtype: _scaled(dtype) for dtype in CODES},
    "Q4_1": _q4_1,
    "Q5_1": _q5_1,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
