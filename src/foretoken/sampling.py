"""From a row of logits to a token: a pure function of (logits, parameters, seed, position).

Because the noise is keyed by position, a draft is accepted iff it equals the token drawn here, and that token is what
is emitted (numerics.md, «From logits to a token»). There is no generator state to rewind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from foretoken.errors import InputError

SEED_LIMIT = 1 << 64


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen. temperature < 1e-5 takes the largest logit; top_k 0, top_p 1, min_p 0 are off."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        _between("temperature", self.temperature, 0.0, 100.0)
        _between("top_p", self.top_p, 0.0, 1.0)
        _between("min_p", self.min_p, 0.0, 1.0)
        if self.top_p == 0.0:
            raise InputError(
                "top_p is 0, expected a value above 0 and at most 1. Use temperature 0 for the likeliest token."
            )
        whole("top_k", self.top_k, 0, 1 << 31)
        whole("seed", self.seed, 0, SEED_LIMIT)

    @property
    def is_greedy(self) -> bool:
        """True where the largest logit is taken and the seed plays no part."""
        return self.temperature < 1e-5


@dataclass(frozen=True)
class Sampler:
    """Draws tokens by one `Sampling` with one set of ops."""

    sampling: Sampling
    ops: Any

    def token(self, logits: np.ndarray, position: int, ids: np.ndarray | None = None) -> int:
        """The token at absolute `position`.

        logits  (n,) float32;  ids (n,) int32, the token ids of its entries, or None when n is the vocabulary.
        The drafter calls it with its few candidates: the same noise makes its guess agree more often.
        """
        s = self.sampling
        return int(self.ops.sample_row(logits, ids, s.temperature, s.top_k, s.top_p, s.min_p, s.seed, position))


def _between(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{name} is {value!r}, expected a number from {low:g} to {high:g}.")
    if not low <= value <= high:
        raise InputError(f"{name} is {value:g}, expected {low:g} to {high:g}.")


def whole(name: str, value: Any, low: int, limit: int) -> int:
    """`value` when it is a whole number in low … limit − 1; else InputError that names it."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value < limit:
        raise InputError(f"{name} is {value!r}, expected a whole number from {low} to {limit - 1}.")
    return value
