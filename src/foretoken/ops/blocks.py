"""Blocks of a GGUF file that are ours already, for native and reference alike: bytes move, as in docs/formats.md."""

from __future__ import annotations

import numpy as np

from foretoken.errors import ShapeError, WeightsError
from foretoken.ops import Packed
from foretoken.ops.arena import aligned

PANEL, SIZE = 16, 34


def pack_q8_0(blocks: np.ndarray, layout: str) -> Packed:
    if blocks.ndim != 3 or blocks.dtype != np.uint8 or not blocks.size or blocks.shape[2] != SIZE:
        raise ShapeError(f"blocks: expected uint8 (N, K/32, {SIZE}), got {blocks.dtype} {blocks.shape}")
    if layout not in ("panels", "rows"):
        raise ShapeError(f"unknown layout {layout}")
    n, count, _ = blocks.shape
    scale = np.ascontiguousarray(blocks[..., :2]).view(np.float16)[..., 0]  # (N, count)
    if not np.isfinite(scale).all():
        raise WeightsError("a scale of a Q8_0 block is NaN or infinite: the file is damaged")
    if (blocks[..., 2:] == 0x80).any():  # the grid stops at -127, and kernels count on it
        raise WeightsError("a block of Q8_0 holds -128, which format q8 cannot; use format bf16")
    if layout == "rows":
        data = aligned(blocks.size)
        data[:] = blocks.reshape(-1)
        return Packed("q8", layout, n, count * 32, data)
    panels = -(-n // PANEL)
    data = aligned(panels * count * SIZE * PANEL)
    view = data.reshape(panels, count, SIZE * PANEL)
    codes = view[..., : 32 * PANEL].reshape(panels, count, 8, PANEL, 4)  # group, output, four weights
    scales = view[..., 32 * PANEL :].view(np.float16)  # (panels, count, 16)
    full = n // PANEL
    whole = blocks[: full * PANEL].reshape(full, PANEL, count, SIZE)
    codes[:full] = whole[..., 2:].reshape(full, PANEL, count, 8, 4).transpose(0, 2, 3, 1, 4) ^ 0x80
    scales[:full] = scale[: full * PANEL].reshape(full, PANEL, count).swapaxes(1, 2)
    if full < panels:  # missing outputs have scale 0 and bytes 128
        codes[full], scales[full] = 0x80, 0
        rest = blocks[full * PANEL :, :, 2:].reshape(-1, count, 8, 4)
        codes[full, :, :, : len(rest)] = rest.transpose(1, 2, 0, 3) ^ 0x80
        scales[full, :, : len(rest)] = scale[full * PANEL :].T
    return Packed("q8", layout, n, count * 32, data)
