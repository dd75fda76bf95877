"""What makes torch's training steps faster on a processor, found by looking at the machine."""

from __future__ import annotations

import ctypes
import time
from typing import Any

import torch

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of mallopt, from glibc's malloc.h
NEAR = 16  # rows of scores that stay in the caches
WIDTH, TRIES = 512, 5  # of the products that are timed
PRODUCTS = (torch.float32, torch.bfloat16)
ENOUGH = 1.5  # times as fast, or bf16 isn't worth its rounding


class LogSoftmaxAt(torch.autograd.Function):
    """scores (N, H) of any float dtype, rows (N, L) -> log-probabilities (N, L) float32 of these rows.

    With a large head whatever touches every score takes longest: here that is two passes, a few rows at a time.
    """

    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        norms = torch.cat([part.float().logsumexp(1, keepdim=True) for part in scores.split(NEAR)])
        ctx.save_for_backward(scores, rows, norms)
        return scores.gather(1, rows).float() - norms

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        scores, rows, norms = ctx.saved_tensors
        found = torch.empty_like(scores)
        for parts in zip(*(x.split(NEAR) for x in (found, scores, rows, norms, gradient)), strict=True):
            out, own, at, norm, slope = parts
            dense = (own - norm).exp_().mul_(-slope.sum(1, keepdim=True))
            out.copy_(dense.scatter_add_(1, at, slope))
        return found, None


def keep_memory() -> None:
    """Freed memory stays with the process: with glibc each large tensor is otherwise mapped and zeroed anew."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return  # another libc
    mallopt(MMAP_MAX, 0)
    mallopt(TRIM_THRESHOLD, 2**31 - 1)


def product_dtype() -> torch.dtype:
    """The dtype of matrix products while training: bf16 where this processor multiplies it faster, else f32."""
    seconds = {dtype: _seconds(torch.ones(WIDTH, WIDTH, dtype=dtype)) for dtype in PRODUCTS}
    return torch.bfloat16 if seconds[torch.bfloat16] * ENOUGH < seconds[torch.float32] else torch.float32


def _seconds(x: torch.Tensor) -> float:
    """Least time of a product."""
    found = []
    for _ in range(TRIES):
        begun = time.perf_counter()
        x @ x
        found.append(time.perf_counter() - begun)
    return min(found)
