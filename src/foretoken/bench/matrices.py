"""Every packed matrix of a model by name, found by walking its weights; what a pass reads and multiplies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from foretoken.ops import Packed


def matrices(weights: Any, name: str = "") -> Iterator[tuple[str, Packed]]:
    """(dotted name, matrix) of `TargetWeights` or `DrafterWeights`, in the order of their fields."""
    if isinstance(weights, Packed):
        yield name, weights
    elif isinstance(weights, tuple):
        for index, layer in enumerate(weights):
            yield from matrices(layer, f"{name}.{index}")
    elif is_dataclass(weights):
        for own in fields(weights):
            yield from matrices(weights.__dict__[own.name], f"{name}.{own.name}".lstrip("."))
