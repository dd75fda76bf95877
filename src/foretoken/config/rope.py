"""Rotary frequencies of each kind of layer (specification 2.5; transformers 5.24, rope utilities)."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, localcontext

import numpy as np

from foretoken.config.layers import KINDS, LayerConfig
from foretoken.config.reader import Reader
from foretoken.errors import ConfigError


def ropes(table: Reader, layers: Sequence[LayerConfig]) -> dict[str, np.ndarray]:
    """Inverse frequencies per kind, from parameters per kind; layers of one kind must have one head width."""
    found = {}
    for long_name, kind in KINDS.items():
        widths = sorted({layer.head_len for layer in layers if layer.kind == kind})
        if len(widths) > 1:
            raise ConfigError(f"{kind} layers have head widths {widths}, expected one.")
        if widths:
            found[kind] = _inv_freq(table.part(long_name), widths[0])
    return found


def _inv_freq(read: Reader, head_len: int) -> np.ndarray:
    """(R,) float32: theta^(−2i/Dh) ÷ factor of the rotated pairs (i, i + Dh/2), i < R.

    "default" and "linear" rotate all Dh/2 pairs; "proportional" the first share of them, with the whole head width
    in the exponent (specification 2.5). Decimal arithmetic, because the C library's power differs between machines.
    """
    if head_len % 2:
        raise ConfigError(f"head width {head_len} is odd, expected an even one: rotary pairs need it.")
    unknown = read.unknown({"rope_type", "rope_theta", "partial_rotary_factor", "factor"})
    if unknown:
        raise ConfigError(f"{unknown[0]} in the config is not known; it may change every position.")
    theta, num_pairs, factor = read.number("rope_theta", low=1.0), head_len // 2, 1.0
    if read.get("rope_type") == "proportional":
        share = read.number("partial_rotary_factor", 1.0, high=1.0)
        num_pairs = int(share * head_len // 2)
        if not num_pairs:
            read.refuse("partial_rotary_factor", f"enough to rotate a pair of a head of width {head_len}")
        factor = read.number("factor", 1.0, low=1.0)
    elif read.get("rope_type") == "default":
        read.exactly("partial_rotary_factor", 1.0)
        read.exactly("factor", 1.0)
    elif read.get("rope_type") == "linear":
        read.exactly("partial_rotary_factor", 1.0)
        factor = read.number("factor", low=1.0)
    else:
        read.refuse("rope_type", "default, linear or proportional")
    with localcontext() as context:
        context.prec = 40
        values = [Decimal(theta) ** (Decimal(-2 * i) / head_len) / Decimal(factor) for i in range(num_pairs)]
    return np.array([float(value) for value in values], dtype=np.float32)
