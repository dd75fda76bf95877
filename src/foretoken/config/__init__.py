"""What a model is: frozen dataclasses made from config.json, checked once, never changed after.

Reads every target and drafter of Gemma 4 (`gemma4`, `gemma4_unified`, their text parts, their assistants), in the
spelling of the released files (`global_head_dim`, `num_global_key_value_heads`) and in that of transformers 5.24
(`per_layer_config`); where a file has both, a contradiction is an error. Unknown values raise; unknown fields are
listed in `unknown_fields`.
Source: specification sections 1 and 2; transformers 5.24, the config classes of that name. Knows nothing of tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from foretoken.config.layers import MAX_LAYERS, LayerConfig, read_layers
from foretoken.config.reader import Reader, read_json, read_optional
from foretoken.config.rope import ropes
from foretoken.errors import ConfigError

__all__ = [
    "DrafterConfig",
    "GenerationDefaults",
    "LayerConfig",
    "TargetConfig",
    "drafter_config",
    "generation_defaults",
    "load_drafter_config",
    "load_generation_defaults",
    "load_target_config",
    "pairing_problems",
    "read_json",
    "target_config",
]

FALLBACK_EOS = (1, 106)
NUM_DRAFT_TOKENS = 6  # where an assistant's generation_config.json does not say (specification 1.3)
TEXT_TYPES = {"gemma4": "gemma4_text", "gemma4_unified": "gemma4_unified_text"}  # outer type to that of its text part
DRAFTER_TYPES = ("gemma4_assistant", "gemma4_unified_assistant")
NOT_QUANTISED = "quantised files are not yet supported"

# Fields that change nothing here: training, special ids, or read in another place.
IGNORED_FIELDS = {
    "architectures", "attention_dropout", "bos_token_id", "eos_token_id", "pad_token_id", "dtype", "torch_dtype",
    "initializer_range", "use_cache", "transformers_version",
    "is_encoder_decoder", "return_dict", "output_attentions", "output_hidden_states", "chunk_size_feed_forward",
    "id2label", "label2id", "problem_type", "_name_or_path",
}  # fmt: skip
TEXT_FIELDS = IGNORED_FIELDS | {
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "num_global_key_value_heads", "head_dim", "global_head_dim", "intermediate_size", "use_double_wide_mlp",
    "layer_types", "sliding_window", "num_kv_shared_layers", "hidden_size_per_layer_input",
    "vocab_size_per_layer_input", "attention_k_eq_v", "enable_moe_block", "rope_parameters", "final_logit_softcapping",
    "rms_norm_eps", "hidden_activation", "attention_bias", "max_position_embeddings", "vocab_size", "per_layer_config",
    "use_bidirectional_attention", "tie_word_embeddings", "quantization_config", "num_experts", "top_k_experts",
    "moe_intermediate_size",
}  # fmt: skip
OUTER_FIELDS = IGNORED_FIELDS | {
    "model_type", "text_config", "vision_config", "audio_config", "tie_word_embeddings", "quantization_config",
    "boi_token_id", "eoi_token_id", "image_token_id", "video_token_id", "boa_token_id", "eoa_token_id",
    "eoa_token_index", "audio_token_id", "vision_soft_tokens_per_image", "backbone_hidden_size",
    "use_ordered_embeddings", "num_centroids", "centroid_intermediate_top_k", "head_vocab_size",
}  # fmt: skip


@dataclass(frozen=True)
class TargetConfig:
    """A Gemma 4 text model. `rope` maps kind to the inverse frequencies (R,) float32 of the rotated pairs only."""

    model_type: str
    hidden_len: int  # D
    vocab_len: int  # V
    per_layer_len: int  # P; 0 where there are no per-layer embeddings
    layers: tuple[LayerConfig, ...]
    first_shared: int
    donor: dict[str, int]  # kind -> its last layer that stores keys and values
    window: int
    eps: float
    softcap: float | None
    max_positions: int
    eos_ids: tuple[int, ...]
    rope: dict[str, np.ndarray] = field(compare=False)
    unknown_fields: tuple[str, ...] = field(default=(), compare=False)

    @property
    def has_other_parts(self) -> bool:
        """Whether the text model is one part of the files, beside those for pictures and sound."""
        return self.model_type in TEXT_TYPES

    @property
    def cache_layers(self) -> tuple[int, ...]:
        """Indices of the layers that store keys and values."""
        return tuple(range(self.first_shared))


@dataclass(frozen=True)
class DrafterConfig:
    """An assistant: queries only, over the target's donors. `num_kv_heads` maps kind to the heads that it reads.

    `head_vocab_len` is how many tokens it can guess: all, or fewer (`head_vocab_size`, ours: see docs/distill.md).
    """

    model_type: str
    hidden_len: int  # Dd
    backbone_len: int  # the target's D
    vocab_len: int
    head_vocab_len: int
    layers: tuple[LayerConfig, ...]
    num_kv_heads: dict[str, int]
    num_clusters: int  # 0 where the head is dense
    top_clusters: int
    window: int
    eps: float
    max_positions: int
    rope: dict[str, np.ndarray] = field(compare=False)
    num_draft_tokens: int = NUM_DRAFT_TOKENS
    unknown_fields: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class GenerationDefaults:
    """What generation_config.json asks for; greedy with the stop ids 1 and 106 where it says nothing."""

    eos_ids: tuple[int, ...] = FALLBACK_EOS
    temperature: float = 0.0
    top_k: int = 0  # 0 is off
    top_p: float = 1.0
    suppress_ids: tuple[int, ...] = ()


def load_target_config(folder: Path) -> TargetConfig:
    """Read and check `folder`/config.json of a target; raises ConfigError."""
    return target_config(read_json(folder / "config.json"))


def load_drafter_config(folder: Path) -> DrafterConfig:
    """Read and check config.json and, where there is one, generation_config.json of a drafter; raises ConfigError."""
    return drafter_config(read_json(folder / "config.json"), read_optional(folder / "generation_config.json"))


def load_generation_defaults(folder: Path, eos_ids: tuple[int, ...] = FALLBACK_EOS) -> GenerationDefaults:
    """Read `folder`/generation_config.json where there is one; `eos_ids` are config.json's, for one that names none."""
    return generation_defaults(read_optional(folder / "generation_config.json"), eos_ids)


def target_config(data: Mapping[str, Any]) -> TargetConfig:
    """A target from a parsed config.json; raises ConfigError."""
    outer = Reader(data)
    types = (*TEXT_TYPES, *TEXT_TYPES.values())
    _known_type(outer, types, "a target. Is this the folder of a drafter or of another model?")
    is_outer = data["model_type"] in TEXT_TYPES
    read = _text_part(outer, (TEXT_TYPES[data["model_type"]],)) if is_outer else outer
    _refuse_unsupported(read)
    layers = read_layers(read, first_shared=_first_shared(read))
    first_shared = sum(not layer.is_shared for layer in layers)
    vocab_len = read.size("vocab_size", high=1 << 18)
    return TargetConfig(
        model_type=data["model_type"],
        hidden_len=read.size("hidden_size"),
        vocab_len=vocab_len,
        per_layer_len=_per_layer_len(read, vocab_len),
        layers=layers,
        first_shared=first_shared,
        donor={layer.kind: index for index, layer in enumerate(layers[:first_shared])},
        window=read.size("sliding_window"),
        eps=read.number("rms_norm_eps", 1e-6, high=1.0),
        softcap=None if read.get("final_logit_softcapping") is None else read.number("final_logit_softcapping"),
        max_positions=read.size("max_position_embeddings", high=1 << 20),
        eos_ids=outer.ids("eos_token_id") or read.ids("eos_token_id") or FALLBACK_EOS,
        rope=ropes(read, layers),
        unknown_fields=_unknown(outer, read),
    )


def drafter_config(data: Mapping[str, Any], generation: Mapping[str, Any] | None = None) -> DrafterConfig:
    """A drafter from a parsed config.json and generation_config.json; raises ConfigError."""
    outer = Reader(data)
    _known_type(outer, DRAFTER_TYPES, "a drafter. Give the folder of an assistant model")
    read = _text_part(outer, tuple(TEXT_TYPES.values()))  # nothing that tells the two apart is in a drafter
    _refuse_unsupported(read)
    for name, value in (
        ("hidden_size_per_layer_input", 0),
        ("use_double_wide_mlp", False),
        ("enable_moe_block", False),
    ):
        read.exactly(name, value, "a drafter has no such part")
    if read.get("final_logit_softcapping") is not None:
        raise ConfigError(
            f"final_logit_softcapping of the drafter is {read.get('final_logit_softcapping')!r}, expected null."
        )
    count = read.size("num_hidden_layers", high=MAX_LAYERS)
    if read.size("num_kv_shared_layers", 0, low=0) not in (0, count):  # the reference reads 0 as all
        raise ConfigError(
            f"num_kv_shared_layers of the drafter is {read.get('num_kv_shared_layers')}, expected {count}."
        )
    layers, vocab_len = read_layers(read, first_shared=0, is_drafter=True), read.size("vocab_size", high=1 << 18)
    head_vocab_len = outer.size("head_vocab_size", vocab_len, high=vocab_len)
    num_clusters, top_clusters = _clusters(outer, head_vocab_len)
    return DrafterConfig(
        model_type=data["model_type"],
        hidden_len=read.size("hidden_size"),
        backbone_len=outer.size("backbone_hidden_size"),
        vocab_len=vocab_len,
        head_vocab_len=head_vocab_len,
        layers=layers,
        num_kv_heads={layer.kind: layer.num_kv_heads for layer in layers},
        num_clusters=num_clusters,
        top_clusters=top_clusters,
        window=read.size("sliding_window"),
        eps=read.number("rms_norm_eps", 1e-6, high=1.0),
        max_positions=read.size("max_position_embeddings", high=1 << 20),
        rope=ropes(read, layers),
        num_draft_tokens=Reader(generation or {}).size("num_assistant_tokens", NUM_DRAFT_TOKENS),
        unknown_fields=_unknown(outer, read),
    )


def generation_defaults(data: Mapping[str, Any], eos_ids: tuple[int, ...] = FALLBACK_EOS) -> GenerationDefaults:
    """Sampling defaults from a parsed generation_config.json; `do_sample` false means temperature 0."""
    read = Reader(data)
    return GenerationDefaults(
        eos_ids=read.ids("eos_token_id") or eos_ids,
        temperature=read.number("temperature", 1.0, low=0.0, high=100.0) if read.flag("do_sample", False) else 0.0,
        top_k=read.size("top_k", 0, low=0),
        top_p=read.number("top_p", 1.0, high=1.0),
        suppress_ids=read.ids("suppress_tokens"),
    )


def pairing_problems(target: TargetConfig, drafter: DrafterConfig) -> list[str]:
    """Why a drafter does not fit a target, each with both values (specification 5.2); empty when it fits."""
    found = []

    def same(what: str, own: Any, targets: Any) -> None:
        if own != targets:
            found.append(f"{what} {own}, the target has {targets}")

    same("its backbone_hidden_size is", drafter.backbone_len, target.hidden_len)
    same("its vocab_size is", drafter.vocab_len, target.vocab_len)
    same("its sliding_window is", drafter.window, target.window)
    for kind in sorted(drafter.num_kv_heads):
        if kind not in target.donor:
            found.append(f"it reads keys of a {kind} layer, the target has none that stores keys")
            continue
        own = next(layer for layer in drafter.layers if layer.kind == kind)
        donor = target.layers[target.donor[kind]]
        same(f"its key/value heads of {kind} layers are", own.num_kv_heads, donor.num_kv_heads)
        same(f"its head width of {kind} layers is", own.head_len, donor.head_len)
        if own.head_len == donor.head_len and not np.array_equal(drafter.rope[kind], target.rope[kind]):
            first = [f"{len(rope)} pairs from {rope[-1]:g}" for rope in (drafter.rope[kind], target.rope[kind])]
            same(f"its rotary frequencies of {kind} layers are", *first)
    return found


def _known_type(read: Reader, types: tuple[str, ...], what: str) -> None:
    own = read.get("model_type")
    if own not in types:
        raise ConfigError(f"model_type is {str(own)[:40]!r}, expected {' or '.join(types)}: {what}.")


def _text_part(outer: Reader, types: tuple[str, ...]) -> Reader:
    read = outer.part("text_config")
    _known_type(read, types, f"the text part of {outer.get('model_type')}")
    outer.exactly("tie_word_embeddings", True)
    outer.exactly("quantization_config", None, NOT_QUANTISED)
    return read


def _refuse_unsupported(read: Reader) -> None:
    read.exactly("hidden_activation", "gelu_pytorch_tanh")
    read.exactly("attention_bias", False)
    read.exactly("tie_word_embeddings", True)
    read.exactly("quantization_config", None, NOT_QUANTISED)
    if read.get("use_bidirectional_attention") not in (None, "vision"):  # "vision" changes nothing without images
        read.refuse("use_bidirectional_attention", "null or vision")
    if read.get("model_type") == TEXT_TYPES["gemma4_unified"]:  # its class has no such fields
        for name, value in (("hidden_size_per_layer_input", 0), ("enable_moe_block", False)):
            read.exactly(name, value, "unified models have no such part")


def _per_layer_len(read: Reader, vocab_len: int) -> int:
    """Width of the per-layer embeddings, 0 where there are none; only unified configs may be silent about it."""
    default = 0 if read.get("model_type") == TEXT_TYPES["gemma4_unified"] else None
    found = read.size("hidden_size_per_layer_input", default, low=0, high=1 << 14)
    if found:
        read.exactly("vocab_size_per_layer_input", vocab_len)
    return found


def _unknown(outer: Reader, read: Reader) -> tuple[str, ...]:
    own = read.unknown(TEXT_FIELDS)
    return tuple(own if outer is read else outer.unknown(OUTER_FIELDS) + own)


def _first_shared(read: Reader) -> int:
    count, shared = read.size("num_hidden_layers", high=MAX_LAYERS), read.size("num_kv_shared_layers", 0, low=0)
    if shared >= count:
        read.refuse("num_kv_shared_layers", f"fewer than the {count} layers")
    return count - shared


def _clusters(outer: Reader, head_vocab_len: int) -> tuple[int, int]:
    """(clusters, how many are looked into), both 0 where the head is dense; a declared number alone means nothing."""
    if not outer.flag("use_ordered_embeddings", False):
        return 0, 0
    count = outer.size("num_centroids", 2048)
    if head_vocab_len % count:
        outer.refuse("num_centroids", f"a divisor of the head's vocabulary ({head_vocab_len})")
    return count, outer.size("centroid_intermediate_top_k", 32, high=count)
