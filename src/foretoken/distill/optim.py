"""Muon for matrices and AdamW for the rest, weights in f32, and a schedule that follows the clock."""

from __future__ import annotations

import torch


@torch.no_grad()
def orthogonalise(g: torch.Tensor, steps: int = 4) -> torch.Tensor:
    """Newton-Schulz iteration of Muon on stacked matrices (N, rows, cols): nearest half-orthogonal, roughly."""
    tall = g.shape[1] > g.shape[2]
    x = g.transpose(1, 2) if tall else g
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.transpose(1, 2) if tall else x


class Muon:
    """Momentum, orthogonalised per matrix; matrices of one shape are stacked into one product."""

    def __init__(self, params: list[torch.Tensor], momentum: float = 0.95, dtype: torch.dtype = torch.float32):
        self.groups: dict[tuple, list[torch.Tensor]] = {}
        for p in params:
            self.groups.setdefault(tuple(p.shape), []).append(p)
        self.momentum, self.dtype = momentum, dtype  # of the iteration, which is rough anyway
        self.buffers = {shape: torch.zeros(len(ps), *shape) for shape, ps in self.groups.items()}

    @torch.no_grad()
    def step(self, lr: float) -> None:
        for shape, params in self.groups.items():
            g = torch.stack([p.grad for p in params if p.grad is not None])
            buffer = self.buffers[shape].mul_(self.momentum).add_(g)
            update = orthogonalise((g + self.momentum * buffer).to(self.dtype)).to(g.dtype)
            scale = lr * max(1.0, shape[0] / shape[1]) ** 0.5
            for p, u in zip(params, update, strict=True):
                p.add_(u, alpha=-scale)

    def state(self) -> dict:
        return self.buffers

    def load(self, state: dict) -> None:
        self.buffers = state


class Optimiser:
    """Muon on the named matrices, AdamW on groups with their own peak rates; `step(scale)` scales all rates."""

    def __init__(
        self,
        matrices: list[torch.Tensor],
        muon_lr: float,
        others: list[tuple[list[torch.Tensor], float]],
        dtype: torch.dtype = torch.float32,
    ):
        self.muon, self.muon_lr = Muon(matrices, dtype=dtype), muon_lr
        self.adam = torch.optim.AdamW(
            [{"params": ps, "lr": lr, "peak": lr} for ps, lr in others],
            betas=(0.9, 0.95),
            weight_decay=0.0,
            eps=1e-10,
            fused=True,
        )
        self.params = matrices + [p for ps, _ in others for p in ps]

    def step(self, scale: float) -> None:
        for group in self.adam.param_groups:
            group["lr"] = group["peak"] * scale
        self.muon.step(self.muon_lr * scale)
        self.adam.step()
        for p in self.params:
            p.grad = None

    def state(self) -> dict:
        return {"muon": self.muon.state(), "adam": self.adam.state_dict()}

    def load(self, state: dict) -> None:
        self.muon.load(state["muon"])
        self.adam.load_state_dict(state["adam"])


def schedule(progress: float, warm_up: float = 0.02, decay_from: float = 0.62, floor: float = 0.02) -> float:
    """Rate factor at a fraction of the time budget: warm-up, stable, linear decay to `floor`."""
    if progress < warm_up:
        return max(progress, 0.002) / warm_up
    if progress < decay_from:
        return 1.0
    return max(floor, 1 - (1 - floor) * (progress - decay_from) / (1 - decay_from))
