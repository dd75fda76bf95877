"""Names and shapes of the tensors of Gemma 4 and Gemma 3: one table for target and drafter, and what each becomes.

`plan` lists every part of a model, from which tensors it is made and in which layout; `problems` compares the plan
with the files and lists all mismatches at once, before memory is taken; `assemble_*` turns named parts into weights.
Source: specification 5.1 and 5.2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from foretoken.config import DrafterConfig, LayerConfig, TargetConfig
from foretoken.weights.checkpoint import Checkpoint
from foretoken.weights.safetensors import shown

# Other modalities, and tensors that transformers drops as well: never read, and no mismatch.
SKIPPED = re.compile(
    r"(model\.)?(vision_tower|audio_tower|embed_vision|embed_audio|vision_embedder|multi_modal_projector)\..*"
    r"|.*rotary_emb\.\w*inv_freq|(language_model\.)?lm_head\.weight"
)
ORDERING = "masked_embedding.token_ordering"  # row (cluster, member) to token id, or to row of a short head
HEAD_IDS = "head_token_ids"  # row of a short head to token id, ascending; ours (docs/distill.md)
LAYER_NORMS = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
FLOATS = ("F32", "BF16", "F16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
IDS = ("I64", "I32")
MAPPED_VALUES = 64 << 20
PANEL = 16  # rows of one panel (ops, layout "panels")


@dataclass(frozen=True)
class Part:
    """One thing in memory: `name`, the tensors stacked into it by rows, their shapes, and how it is kept.

    layout  "panels" or "rows": packed;  "array": float32 as it is;  "ids": int32
    limit   of ids: None for a permutation, else they ascend strictly and stay below it
    order   the tensor of ids in whose order the rows are taken, or None
    format  how a packed part is packed; None in a plan where the user or the files decide (`weights.formats`)
    """

    name: str
    tensors: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    layout: str
    order: str | None = None
    format: str | None = None
    limit: int | None = None

    @property
    def is_packed(self) -> bool:
        return self.layout in ("panels", "rows")

    @property
    def row_shapes(self) -> tuple[tuple[int, int], ...]:
        """(rows, K) of each tensor; the experts of one tensor, (E, N, K), count as E·N rows."""
        return tuple((math.prod(shape[:-1]), shape[-1]) for shape in self.shapes)

    @property
    def size(self) -> tuple[int, int]:
        """(N, K) of the stacked matrix."""
        return sum(rows for rows, _ in self.row_shapes), self.shapes[0][-1]

    @property
    def is_mapped(self) -> bool:
        """Read by row, and too large to be worth memory: kept on disk and mapped."""
        return self.layout == "rows" and math.prod(self.size) >= MAPPED_VALUES


@dataclass(frozen=True)
class ExpertWeights:
    """The expert branch of a layer, beside its MLP (specification 2.6)."""

    router_norm: np.ndarray  # (D,) router.scale · D^(−1/2): the weight of the norm before the router
    router: Any  # (E, D), f32 in every format: it decides which experts are read
    scale: np.ndarray  # (E,) of each expert's weight, after normalising
    norm: np.ndarray
    gate_up: Any  # (E·2F, D): of each expert gate rows, then up
    down: Any  # (E·D, F)
    post_norm: np.ndarray
    post_mlp_norm: np.ndarray  # of the MLP beside


@dataclass(frozen=True)
class LayerWeights:
    """One layer. Norms are float32 vectors, matrices `ops.Packed`; None where a layer has no such part.

    `q_norm` carries the query scale as well: the score of the attention op has none (numerics.md).
    """

    input_norm: np.ndarray
    post_attention_norm: np.ndarray
    pre_feedforward_norm: np.ndarray
    post_feedforward_norm: np.ndarray
    q_norm: np.ndarray
    k_norm: np.ndarray | None
    qkv: Any  # q rows, then k, then v; without v where values are the keys, q only in a shared layer
    o: Any
    gate_up: Any  # gate rows, then up
    down: Any
    layer_scalar: float
    per_layer_gate: Any = None
    per_layer_projection: Any = None
    post_per_layer_norm: np.ndarray | None = None
    experts: ExpertWeights | None = None


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
    """A drafter. With clusters the head's rows are in cluster order and `token_ids` (V,) maps row to token id.

    A short head has `head_ids` (H,), ascending: the token of each row, or of what `token_ids` maps it to.
    """

    pre_projection: Any
    post_projection: Any
    head: Any
    norm: np.ndarray
    layers: tuple[LayerWeights, ...]
    centroids: Any = None
    token_ids: np.ndarray | None = None
    head_ids: np.ndarray | None = None


def plan(config: TargetConfig | DrafterConfig, names: Collection[str] = ()) -> list[Part]:
    """Every part of a model, in the order of packing; `names` of the files' tensors tell one spelling from another."""
    return _target_plan(config, _prefix(config, names)) if isinstance(config, TargetConfig) else _drafter_plan(config)


def _target_plan(config: TargetConfig, prefix: str) -> list[Part]:
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


def _prefix(config: TargetConfig, names: Collection[str]) -> str:
    """What the text model's tensors begin with; released Gemma 3 files with other parts have the older spelling."""
    if not config.has_other_parts:
        return "model."
    older = "language_model.model."
    return older if older + "embed_tokens.weight" in names else "model.language_model."


def _drafter_plan(config: DrafterConfig) -> list[Part]:
    width, backbone, clusters = config.hidden_len, config.backbone_len, config.num_clusters
    head_len = config.head_vocab_len
    parts = [
        _matrix("pre_projection", ("pre_projection.weight", width, 2 * backbone)),
        _matrix("post_projection", ("post_projection.weight", backbone, width)),
        _vector("norm", "model.norm.weight", width),
    ]
    if clusters:
        parts += [
            Part("token_ids", (ORDERING,), ((head_len,),), "ids"),
            _matrix("centroids", ("masked_embedding.centroids.weight", clusters, width)),
        ]
    if head_len < config.vocab_len:
        parts.append(Part("head_ids", (HEAD_IDS,), ((head_len,),), "ids", limit=config.vocab_len))
    head = ("model.embed_tokens.weight",)
    order = ORDERING if clusters else None
    parts.append(Part("head", head, ((head_len, width),), "panels", order))
    for index, layer in enumerate(config.layers):
        parts += _layer_plan(f"layers.{index}.", f"model.layers.{index}.", layer, width)
    return parts


def _layer_plan(name: str, own: str, layer: LayerConfig, width: int) -> list[Part]:
    q_len, kv_len, mlp = layer.num_heads * layer.head_len, layer.num_kv_heads * layer.head_len, layer.mlp_len
    attention = own + "self_attn."
    qkv = [(attention + "q_proj.weight", q_len, width)]
    parts = [_vector(name + norm, f"{own}{norm}.weight", width) for norm in LAYER_NORMS]
    parts += [
        *([_vector(name + "layer_scalar", own + "layer_scalar", 1)] if layer.has_scalar else []),
        _vector(name + "q_norm", attention + "q_norm.weight", layer.head_len),
    ]
    if not layer.is_shared:
        names = ("k_proj",) if layer.k_eq_v else ("k_proj", "v_proj")
        qkv += [(f"{attention}{kv}.weight", kv_len, width) for kv in names]
        parts.append(_vector(name + "k_norm", attention + "k_norm.weight", layer.head_len))
    if layer.num_experts:
        parts += _expert_plan(name + "experts.", own, layer, width)
    return [
        *parts,
        _matrix(name + "qkv", *qkv),
        _matrix(name + "o", (attention + "o_proj.weight", width, q_len)),
        _matrix(name + "gate_up", (own + "mlp.gate_proj.weight", mlp, width), (own + "mlp.up_proj.weight", mlp, width)),
        _matrix(name + "down", (own + "mlp.down_proj.weight", width, mlp)),
    ]


def _expert_plan(name: str, own: str, layer: LayerConfig, width: int) -> list[Part]:
    count, inner, experts = layer.num_experts, layer.expert_len, own + "experts."
    router = _matrix(name + "router", (own + "router.proj.weight", count, width))
    return [
        _vector(name + "router_norm", own + "router.scale", width),
        replace(router, format="f32"),
        _vector(name + "scale", own + "router.per_expert_scale", count),
        _vector(name + "norm", own + "pre_feedforward_layernorm_2.weight", width),
        Part(name + "gate_up", (experts + "gate_up_proj",), ((count, 2 * inner, width),), "panels"),
        Part(name + "down", (experts + "down_proj",), ((count, width, inner),), "panels"),
        _vector(name + "post_norm", own + "post_feedforward_layernorm_2.weight", width),
        _vector(name + "post_mlp_norm", own + "post_feedforward_layernorm_1.weight", width),
    ]


def _matrix(name: str, *tensors: tuple[str, int, int]) -> Part:
    return Part(name, tuple(t[0] for t in tensors), tuple(t[1:] for t in tensors), "panels")


def _vector(name: str, tensor: str, length: int) -> Part:
    return Part(name, (tensor,), ((length,),), "array")


def problems(checkpoint: Checkpoint, config: TargetConfig | DrafterConfig) -> list[str]:
    """Everything in the files that does not fit the config: missing, wrong shape or dtype, left over."""
    found, expected = [], set()
    for part in plan(config, checkpoint.entries):
        for tensor, shape in zip(part.tensors, part.shapes, strict=True):
            expected.add(tensor)
            entry = checkpoint.entries.get(tensor)
            dtypes = IDS if part.layout == "ids" else FLOATS
            if entry is None:
                found.append(f"{tensor} is missing")
            elif entry.shape != shape:
                found.append(f"{tensor} has shape {str(list(entry.shape))[:80]}, expected {list(shape)}")
            elif entry.dtype not in dtypes:
                found.append(f"{tensor} has dtype {entry.dtype}, expected {' or '.join(dtypes)}")
            elif len(shape) == 3 and shape[1] % PANEL:  # an expert has panels of its own
                found.append(f"{tensor} has {shape[1]} rows per expert, expected a multiple of {PANEL}")
    unused = _unused_names(config, checkpoint.entries)
    for name in checkpoint.entries:
        if name not in expected and name not in unused and not SKIPPED.fullmatch(name):
            found.append(f"{shown(name)} is left over")
    return found


def _unused_names(config: TargetConfig | DrafterConfig, entries: Collection[str]) -> set[str]:
    """Keys and values of shared layers, which released files carry although nothing reads them."""
    if isinstance(config, DrafterConfig):
        return set()
    prefix = _prefix(config, entries)
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


def assemble(
    config: TargetConfig | DrafterConfig, parts: Mapping[str, Any], scale: float, norms_are_complete: bool = False
) -> Any:
    """`TargetWeights` or `DrafterWeights` from the named parts of `plan`.

    scale               the target's `embed_scale`
    norms_are_complete  whether the files' norm weights have what Hugging Face's leave out (`config.norm_offset`)
    """
    if isinstance(config, TargetConfig):
        offset = 0.0 if norms_are_complete else config.norm_offset
        parts = {name: _with_constants(name, part, offset, config.query_scale) for name, part in parts.items()}
    layers = tuple(_layer(parts, f"layers.{index}.") for index in range(len(config.layers)))
    own = {name: part for name, part in parts.items() if not name.startswith("layers.")}
    if isinstance(config, TargetConfig):
        return TargetWeights(layers=layers, embed_scale=scale, **own)
    return DrafterWeights(layers=layers, **own)


def _with_constants(name: str, part: Any, offset: float, query_scale: float) -> Any:
    """A norm as it is applied, float32: offset + w, and the query scale in that of queries; other parts as they are.

    A scale that is a power of two (head width 256) changes no rounding; another rounds each weight once more.
    """
    if offset and name.endswith("norm"):
        part = np.float32(offset) + part
    return part * np.float32(query_scale) if query_scale != 1.0 and name.endswith("q_norm") else part


def _layer(parts: Mapping[str, Any], prefix: str) -> LayerWeights:
    own = {name.removeprefix(prefix): part for name, part in parts.items() if name.startswith(prefix)}
    for norm in LAYER_NORMS:
        own[norm.replace("layernorm", "norm")] = own.pop(norm)
    scalar = float(own.pop("layer_scalar", (1.0,))[0])
    names = [name for name in own if name.startswith("experts.")]
    experts = {name.removeprefix("experts."): own.pop(name) for name in names}
    return LayerWeights(layer_scalar=scalar, experts=_experts(experts), **{"k_norm": None, **own})


def _experts(own: dict[str, Any]) -> ExpertWeights | None:
    if not own:
        return None
    scale = own.pop("router_norm")
    return ExpertWeights(router_norm=scale * np.float32(len(scale) ** -0.5), **own)
