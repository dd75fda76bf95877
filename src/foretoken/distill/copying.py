"""A last layer that copies, by least squares: found at once where the target's donor has what copying needs.

Where the newest token stood before, the key one place later tells its neighbour, and that place's value the token to be
copied: queries are fitted to such keys, the output to the table rows of such values. Whether it helps is measured.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from foretoken.config import DrafterConfig
from foretoken.distill.linear_fit import regress, spectral
from foretoken.distill.model import Weights, rms, rotate, rotations
from foretoken.distill.records import Records
from foretoken.models.gemma4 import Gemma4

PLACES = 20_000  # places to copy from, at most
FEWEST = 256  # with fewer no fit is tried
MARGIN = 10.0  # of the right key's score over the mean of the others: e^10 beats some thousand keys
NOISE = 0.02  # of one head against another, relative to queries of size 1
STRENGTH = 0.35  # weight of the norm after the layer's attention


def places(ids: list[int], start: int) -> Iterator[tuple[int, int]]:
    """(b, j): newest token at b, and j after its last earlier place, where the token after b stands too."""
    last: dict[int, int] = {}
    for b in range(1, len(ids) - 1):
        last[ids[b - 1]] = b - 1
        if b >= start and ids[b] in last:
            j = last[ids[b]] + 1
            if j < b and ids[j] == ids[b + 1]:
                yield b, j


@torch.no_grad()
def with_copying(w: Weights, config: DrafterConfig, target: Gemma4, records: Records, seed: int) -> Weights | None:
    """The weights with a last layer that copies; None where the records have too few places to learn it from."""
    index, layer = len(config.layers) - 1, config.layers[-1]
    p = f"model.layers.{index}."
    embedded, hidden, keys, values, others, rows = _gather(config, target, records)
    if len(embedded) < FEWEST:
        return None
    h = torch.cat([embedded, hidden], 1) @ w["pre_projection.weight"].T
    x = rms(h, w[p + "input_layernorm.weight"], config.eps)
    basis = w["post_projection.weight"].T  # (Dd, D)
    w = {name: value.clone() for name, value in w.items()}
    group, dim = layer.num_heads // layer.num_kv_heads, layer.head_len
    generator, margins = torch.Generator().manual_seed(seed), []
    for head in range(layer.num_heads):
        own = head // group
        wanted = keys[:, own] - others[:, own]
        wq = regress(x, wanted)
        wq = wq * (dim**0.5 / (x @ wq.T).norm(dim=1).mean())
        q = x @ wq.T
        q = q / q.square().mean(1, keepdim=True).add(config.eps).sqrt()
        margins.append(float((q * wanted).sum(1).mean()))
        part = slice(head * dim, (head + 1) * dim)
        noise = torch.randn(wq.shape, generator=generator) * NOISE / wq.shape[1] ** 0.5
        w[p + "self_attn.q_proj.weight"][part] = wq + noise
        out = regress(values[:, own], rows - rows.mean(0))
        w[p + "self_attn.o_proj.weight"][:, part] = spectral(basis @ out, 1.0)
    margin = sum(margins) / len(margins)
    if margin <= 0:
        return None
    w[p + "self_attn.q_norm.weight"] = torch.full((dim,), MARGIN / margin)
    w[p + "post_attention_layernorm.weight"].fill_(STRENGTH)
    return w


def _gather(config: DrafterConfig, target: Gemma4, records: Records) -> tuple[torch.Tensor, ...]:
    """At places to copy: embedding and hidden row (N, D); key (rotated back) and value there, mean of all keys
    (N, Hkv, Dh); the target's table row of the token that stands there (N, D)."""
    kind = config.layers[-1].kind
    found: list[tuple[np.ndarray, ...]] = []
    left, scale = PLACES, np.float32(target.weights.embed_scale)
    for index, text in enumerate(records.texts):
        is_out = text.is_held_out or text.is_given or left <= 0
        pairs = [] if is_out else list(places(text.ids, max(text.start, 1)))
        if not pairs:
            continue
        b, j = np.array(pairs).T
        first, ids = int(records.first[index]), np.array(text.ids, np.int32)
        keys = _rotated_back(config, kind, records.keys[kind][first : first + len(ids)])
        mean = np.cumsum(keys, 0)[b - 1] / b[:, None, None].astype(np.float32)
        values = records.values[kind][first + j].astype(np.float32)
        rows = target.embed(ids[j]) / scale
        found.append((target.embed(ids[b]), records.hidden[first + b - 1], keys[j], values, mean, rows))
        left -= len(b)
    if not found:
        return (torch.zeros(0, 1),) * 6
    return tuple(torch.from_numpy(np.concatenate(parts)) for parts in zip(*found, strict=True))


def _rotated_back(config: DrafterConfig, kind: str, keys: np.ndarray) -> np.ndarray:
    """Keys (T, Hkv, Dh) of positions 0 … T − 1 as they were before rotation."""
    cos, sin = rotations(config, torch.arange(len(keys))[None])[kind]
    return rotate(torch.from_numpy(keys.astype(np.float32))[None], (cos, -sin))[0].numpy()
