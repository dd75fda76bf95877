"""Weights that training begins with: a given assistant's, or new ones that start as the best linear guess.

New ones: the table is the target's own, in its main directions; `pre_projection` is fitted by least squares to the
target's next hidden row in the same directions, so the drafter begins as a linear model of it; layers start small.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from foretoken.config import DrafterConfig
from foretoken.distill.clusters import ordering
from foretoken.distill.linear_fit import regress
from foretoken.distill.model import CENTROIDS, HEAD_IDS, ORDERING, TABLE, Weights
from foretoken.distill.records import Records
from foretoken.models.gemma4 import Gemma4
from foretoken.weights.safetensors import Checkpoint

ROWS = 40_000  # rows of the least squares, at most
SMALL = 0.1  # norm weights after blocks that know nothing yet


def given(folder: Path) -> Weights:
    """All tensors of an assistant's folder, whose config and shapes were checked: f32, ids int64."""
    checkpoint = Checkpoint(folder)
    return {
        name: torch.from_numpy(
            checkpoint.read_ids(name) if entry.dtype == "I64" else checkpoint.read(name).reshape(entry.shape)
        )
        for name, entry in checkpoint.entries.items()
        if name != "lm_head.weight"
    }


def head_ids(config: DrafterConfig, counts: Counter[int]) -> np.ndarray:
    """The tokens that the head knows (H,) int64, ascending: the most frequent ones, then the lowest ids."""
    order = sorted(range(config.vocab_len), key=lambda token: (-counts[token], token))
    return np.sort(np.array(order[: config.head_vocab_len], np.int64))


def new(config: DrafterConfig, target: Gemma4, records: Records, counts: Counter[int], seed: int) -> Weights:
    """Fresh weights for a target, from records of it."""
    generator = torch.Generator().manual_seed(seed)
    ids = head_ids(config, counts)
    table = torch.from_numpy(target.embed(ids.astype(np.int32)) / np.float32(target.weights.embed_scale))
    basis = _directions(table, config.hidden_len)
    embedded, before, after = rows(target, records)
    scale = (after @ basis.T).square().mean().sqrt()
    w = {
        TABLE: table @ basis.T,
        "model.norm.weight": torch.full((config.hidden_len,), float(scale)),
        "pre_projection.weight": basis @ regress(torch.cat([embedded, before], 1), after),
        "post_projection.weight": basis.T.contiguous(),
    }
    for i, layer in enumerate(config.layers):
        donor = target.weights.layers[target.config.donor[layer.kind]]
        w |= _layer(f"model.layers.{i}.", config.hidden_len, layer.num_heads * layer.head_len, layer.mlp_len, generator)
        w[f"model.layers.{i}.self_attn.q_norm.weight"] = torch.from_numpy(donor.q_norm.copy())
    if config.num_clusters:
        order = torch.from_numpy(ordering(w[TABLE].numpy(), config.num_clusters, seed))
        w[ORDERING] = order
        w[CENTROIDS] = w[TABLE][order].view(config.num_clusters, -1, config.hidden_len).mean(1)
    if config.head_vocab_len < config.vocab_len:
        w[HEAD_IDS] = torch.from_numpy(ids)
    return w


def _layer(p: str, width: int, q_len: int, mlp: int, generator: torch.Generator) -> Weights:
    shapes = {
        "self_attn.q_proj": (q_len, width),
        "self_attn.o_proj": (width, q_len),
        "mlp.gate_proj": (mlp, width),
        "mlp.up_proj": (mlp, width),
        "mlp.down_proj": (width, mlp),
    }
    w = {
        f"{p}{name}.weight": torch.randn(shape, generator=generator) * 0.7 / math.sqrt(shape[1])
        for name, shape in shapes.items()
    }
    for name, value in (
        ("input_layernorm", 1.0),
        ("post_attention_layernorm", SMALL),
        ("pre_feedforward_layernorm", 1.0),
        ("post_feedforward_layernorm", SMALL),
    ):
        w[f"{p}{name}.weight"] = torch.full((width,), value)
    w[f"{p}layer_scalar"] = torch.ones(1)
    return w


def _directions(table: torch.Tensor, count: int) -> torch.Tensor:
    """The main directions of the table's rows (count, D), orthonormal."""
    centred = table - table.mean(0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    return vectors.flip(1).T[:count].contiguous()


def rows(target: Gemma4, records: Records) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What a first step reads, embedding and hidden row, and the target's next row; (N, D) each, of training texts."""
    embedded, before, after, left = [], [], [], ROWS
    for index, text in enumerate(records.texts):
        if text.is_held_out or left <= 0:
            continue
        first, end = int(records.first[index]), int(records.first[index + 1])
        start = max(text.start, 1)
        embedded.append(target.embed(np.array(text.ids[start:], np.int32)))
        before.append(records.hidden[first + start - 1 : end - 1])
        after.append(records.hidden[first + start : end])
        left -= end - first - start
    a, b, c = (torch.from_numpy(np.concatenate(x)) for x in (embedded, before, after))
    return a, b, c
