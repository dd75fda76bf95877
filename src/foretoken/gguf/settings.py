"""The fields of a GGUF file in the shape of config.json and generation_config.json, for `foretoken.config` to check.

What a config.json says and a GGUF file does not is told by its tensors: keys used as values by the missing value
projection, the rotated share of a full head by the divisors of `rope_freqs`, clusters by their centroids.
Source: specification 1 and 5.4; the converters and model loaders of llama.cpp, 2025 to 2026.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from foretoken.errors import ConfigError
from foretoken.gguf.container import Container
from foretoken.gguf.names import ROPE_FREQS
from foretoken.gguf.types import decode

TARGETS = ("gemma4", "gemma3")
DRAFTERS = ("gemma4-assistant", "gemma4_assistant")
OFF = 1e29  # a divisor of a rotary frequency from which on the pair is not rotated; converters write 1e30
GEMMA3_PERIOD = 6  # every sixth layer is full where a Gemma 3 file does not say
GEMMA3_LARGEST = 62  # layers of the one Gemma 3 whose queries are scaled by hidden width and not by head width
MAX_LAYERS = 1024


class Fields:
    """Access to the fields of one architecture; errors name the field as the file does."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.arch = container.architecture

    def refuse(self, name: str, expected: str) -> NoReturn:
        value = self.get(name)
        got = "missing" if value is None else repr(value)[:80]
        raise ConfigError(f"{self.arch}.{name} of {self.container.path} is {got}, expected {expected}.")

    def get(self, *names: str) -> Any:
        """The first of several spellings that is there, or None; arrays as lists, which compare as one value."""
        found = (self.container.fields.get(f"{self.arch}.{name}") for name in names)
        value = next((value for value in found if value is not None), None)
        return value[: MAX_LAYERS + 1].tolist() if isinstance(value, np.ndarray) else value  # none is that long

    def need(self, *names: str) -> Any:
        value = self.get(*names)
        if value is None:
            self.refuse(names[0], "a value")
        return value

    def size(self, name: str, default: int | None = None) -> int:
        value = self.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
            self.refuse(name, "a whole number")
        return value

    def per_layer(self, name: str, count: int) -> list[int]:
        """One whole number for each layer, of a file that gives one for all or a list."""
        value = self.need(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return [value] * count
        if not isinstance(value, list) or len(value) != count or not all(type(one) is int for one in value):
            self.refuse(name, f"a whole number or a list of {count}")
        return value

    def tensor(self, name: str) -> tuple[int, ...] | None:
        entry = self.container.entries.get(name)
        return entry.shape if entry else None


def target_settings(container: Container) -> dict[str, Any]:
    """A config.json of the target in a file; raises ConfigError."""
    fields = _of(
        container, TARGETS, "a target. This may be the file of a drafter, of a picture encoder or of another model"
    )
    return {**(_gemma4(fields) if fields.arch == "gemma4" else _gemma3(fields)), **_ids(container)}


def drafter_settings(container: Container) -> dict[str, Any]:
    """A config.json of the drafter in a file; raises ConfigError."""
    fields = _of(container, DRAFTERS, "a drafter. Give the file of an assistant model")
    config: dict[str, Any] = {
        "model_type": "gemma4_assistant",
        "backbone_hidden_size": fields.need("embedding_length_out", "n_embd_backbone", "backbone_hidden_size"),
        "text_config": _gemma4(fields),
    }
    centroids = [name for name in container.entries if "centroids" in name]
    if centroids:
        config["use_ordered_embeddings"] = True
        config["num_centroids"] = container.entries[centroids[0]].shape[0]
        config["centroid_intermediate_top_k"] = fields.get(
            "centroid_top_k", "centroid_intermediate_top_k", "masked_embedding.top_k"
        )
    return config


def generation_settings(container: Container) -> dict[str, Any]:
    """A generation_config.json: sampling defaults, where a file has some, and tokens never to be written."""
    fields = container.fields
    found: dict[str, Any] = {}
    for name, key in (("temperature", "temp"), ("top_k", "top_k"), ("top_p", "top_p")):
        if (value := fields.get(f"general.sampling.{key}")) is not None:
            found[name] = value
            found["do_sample"] = True
    suppressed = fields.get("tokenizer.ggml.suppress_tokens")
    if suppressed is not None:
        found["suppress_tokens"] = [int(i) for i in _numbers("tokenizer.ggml.suppress_tokens", suppressed)]
    return found | _ids(container)


def _of(container: Container, known: Sequence[str], what: str) -> Fields:
    fields = Fields(container)
    if fields.arch not in known:
        raise ConfigError(
            f"{container.path} has architecture {fields.arch[:40]!r}, expected {' or '.join(known)}: {what}."
        )
    if (parts := str(container.fields.get("split.count", 1))) not in ("0", "1"):
        raise ConfigError(f"{container.path} is one of {parts[:20]} parts. Join them: llama-gguf-split --merge.")
    return fields


def _ids(container: Container) -> dict[str, Any]:
    """Ids that end an answer: those that the file names, <eos>, and of a chat model the end of a turn."""
    fields, tokens = container.fields, container.fields.get("tokenizer.ggml.tokens")
    named = [fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    if (several := fields.get("tokenizer.ggml.eos_token_ids")) is not None:  # as Ollama writes them
        named += _numbers("tokenizer.ggml.eos_token_ids", several)
    spelled = ["<eos>"]
    if isinstance(fields.get("tokenizer.chat_template"), str):
        spelled += ["<turn|>", "<end_of_turn>"]
    if isinstance(tokens, list):
        named += [tokens.index(token) for token in spelled if token in tokens]
    found = sorted({i for i in named if isinstance(i, int) and not isinstance(i, bool)})
    return {"eos_token_id": found} if found else {}


def _gemma4(fields: Fields) -> dict[str, Any]:
    count = _num_layers(fields)
    is_sliding = _pattern(fields, count)
    shared = fields.size("attention.shared_kv_layers", 0)
    widths, inner = fields.per_layer("feed_forward_length", count), count if _is_drafter(fields) else count - shared
    is_double = len(set(widths)) > 1
    if widths != [widths[0] * (2 if is_double and i >= inner else 1) for i in range(count)]:
        fields.refuse("feed_forward_length", "one width, or one and its double in layers that share keys and values")
    heads = _kv_heads(fields, is_sliding)
    experts = fields.size("expert_count", 0)
    per_layer = fields.size("embedding_length_per_layer_input", 0)
    full_len, sliding_len = _head_widths(fields)
    return {
        **_common(fields, count),
        "model_type": "gemma4_text",
        "layer_types": [_kind(one) for one in is_sliding],
        "head_dim": sliding_len,
        "global_head_dim": full_len,
        "num_key_value_heads": heads[0],
        "num_global_key_value_heads": heads[1] if heads[1] != heads[0] else None,
        "attention_k_eq_v": _is_keys_as_values(fields, is_sliding, inner) or heads[1] != heads[0],
        "intermediate_size": widths[0],
        "use_double_wide_mlp": is_double,
        "num_kv_shared_layers": shared,
        "hidden_size_per_layer_input": per_layer,
        "vocab_size_per_layer_input": _vocab_len(fields) if per_layer else 0,
        "final_logit_softcapping": fields.get("final_logit_softcapping") or None,
        "enable_moe_block": experts > 0,
        **(_experts(fields, experts) if experts else {}),
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": _theta(fields, "rope.freq_base_swa", 1e4)},
            "full_attention": {
                "rope_type": "proportional",
                "rope_theta": _theta(fields, "rope.freq_base", 1e6),
                "partial_rotary_factor": _rotated_share(fields, full_len),
            },
        },
    }


def _gemma3(fields: Fields) -> dict[str, Any]:
    count, head_len = _num_layers(fields), fields.need("attention.key_length")
    heads = fields.need("attention.head_count")
    pattern = fields.get("attention.sliding_window_pattern")
    if pattern is None or isinstance(pattern, int):
        period = pattern or GEMMA3_PERIOD
        is_sliding = [(index + 1) % period != 0 for index in range(count)]
    else:
        is_sliding = _pattern(fields, count)
    full: dict[str, Any] = {"rope_type": "default", "rope_theta": _theta(fields, "rope.freq_base", 1e6)}
    if fields.get("rope.scaling.type") not in (None, "none"):
        full |= {"rope_type": fields.get("rope.scaling.type"), "factor": fields.need("rope.scaling.factor")}
    scaled_by = head_len
    if count == GEMMA3_LARGEST and isinstance(heads, int) and heads:
        scaled_by = fields.size("embedding_length") // heads
    return {
        **_common(fields, count),
        "model_type": "gemma3_text",
        "layer_types": [_kind(one) for one in is_sliding],
        "head_dim": head_len,
        "query_pre_attn_scalar": scaled_by,
        "num_key_value_heads": _kv_heads(fields, is_sliding)[0],
        "intermediate_size": fields.need("feed_forward_length"),
        "final_logit_softcapping": fields.get("final_logit_softcapping") or None,
        "attn_logit_softcapping": fields.get("attn_logit_softcapping") or None,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": _theta(fields, "rope.freq_base_swa", 1e4)},
            "full_attention": full,
        },
    }


def _common(fields: Fields, count: int) -> dict[str, Any]:
    return {
        "vocab_size": _vocab_len(fields),
        "hidden_size": fields.need("embedding_length"),
        "num_hidden_layers": count,
        "num_attention_heads": fields.need("attention.head_count"),
        "sliding_window": fields.need("attention.sliding_window"),
        "rms_norm_eps": fields.need("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": fields.need("context_length"),
    }


def _num_layers(fields: Fields) -> int:
    count = fields.size("block_count")
    if not 0 < count <= MAX_LAYERS:
        fields.refuse("block_count", f"1 to {MAX_LAYERS}")
    return count


def _kind(is_sliding: bool) -> str:
    return "sliding_attention" if is_sliding else "full_attention"


def _is_drafter(fields: Fields) -> bool:
    return fields.arch in DRAFTERS


def _pattern(fields: Fields, count: int) -> list[bool]:
    value = fields.need("attention.sliding_window_pattern")
    if not isinstance(value, list) or len(value) != count or not all(one in (0, 1) for one in value):
        fields.refuse("attention.sliding_window_pattern", f"a list of {count} truths")
    return [bool(one) for one in value]


def _vocab_len(fields: Fields) -> int:
    shape = fields.tensor("token_embd.weight")
    if shape is None or len(shape) != 2:
        raise ConfigError(f"{fields.container.path} has no token_embd.weight of two dimensions. Use another file.")
    return shape[0]


def _kv_heads(fields: Fields, is_sliding: Sequence[bool]) -> tuple[int, int]:
    """Key/value heads of sliding and of full layers; where a kind has no layers, those of the other."""
    counts = fields.per_layer("attention.head_count_kv", len(is_sliding))
    kinds = [sorted({c for c, one in zip(counts, is_sliding, strict=True) if one is kind}) for kind in (True, False)]
    if any(len(kind) > 1 for kind in kinds):
        fields.refuse("attention.head_count_kv", "one number for all layers of a kind")
    sliding, full = (kind[0] if kind else None for kind in kinds)
    return (full if sliding is None else sliding), (sliding if full is None else full)  # type: ignore[return-value]


def _head_widths(fields: Fields) -> tuple[int, int]:
    """Widths of full and of sliding heads; values have that of keys."""
    full = fields.need("attention.key_length")
    sliding = fields.get("attention.key_length_swa")
    sliding = full if sliding is None else sliding
    for name, expected in (("value_length", full), ("value_length_swa", sliding)):
        if fields.get(f"attention.{name}") not in (None, expected):
            fields.refuse(f"attention.{name}", f"{expected}, the width of keys")
    return full, sliding


def _is_keys_as_values(fields: Fields, is_sliding: Sequence[bool], inner: int) -> bool:
    """Whether full layers that store keys and values have no projection for values."""
    full = [i for i in range(min(inner, len(is_sliding))) if not is_sliding[i]]
    return any(
        fields.tensor(f"blk.{i}.attn_v.weight") is None and fields.tensor(f"blk.{i}.attn_k.weight") for i in full
    )


def _experts(fields: Fields, count: int) -> dict[str, Any]:
    return {
        "num_experts": count,
        "top_k_experts": fields.need("expert_used_count"),
        "moe_intermediate_size": fields.need("expert_feed_forward_length"),
    }


def _theta(fields: Fields, name: str, default: float) -> Any:
    value = fields.get(name)
    return default if value is None else value


def _rotated_share(fields: Fields, head_len: Any) -> float:
    """Share of a full head that is rotated: pairs whose divisor is 1; the others' ends all rotation."""
    entry = fields.container.entries.get(ROPE_FREQS)
    if entry is None:
        return 1.0
    half = head_len // 2 if isinstance(head_len, int) else 0
    if entry.dtype != "F32" or entry.shape != (half,) or not half:
        fields.refuse("attention.key_length", f"twice the length of {ROPE_FREQS}, which is {list(entry.shape)} F32")
    raw = np.array(np.memmap(entry.path, np.uint8, "r", entry.offset, (1, entry.num_bytes)))
    divisors = decode("F32", raw)[0]
    rotated = int(np.count_nonzero(divisors == 1))
    if not rotated or not ((divisors[:rotated] == 1).all() and (divisors[rotated:] >= OFF).all()):
        raise ConfigError(
            f"{ROPE_FREQS} of {fields.container.path} has divisors other than 1 for the first pairs of a head and "
            "1e30 for the rest, which is not supported. Use another file."
        )
    share = rotated / half
    return share if int(share * head_len // 2) == rotated else math.nextafter(share, 2.0)


def _numbers(name: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu":
        raise ConfigError(f"{name} is {repr(value)[:80]}, expected a list of token ids.")
    return value.tolist()
