"""Least squares for weights that start as a fit."""

from __future__ import annotations

import torch

RIDGE = 1e-2


def regress(x: torch.Tensor, y: torch.Tensor, ridge: float = RIDGE) -> torch.Tensor:
    """W (out, in) with x Wᵀ near y; the ridge is a share of the inputs' mean square."""
    a = x.T @ x / len(x)
    a += ridge * a.diagonal().mean() * torch.eye(len(a))
    return torch.linalg.solve(a, x.T @ y / len(x)).T.contiguous()


def spectral(x: torch.Tensor, size: float) -> torch.Tensor:
    """Scaled to a largest singular value of `size`; norms after each projection make the scale itself immaterial."""
    return x * (size / torch.linalg.matrix_norm(x, 2))
