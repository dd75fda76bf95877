"""Names and shapes of Gemma 4's tensors: one table for target and drafter, and what each becomes in memory.

`plan` lists every part of a model, from which tensors it is made and in which layout; `problems` compares the plan
with the files and lists all mismatches at once, before memory is taken; `assemble_*` turns named parts into weights.
Source: specification 5.1 and 5.2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from foretoken.config import DrafterConfig, LayerConfig, TargetConfig
from foretoken.weights.safetensors import Checkpoint, shown

# Other modalities, and tensors that transformers drops as well: never read, and no mismatch.
SKIPPED = re.compile(
    r"(model\.)?(vision_tower|audio_tower|embed_vision|embed_audio|vision_embedder)\..*"
    r"|.*rotary_emb\.\w*inv_freq|lm_head\.weight"
)
ORDERING = "masked_embedding.token_ordering"  # row (cluster, member) to token id
LAYER_NORMS = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
FLOATS = ("F32", "BF16", "F16")
MAPPED_VALUES = 64 << 20


@dataclass(frozen=True)
class Part:
    """One thing in memory: `name`, the tensors stacked into it by rows, their shapes, and how it is kept.

    layout  "panels" or "rows": packed;  "array": float32 as it is;  "ids": int32
    order   the tensor of ids in whose order the rows are taken, or None
    """

    name: str
    tensors: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    layout: str
    order: str | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(N, K) of the stacked matrix."""
        return sum(shape[0] for shape in self.shapes), self.shapes[0][1]

    @property
    def is_mapped(self) -> bool:
        """Read by row, and too large to be worth memory: kept on disk and mapped."""
        return self.layout == "rows" and math.prod(self.size) >= MAPPED_VALUES


@dataclass(frozen=True)
class LayerWeights:
    """One layer. Norms are float32 vectors, matrices `ops.Packed`; None where a layer has no such part."""

    input_norm: np.ndarray
    post_attention_norm: np.ndarray
    pre_feedforward_norm: np.ndarray
    post_feedforward_norm: np.ndarray
    q_norm: np.ndarray
    k_norm: np.ndarray | None
    qkv: Any  # q rows, then k, then v; q only in a shared layer
    o: Any
    gate_up: Any  # gate rows, then up
    down: Any
    layer_scalar: float
    per_layer_gate: Any = None
    per_layer_projection: Any = None
    post_per_layer_norm: np.ndarray | None = None


@dataclass(frozen=True)
class TargetWeights:
    """A target. `embed` is head and token embedding at once; `embed_scale` the root of its width as stored."""

    embed: Any
    embed_scale: float
    norm: np.ndarray
    layers: tuple[LayerWeights, ...]
    per_layer_table: Any = None
    per_layer_model_projection: Any = None
    per_layer_norm: np.ndarray | None = None


@dataclass(frozen=True)
class DrafterWeights:
    """A drafter. With clusters the head's rows are in cluster order and `token_ids` (V,) maps row to token id."""

    pre_projection: Any
    post_projection: Any
    head: Any
    norm: np.ndarray
    layers: tuple[LayerWeights, ...]
    centroids: Any = None
    token_ids: np.ndarray | None = None


def plan(config: TargetConfig | DrafterConfig) -> list[Part]:
    """Every part of a model, in the order of packing."""
    return _target_plan(config) if isinstance(config, TargetConfig) else _drafter_plan(config)


def _target_plan(config: TargetConfig) -> list[Part]:
    prefix = "model.language_model." if config.model_type == "gemma4" else "model."
    width, per_layer = config.hidden_len, config.per_layer_len
    parts = [
        _matrix("embed", (prefix + "embed_tokens.weight", config.vocab_len, width)),
        _vector("norm", prefix + "norm.weight", width),
    ]
    if per_layer:
        all_layers = per_layer * len(config.layers)
        table = prefix + "embed_tokens_per_layer.weight"
        parts += [
            Part("per_layer_table", (table,), ((config.vocab_len, all_layers),), "rows"),
            _matrix("per_layer_model_projection", (prefix + "per_layer_model_projection.weight", all_layers, width)),
            _vector("per_layer_norm", prefix + "per_layer_projection_norm.weight", per_layer),
        ]
    for index, layer in enumerate(config.layers):
        own, name = f"{prefix}layers.{index}.", f"layers.{index}."
        parts += _layer_plan(name, own, layer, width)
        if per_layer:
            parts += [
                _matrix(name + "per_layer_gate", (own + "per_layer_input_gate.weight", per_layer, width)),
                _matrix(name + "per_layer_projection", (own + "per_layer_projection.weight", width, per_layer)),
                _vector(name + "post_per_layer_norm", own + "post_per_layer_input_norm.weight", width),
            ]
    return parts


def _drafter_plan(config: DrafterConfig) -> list[Part]:
    width, backbone, clusters = config.hidden_len, config.backbone_len, config.num_clusters
    parts = [
        _matrix("pre_projection", ("pre_projection.weight", width, 2 * backbone)),
        _matrix("post_projection", ("post_projection.weight", backbone, width)),
        _vector("norm", "model.norm.weight", width),
    ]
    if clusters:
        parts += [
            Part("token_ids", (ORDERING,), ((config.vocab_len,),), "ids"),
            _matrix("centroids", ("masked_embedding.centroids.weight", clusters, width)),
        ]
    head = ("model.embed_tokens.weight",)
    order = ORDERING if clusters else None
    parts.append(Part("head", head, ((config.vocab_len, width),), "panels", order))
    for index, layer in enumerate(config.layers):
        parts += _layer_plan(f"layers.{index}.", f"model.layers.{index}.", layer, width)
    return parts


def _layer_plan(name: str, own: str, layer: LayerConfig, width: int) -> list[Part]:
    q_len, kv_len, mlp = layer.num_heads * layer.head_len, layer.num_kv_heads * layer.head_len, layer.mlp_len
    attention = own + "self_attn."
    qkv = [(attention + "q_proj.weight", q_len, width)]
    parts = [_vector(name + norm, f"{own}{norm}.weight", width) for norm in LAYER_NORMS]
    parts += [
        _vector(name + "layer_scalar", own + "layer_scalar", 1),
        _vector(name + "q_norm", attention + "q_norm.weight", layer.head_len),
    ]
    if not layer.is_shared:
        qkv += [(attention + "k_proj.weight", kv_len, width), (attention + "v_proj.weight", kv_len, width)]
        parts.append(_vector(name + "k_norm", attention + "k_norm.weight", layer.head_len))
    return [
        *parts,
        _matrix(name + "qkv", *qkv),
        _matrix(name + "o", (attention + "o_proj.weight", width, q_len)),
        _matrix(name + "gate_up", (own + "mlp.gate_proj.weight", mlp, width), (own + "mlp.up_proj.weight", mlp, width)),
        _matrix(name + "down", (own + "mlp.down_proj.weight", width, mlp)),
    ]


def _matrix(name: str, *tensors: tuple[str, int, int]) -> Part:
    return Part(name, tuple(t[0] for t in tensors), tuple(t[1:] for t in tensors), "panels")


def _vector(name: str, tensor: str, length: int) -> Part:
    return Part(name, (tensor,), ((length,),), "array")


def problems(checkpoint: Checkpoint, config: TargetConfig | DrafterConfig) -> list[str]:
    """Everything in the files that does not fit the config: missing, wrong shape or dtype, left over."""
    found, expected = [], set()
    for part in plan(config):
        for tensor, shape in zip(part.tensors, part.shapes, strict=True):
            expected.add(tensor)
            entry = checkpoint.entries.get(tensor)
            dtypes = ("I64",) if part.layout == "ids" else FLOATS
            if entry is None:
                found.append(f"{tensor} is missing")
            elif entry.shape != shape:
                found.append(f"{tensor} has shape {str(list(entry.shape))[:80]}, expected {list(shape)}")
            elif entry.dtype not in dtypes:
                found.append(f"{tensor} has dtype {entry.dtype}, expected {' or '.join(dtypes)}")
    unused = _unused_names(config)
    for name in checkpoint.entries:
        if name not in expected and name not in unused and not SKIPPED.fullmatch(name):
            found.append(f"{shown(name)} is left over")
    return found


def _unused_names(config: TargetConfig | DrafterConfig) -> set[str]:
    """Keys and values of shared layers, which released files carry although nothing reads them."""
    if isinstance(config, DrafterConfig):
        return set()
    prefix = "model.language_model." if config.model_type == "gemma4" else "model."
    names = ("k_proj", "v_proj", "k_norm", "v_norm")
    return {
        f"{prefix}layers.{i}.self_attn.{name}.weight"
        for i, layer in enumerate(config.layers)
        if layer.is_shared
        for name in names
    }


def embed_scale(width: int, dtype: str) -> float:
    """sqrt(width) rounded to the dtype in which the embedding is stored (numerics.md)."""
    root = np.float32(math.sqrt(width))
    if dtype == "F16":
        return float(np.float16(root))
    if dtype == "BF16":
        bits = int(root.view(np.uint32))
        rounded = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000  # nearest even
        return float(np.uint32(rounded).view(np.float32))
    return float(root)


def assemble(config: TargetConfig | DrafterConfig, parts: Mapping[str, Any], scale: float) -> Any:
    """`TargetWeights` or `DrafterWeights` from the named parts of `plan`; `scale` is the target's `embed_scale`."""
    layers = tuple(_layer(parts, f"layers.{index}.") for index in range(len(config.layers)))
    own = {name: part for name, part in parts.items() if not name.startswith("layers.")}
    if isinstance(config, TargetConfig):
        return TargetWeights(layers=layers, embed_scale=scale, **own)
    return DrafterWeights(layers=layers, **own)


def _layer(parts: Mapping[str, Any], prefix: str) -> LayerWeights:
    own = {name.removeprefix(prefix): part for name, part in parts.items() if name.startswith(prefix)}
    for norm in LAYER_NORMS:
        own[norm.replace("layernorm", "norm")] = own.pop(norm)
    scalar = float(own.pop("layer_scalar")[0])
    return LayerWeights(layer_scalar=scalar, **{"k_norm": None, **own})
