"""The matrices of a model's linear layers, with the same random numbers for every runtime that multiplies by them.

Numbers are whole codes times a scale per group of inputs, the grid that all of them share: 4 bits (code − 8) or 8 bits
(code − 128), scales f16. Two codes a byte, the even input in the low half. Embedding tables that are read by row, and
experts, are left out: other runtimes have other ops for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foretoken.bench.shapes import SHAPES, target_json
from foretoken.config import target_config
from foretoken.errors import InputError
from foretoken.ops import Packed, native
from foretoken.ops.arena import aligned
from foretoken.weights.gemma4 import plan

GROUP = 32  # inputs a scale covers in our formats
PACKED_ROWS = 4096  # of an 8-bit matrix that are floats at a time


@dataclass(frozen=True)
class Matrix:
    """(n, k) of one linear, in the model's own order; `index` seeds its numbers."""

    name: str
    index: int
    n: int
    k: int

    def numbers(self, bits: int, group: int) -> tuple[np.ndarray, np.ndarray]:
        """Codes (N, K·bits/8) uint8 as above, and scales (N, K/group) float16."""
        rng = np.random.default_rng(self.index)
        scales = rng.uniform(0.5, 1.5, (self.n, self.k // group)) * self.k**-0.5 * (0.2 if bits == 4 else 0.0125)
        codes = rng.integers(0, 256, (self.n, self.k * bits // 8), dtype=np.uint8)
        if bits == 8:  # the largest code is in every group, so that packing floats finds the same scale again
            np.maximum(codes, 1, out=codes)
            codes.reshape(-1, group)[:, 0] = 255
        return codes, scales.astype(np.float16)


def stack(shape: str, layers: int | None, group: int) -> tuple[list[Matrix], list[str]]:
    """The linears of a shape, the head last, and the names of those left out.

    layers  only so many of the first layers; None takes all. Head and per-layer projection are always in.
    group   inputs that a scale covers: a matrix whose inputs it does not divide is left out
    """
    if shape not in SHAPES:
        raise InputError(f"shape is {shape[:40]!r}, expected one of {', '.join(SHAPES)}.")
    if layers is not None and not 1 <= layers <= SHAPES[shape].num_layers:
        raise InputError(f"{layers} layers asked of shape {shape}, which has {SHAPES[shape].num_layers}.")
    wanted = None if layers is None else {f"{index}" for index in range(layers)}
    found, left_out = [], []
    for index, part in enumerate(plan(target_config(target_json(SHAPES[shape])))):
        path = part.name.split(".")
        if part.layout != "panels" or (path[0] == "layers" and wanted is not None and path[1] not in wanted):
            continue
        matrix = Matrix(part.name, index, *part.size)
        if "experts" in path or matrix.k % group:
            left_out.append(matrix.name)
        else:
            found.append(matrix)
    return sorted(found, key=lambda matrix: matrix.name == "embed"), left_out


def inputs(matrices: Sequence[Matrix], rows: int) -> dict[int, np.ndarray]:
    """K → (rows, K) float32, the same for every runtime."""
    return {
        width: np.random.default_rng(width).standard_normal((rows, width), dtype=np.float32)
        for width in sorted({matrix.k for matrix in matrices})
    }


def dequantised(codes: np.ndarray, scales: np.ndarray, bits: int) -> np.ndarray:
    """(rows, K) float32 of codes (rows, K·bits/8) and scales (rows, K/group)."""
    if bits == 4:
        codes = np.stack([codes & 15, codes >> 4], axis=-1)
    signed = codes.reshape(*scales.shape, -1).astype(np.float32) - (1 << (bits - 1))
    return (signed * scales[..., None].astype(np.float32)).reshape(len(scales), -1)


def packed(matrix: Matrix, bits: int) -> Packed:
    """The matrix in our own format of so many bits, exactly its numbers."""
    codes, scales = matrix.numbers(bits, GROUP)
    if bits == 4:
        return native.pack_q4_0(q4_0_blocks(codes, scales), "panels")
    parts = [
        native.pack(dequantised(codes[at : at + PACKED_ROWS], scales[at : at + PACKED_ROWS], bits), "q8", "panels").data
        for at in range(0, matrix.n, PACKED_ROWS)
    ]
    data = aligned(sum(part.nbytes for part in parts))
    np.concatenate(parts, out=data)
    return Packed("q8", "panels", matrix.n, matrix.k, data)


def q4_0_blocks(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """(N, K/32, 18) uint8 as GGUF stores them: scale f16, then byte j with input j below and input j + 16 above."""
    pairs = codes.reshape(*scales.shape, GROUP // 2)  # byte i: inputs 2i and 2i + 1
    first, second = pairs[..., :8], pairs[..., 8:]  # inputs 0 … 15 and 16 … 31
    blocks = np.empty((*scales.shape, 18), np.uint8)
    blocks[..., :2] = scales[..., None].view(np.uint8)
    blocks[..., 2::2] = first & 15 | second << 4
    blocks[..., 3::2] = first >> 4 | second & 0xF0
    return blocks
