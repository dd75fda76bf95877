"""Weights rounded to a deployed block format inside a training step, gradients passed straight through."""

from __future__ import annotations

import torch


def round_q8(w: torch.Tensor) -> torch.Tensor:
    """Blocks of 32 along the input axis; scale = f16(largest magnitude / 127); ties to even."""
    b = w.reshape(-1, 32)
    scale = (b.abs().amax(1, keepdim=True) / 127).half().float().clamp_min(1e-12)
    return (torch.round(b / scale).clamp(-127, 127) * scale).reshape(w.shape)


def round_q4(w: torch.Tensor) -> torch.Tensor:
    """Q4_0: scale = f16(value of largest magnitude, with its sign / -8), codes 0..15 with zero at 8."""
    b = w.reshape(-1, 32)
    top = b.gather(1, b.abs().argmax(1, keepdim=True))
    scale = (top / -8).half().float()
    scale = torch.where(scale == 0, torch.full_like(scale, 1e-12), scale)
    return ((torch.round(b / scale) + 8).clamp(0, 15) - 8).mul(scale).reshape(w.shape)


ROUND = {"none": lambda w: w, "q8": round_q8, "q4": round_q4}


def rounded(w: dict[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    """Every matrix rounded, where its width allows it; the others as they are."""
    if kind == "none":
        return w
    return {
        n: x + (ROUND[kind](x.detach()) - x.detach()) if x.dim() == 2 and x.shape[1] % 32 == 0 else x
        for n, x in w.items()
    }
