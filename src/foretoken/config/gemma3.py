"""config.json of Gemma 3: text models (`gemma3_text`), alone or as the text part of a larger model (`gemma3`).

In the spelling of released files (`rope_theta`, `rope_local_base_freq`, `rope_scaling`, `sliding_window_pattern`) and
in that of transformers 5.24 (`rope_parameters`, `layer_types`); where a file has both, a contradiction is an error.
Released outer files leave out whatever is the default of the class, so those defaults stand here.
Source: transformers 5.24, Gemma3TextConfig, Gemma3Config and the modelling code beside them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from foretoken.config.layers import KINDS, MAX_HEAD_SIZE, MAX_LAYERS, LayerConfig, named_kinds
from foretoken.config.model import FALLBACK_EOS, TargetConfig
from foretoken.config.reader import IGNORED_FIELDS, MAX_VOCAB, Reader, known_quantisation, text_part
from foretoken.config.rope import ropes

OUTER_TYPE, TEXT_TYPE = "gemma3", "gemma3_text"
TARGET_TYPES = (OUTER_TYPE, TEXT_TYPE)
IGNORED_CAP = "the reference has the field and applies nothing"
TEXT_FIELDS = IGNORED_FIELDS | {
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "intermediate_size", "layer_types", "sliding_window_pattern", "_sliding_window_pattern", "sliding_window",
    "rope_parameters", "rope_theta", "rope_local_base_freq", "rope_scaling", "query_pre_attn_scalar",
    "final_logit_softcapping", "attn_logit_softcapping", "rms_norm_eps", "hidden_activation", "attention_bias",
    "max_position_embeddings", "vocab_size", "use_bidirectional_attention", "tie_word_embeddings",
    "quantization_config", "cache_implementation",
}  # fmt: skip
OUTER_FIELDS = IGNORED_FIELDS | {
    "model_type", "text_config", "vision_config", "tie_word_embeddings", "quantization_config", "mm_tokens_per_image",
    "boi_token_index", "eoi_token_index", "image_token_index", "boi_token_id", "eoi_token_id", "image_token_id",
}  # fmt: skip


def target_config(data: Mapping[str, Any]) -> TargetConfig:
    """A target from a parsed config.json whose `model_type` is one of `TARGET_TYPES`; raises ConfigError."""
    outer = Reader(data)
    is_outer = data["model_type"] == OUTER_TYPE
    read = text_part(outer, (TEXT_TYPE,)) if is_outer else outer
    _refuse_unsupported(read)
    if is_outer:
        read.exactly("final_logit_softcapping", None, IGNORED_CAP)
    layers = _layers(read)
    unknown = read.unknown(TEXT_FIELDS)
    return TargetConfig(
        model_type=data["model_type"],
        hidden_len=read.size("hidden_size"),
        vocab_len=read.size("vocab_size", 262208, high=MAX_VOCAB),
        per_layer_len=0,
        layers=layers,
        first_shared=len(layers),
        donor={layer.kind: index for index, layer in enumerate(layers)},
        window=read.size("sliding_window"),
        eps=read.number("rms_norm_eps", 1e-6, high=1.0),
        softcap=None if read.get("final_logit_softcapping") is None else read.number("final_logit_softcapping"),
        max_positions=read.size("max_position_embeddings", 131072, high=1 << 20),
        eos_ids=outer.ids("eos_token_id") or read.ids("eos_token_id") or FALLBACK_EOS,
        rope=ropes(_rope_table(read), layers),
        has_other_parts=is_outer,
        query_scale=1.0 / math.sqrt(read.number("query_pre_attn_scalar", 256.0, low=1e-6, high=1e6)),
        norm_offset=1.0,
        unknown_fields=tuple(outer.unknown(OUTER_FIELDS) + unknown if is_outer else unknown),
    )


def _refuse_unsupported(read: Reader) -> None:
    read.exactly("hidden_activation", "gelu_pytorch_tanh")
    read.exactly("attention_bias", False)
    read.exactly("tie_word_embeddings", True)
    known_quantisation(read)
    read.exactly("use_bidirectional_attention", False, "a model that reads ahead writes no text")
    read.exactly("attn_logit_softcapping", None, IGNORED_CAP)


def _layers(read: Reader) -> tuple[LayerConfig, ...]:
    """Every layer; where the file names no kinds, every sixth (`sliding_window_pattern`) is full."""
    count = read.size("num_hidden_layers", high=MAX_LAYERS)
    kinds = named_kinds(read, count)
    if kinds is None:
        period = read.size("sliding_window_pattern", 6)
        kinds = ["sliding" if (index + 1) % period else "full" for index in range(count)]
    num_heads = read.size("num_attention_heads", 8, high=MAX_HEAD_SIZE)
    num_kv_heads = read.size("num_key_value_heads", 4, high=MAX_HEAD_SIZE)
    if num_heads % num_kv_heads:
        read.refuse("num_attention_heads", f"a multiple of {num_kv_heads} key/value heads")
    head_len, window = read.size("head_dim", 256, high=MAX_HEAD_SIZE), read.size("sliding_window")
    return tuple(
        LayerConfig(
            kind=kind,
            head_len=head_len,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            is_shared=False,
            kv_source=index,
            mlp_len=read.size("intermediate_size"),
            window=window if kind == "sliding" else None,
            has_value_norm=False,
            has_scalar=False,
        )
        for index, kind in enumerate(kinds)
    )


def _rope_table(read: Reader) -> Reader:
    """Rotary parameters per kind from either spelling; `rope_scaling` is for full layers alone."""
    table = Reader({}) if read.get("rope_parameters") is None else read.part("rope_parameters")
    if set(table.data) - set(KINDS):
        read.refuse("rope_parameters", f"an object with {' and '.join(KINDS)}")
    scaling = {} if read.get("rope_scaling") is None else dict(read.part("rope_scaling").data)
    if "type" in scaling:  # as older files call it
        scaling.setdefault("rope_type", scaling.pop("type"))
    found = {}
    for kind, name, theta, scale in (
        ("sliding_attention", "rope_local_base_freq", 1e4, {}),
        ("full_attention", "rope_theta", 1e6, scaling),
    ):
        own = {} if table.get(kind) is None else table.part(kind).data
        released = scale if read.get(name) is None else {"rope_theta": read.number(name, low=1.0), **scale}
        for field, value in released.items():
            if own.get(field, value) != value:
                read.refuse("rope_parameters", f"{field} {str(value)[:40]} in {kind}, as {name} and rope_scaling say")
        found[kind] = {"rope_type": "default", "rope_theta": theta, **released, **own}
    return Reader(found)
