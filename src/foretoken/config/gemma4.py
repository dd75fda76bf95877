"""config.json of Gemma 4: every target and drafter (`gemma4`, `gemma4_unified`, their text parts, their assistants).

In the spelling of the released files (`global_head_dim`, `num_global_key_value_heads`) and in that of transformers
5.24 (`per_layer_config`); where a file has both, a contradiction is an error.
Source: specification sections 1 and 2; transformers 5.24, the config classes of that name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foretoken.config.layers import MAX_LAYERS, read_layers
from foretoken.config.model import FALLBACK_EOS, NUM_DRAFT_TOKENS, DrafterConfig, TargetConfig
from foretoken.config.reader import IGNORED_FIELDS, MAX_VOCAB, Reader, known_quantisation, known_type, text_part
from foretoken.config.rope import ropes
from foretoken.errors import ConfigError

TEXT_TYPES = {"gemma4": "gemma4_text", "gemma4_unified": "gemma4_unified_text"}  # outer type to that of its text part
DRAFTER_TYPES = ("gemma4_assistant", "gemma4_unified_assistant")
TARGET_TYPES = (*TEXT_TYPES, *TEXT_TYPES.values())
DEFAULT_ROPE = {  # transformers 5.24: only where `rope_parameters` is absent as a whole
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    "full_attention": {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25},
}
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


def target_config(data: Mapping[str, Any]) -> TargetConfig:
    """A target from a parsed config.json whose `model_type` is one of `TARGET_TYPES`; raises ConfigError."""
    outer = Reader(data)
    is_outer = data["model_type"] in TEXT_TYPES
    read = text_part(outer, (TEXT_TYPES[data["model_type"]],)) if is_outer else outer
    _refuse_unsupported(read)
    layers = read_layers(read, first_shared=_first_shared(read))
    first_shared = sum(not layer.is_shared for layer in layers)
    vocab_len = read.size("vocab_size", high=MAX_VOCAB)
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
        rope=ropes(_rope_table(read), layers),
        has_other_parts=is_outer,
        unknown_fields=_unknown(outer, read),
    )


def drafter_config(data: Mapping[str, Any], generation: Mapping[str, Any] | None = None) -> DrafterConfig:
    """A drafter from a parsed config.json and generation_config.json; raises ConfigError."""
    outer = Reader(data)
    known_type(outer, DRAFTER_TYPES, "a drafter. Give the folder of an assistant model")
    read = text_part(outer, tuple(TEXT_TYPES.values()))  # nothing that tells the two apart is in a drafter
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
    layers, vocab_len = read_layers(read, first_shared=0, is_drafter=True), read.size("vocab_size", high=MAX_VOCAB)
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
        rope=ropes(_rope_table(read), layers),
        num_draft_tokens=Reader(generation or {}).size("num_assistant_tokens", NUM_DRAFT_TOKENS),
        unknown_fields=_unknown(outer, read),
    )


def _refuse_unsupported(read: Reader) -> None:
    read.exactly("hidden_activation", "gelu_pytorch_tanh")
    read.exactly("attention_bias", False)
    read.exactly("tie_word_embeddings", True)
    known_quantisation(read)
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


def _rope_table(read: Reader) -> Reader:
    return Reader(DEFAULT_ROPE) if read.get("rope_parameters") is None else read.part("rope_parameters")


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
