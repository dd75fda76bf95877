"""What a model is: frozen dataclasses made from config.json, checked once, never changed after.

Reads `gemma4_text`, outer `gemma4` (its text part) and `gemma4_assistant`, in the spelling of the released files
(`global_head_dim`, `num_global_key_value_heads`) and in that of transformers 5.24 (`per_layer_config`); where a file
has both, a contradiction is an error. Unknown values raise; unknown fields are listed in `unknown_fields`.
Source: specification sections 1 and 2; transformers 5.24, Gemma4TextConfig. Knows nothing of tensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from foretoken.errors import ConfigError

KINDS = {"sliding_attention": "sliding", "full_attention": "full"}
MAX_JSON_BYTES = 16 << 20
MAX_LAYERS = 1024
MAX_SIZE = 1 << 24  # larger than any released size; a hostile file must not overflow a product
FALLBACK_EOS = (1, 106)
NUM_DRAFT_TOKENS = 6  # where an assistant's generation_config.json does not say (specification 1.3)
NOT_YET = {
    "gemma4_unified": "Gemma 4 12B (unified)",
    "gemma4_unified_text": "Gemma 4 12B (unified)",
    "gemma4_unified_assistant": "the drafter of Gemma 4 12B (unified)",
}
DEFAULT_ROPE = {  # transformers 5.24: only where `rope_parameters` is absent as a whole
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    "full_attention": {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25},
}

# Fields that change nothing here: training, special ids, experts that are switched off, or read in another place.
IGNORED_FIELDS = {
    "architectures", "attention_dropout", "bos_token_id", "eos_token_id", "pad_token_id", "dtype", "torch_dtype",
    "initializer_range", "use_cache", "transformers_version", "moe_intermediate_size", "num_experts", "top_k_experts",
    "is_encoder_decoder", "return_dict", "output_attentions", "output_hidden_states", "chunk_size_feed_forward",
    "id2label", "label2id", "problem_type", "_name_or_path",
}  # fmt: skip
TEXT_FIELDS = IGNORED_FIELDS | {
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "num_global_key_value_heads", "head_dim", "global_head_dim", "intermediate_size", "use_double_wide_mlp",
    "layer_types", "sliding_window", "num_kv_shared_layers", "hidden_size_per_layer_input",
    "vocab_size_per_layer_input", "attention_k_eq_v", "enable_moe_block", "rope_parameters", "final_logit_softcapping",
    "rms_norm_eps", "hidden_activation", "attention_bias", "max_position_embeddings", "vocab_size", "per_layer_config",
    "use_bidirectional_attention", "tie_word_embeddings", "quantization_config",
}  # fmt: skip
OUTER_FIELDS = IGNORED_FIELDS | {
    "model_type", "text_config", "vision_config", "audio_config", "tie_word_embeddings", "quantization_config",
    "boi_token_id", "eoi_token_id", "image_token_id", "video_token_id", "boa_token_id", "eoa_token_id",
    "eoa_token_index", "audio_token_id", "vision_soft_tokens_per_image", "backbone_hidden_size",
    "use_ordered_embeddings", "num_centroids", "centroid_intermediate_top_k",
}  # fmt: skip


@dataclass(frozen=True)
class LayerConfig:
    """One decoder layer. `kv_source` is the layer whose keys and values it reads: itself, or its donor when shared.

    In a drafter it is −1: every layer reads the target's donor of its own `kind`.
    """

    kind: str  # "sliding" or "full"
    head_len: int  # Dh
    num_heads: int  # Hq
    num_kv_heads: int  # Hkv
    is_shared: bool
    kv_source: int
    mlp_len: int  # F
    window: int | None  # keys that a query sees, itself included; None in full layers
    k_eq_v: bool = False  # values are the raw keys (not yet supported)


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
    def cache_layers(self) -> tuple[int, ...]:
        """Indices of the layers that store keys and values."""
        return tuple(range(self.first_shared))


@dataclass(frozen=True)
class DrafterConfig:
    """An assistant: queries only, over the target's donors. `num_kv_heads` maps kind to the heads that it reads."""

    model_type: str
    hidden_len: int  # Dd
    backbone_len: int  # the target's D
    vocab_len: int
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
    return drafter_config(read_json(folder / "config.json"), _read_optional(folder / "generation_config.json"))


def load_generation_defaults(folder: Path) -> GenerationDefaults:
    """Read `folder`/generation_config.json where there is one; raises ConfigError."""
    return generation_defaults(_read_optional(folder / "generation_config.json"))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of bounded size; raises ConfigError with the path."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ConfigError(f"{path} has {path.stat().st_size} bytes, expected at most {MAX_JSON_BYTES}.")
        data = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_repeats)
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing. Give the folder of a Hugging Face model.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds a {type(data).__name__}, expected an object.")
    return data


def target_config(data: Mapping[str, Any]) -> TargetConfig:
    """A target from a parsed config.json; raises ConfigError."""
    outer = _Reader(data)
    _known_type(outer, ("gemma4", "gemma4_text"), "a target. Is this the folder of a drafter or of another model?")
    read = _text_part(outer) if data["model_type"] == "gemma4" else outer
    layers = _layers(read, first_shared=_first_shared(read))
    first_shared = sum(not layer.is_shared for layer in layers)
    per_layer_len = read.size("hidden_size_per_layer_input", low=0, high=1 << 14)
    vocab_len = read.size("vocab_size")
    if per_layer_len:
        read.exactly("vocab_size_per_layer_input", vocab_len)
    return TargetConfig(
        model_type=data["model_type"],
        hidden_len=read.size("hidden_size"),
        vocab_len=vocab_len,
        per_layer_len=per_layer_len,
        layers=layers,
        first_shared=first_shared,
        donor={layer.kind: index for index, layer in enumerate(layers[:first_shared])},
        window=read.size("sliding_window"),
        eps=read.number("rms_norm_eps", 1e-6, high=1.0),
        softcap=None if read.get("final_logit_softcapping") is None else read.number("final_logit_softcapping"),
        max_positions=read.size("max_position_embeddings"),
        eos_ids=outer.ids("eos_token_id") or read.ids("eos_token_id") or FALLBACK_EOS,
        rope=_ropes(read, layers),
        unknown_fields=_unknown(outer, read),
    )


def drafter_config(data: Mapping[str, Any], generation: Mapping[str, Any] | None = None) -> DrafterConfig:
    """A drafter from a parsed config.json and generation_config.json; raises ConfigError."""
    outer = _Reader(data)
    _known_type(outer, ("gemma4_assistant",), "a drafter. Give the folder of an assistant model")
    read = _text_part(outer)
    for name, value in (("hidden_size_per_layer_input", 0), ("use_double_wide_mlp", False)):
        read.exactly(name, value)
    if read.get("final_logit_softcapping") is not None:
        raise ConfigError(
            f"final_logit_softcapping of the drafter is {read.get('final_logit_softcapping')!r}, expected null."
        )
    count = read.size("num_hidden_layers", high=MAX_LAYERS)
    if read.size("num_kv_shared_layers", 0, low=0) not in (0, count):  # the reference reads 0 as all
        raise ConfigError(
            f"num_kv_shared_layers of the drafter is {read.get('num_kv_shared_layers')}, expected {count}."
        )
    layers, vocab_len = _layers(read, first_shared=0, is_drafter=True), read.size("vocab_size")
    num_clusters, top_clusters = _clusters(outer, vocab_len)
    return DrafterConfig(
        model_type=data["model_type"],
        hidden_len=read.size("hidden_size"),
        backbone_len=outer.size("backbone_hidden_size"),
        vocab_len=vocab_len,
        layers=layers,
        num_kv_heads={layer.kind: layer.num_kv_heads for layer in layers},
        num_clusters=num_clusters,
        top_clusters=top_clusters,
        window=read.size("sliding_window"),
        eps=read.number("rms_norm_eps", 1e-6, high=1.0),
        max_positions=read.size("max_position_embeddings"),
        rope=_ropes(read, layers),
        num_draft_tokens=_Reader(generation or {}).size("num_assistant_tokens", NUM_DRAFT_TOKENS),
        unknown_fields=_unknown(outer, read),
    )


def generation_defaults(data: Mapping[str, Any]) -> GenerationDefaults:
    """Sampling defaults from a parsed generation_config.json; `do_sample` false means temperature 0."""
    read = _Reader(data)
    return GenerationDefaults(
        eos_ids=read.ids("eos_token_id") or FALLBACK_EOS,
        temperature=read.number("temperature", 1.0, low=0.0) if read.flag("do_sample", False) else 0.0,
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


class _Reader:
    """Checked access to one JSON object: every error names the field, what it is and what was expected."""

    def __init__(self, data: Mapping[str, Any], prefix: str = "") -> None:
        self.data = data
        self._prefix = prefix

    def get(self, name: str) -> Any:
        return self.data.get(name)

    def size(self, name: str, default: int | None = None, low: int = 1, high: int = MAX_SIZE) -> int:
        """A whole number; null counts as absent."""
        value = self.data.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.refuse(name, f"a whole number from {low} to {high}")
        return value

    def number(self, name: str, default: float | None = None, low: float = 1e-30, high: float = 1e12) -> float:
        value = self.data.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            self.refuse(name, f"a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.data.get(name)
        value = default if value is None else value
        if not isinstance(value, bool):
            self.refuse(name, "true or false")
        return value

    def ids(self, name: str) -> tuple[int, ...]:
        """Token ids from one id or a list of them; empty where the field is absent."""
        value = self.data.get(name)
        found = [] if value is None else value if isinstance(value, list) else [value]
        if not all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < MAX_SIZE for i in found):
            self.refuse(name, "a token id or a list of token ids")
        return tuple(found)

    def part(self, name: str) -> _Reader:
        value = self.data.get(name)
        if not isinstance(value, dict):
            self.refuse(name, "an object")
        return _Reader(value, f"{self._prefix}{name}.")

    def exactly(self, name: str, expected: Any, why: str = "nothing else is supported") -> None:
        """A field that we support with one value only; absent and null count as that value."""
        value = self.data.get(name)
        if value is not None and (value != expected or isinstance(value, bool) != isinstance(expected, bool)):
            self.refuse(name, f"{json.dumps(expected)}: {why}")

    def refuse(self, name: str, expected: str) -> NoReturn:
        got = repr(self.data[name])[:120] if name in self.data else "missing"
        raise ConfigError(f"{self._prefix}{name} in the config is {got}, expected {expected}.")

    def unknown(self, known: set[str]) -> list[str]:
        return [f"{self._prefix}{name}" for name in sorted(set(self.data) - known)]


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name[:80]!r} is there twice")
        found[name] = value
    return found


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _known_type(read: _Reader, types: tuple[str, ...], what: str) -> None:
    own = read.get("model_type")
    if isinstance(own, str) and own in NOT_YET:
        raise ConfigError(f"model_type is {own!r}: {NOT_YET[own]} is not yet supported. Use an E2B or E4B model.")
    if own not in types:
        raise ConfigError(f"model_type is {own!r}, expected {' or '.join(types)}: {what}.")


def _text_part(outer: _Reader) -> _Reader:
    read = outer.part("text_config")
    _known_type(read, ("gemma4_text", "gemma4_unified_text"), "the text part of Gemma 4")
    outer.exactly("tie_word_embeddings", True)
    outer.exactly("quantization_config", None, "quantised files are not yet supported")
    return read


def _unknown(outer: _Reader, read: _Reader) -> tuple[str, ...]:
    own = read.unknown(TEXT_FIELDS)
    return tuple(own if outer is read else outer.unknown(OUTER_FIELDS) + own)


def _first_shared(read: _Reader) -> int:
    count, shared = read.size("num_hidden_layers", high=MAX_LAYERS), read.size("num_kv_shared_layers", 0, low=0)
    if shared >= count:
        read.refuse("num_kv_shared_layers", f"fewer than the {count} layers")
    return count - shared


def _clusters(outer: _Reader, vocab_len: int) -> tuple[int, int]:
    """(clusters, how many are looked into), both 0 where the head is dense; a declared number alone means nothing."""
    if not outer.flag("use_ordered_embeddings", False):
        return 0, 0
    count = outer.size("num_centroids", 2048)
    if vocab_len % count:
        outer.refuse("num_centroids", f"a divisor of the vocabulary ({vocab_len})")
    return count, outer.size("centroid_intermediate_top_k", 32, high=count)


def _refuse_unsupported(read: _Reader) -> None:
    read.exactly("hidden_activation", "gelu_pytorch_tanh")
    read.exactly("attention_bias", False)
    read.exactly("tie_word_embeddings", True)
    for name, what in (("enable_moe_block", "mixture-of-experts models"), ("attention_k_eq_v", "keys used as values")):
        read.exactly(name, False, f"{what} are not yet supported, use an E2B or E4B model")
    read.exactly("quantization_config", None, "quantised files are not yet supported")
    if read.get("use_bidirectional_attention") not in (None, "vision"):  # "vision" changes nothing without images
        read.refuse("use_bidirectional_attention", "null or vision")


def _layers(read: _Reader, first_shared: int, is_drafter: bool = False) -> tuple[LayerConfig, ...]:
    """Every layer of a text config; layers from `first_shared` on store no keys and values (specification 2.7)."""
    _refuse_unsupported(read)
    kinds = _kinds(read, read.size("num_hidden_layers", high=MAX_LAYERS))
    num_heads, window = read.size("num_attention_heads", high=1 << 12), read.size("sliding_window")
    mlp_len, is_double = read.size("intermediate_size"), read.flag("use_double_wide_mlp", False)
    layers = []
    for index, (kind, (head_len, num_kv_heads)) in enumerate(zip(kinds, _head_sizes(read, kinds), strict=True)):
        if num_heads % num_kv_heads:
            read.refuse("num_attention_heads", f"a multiple of layer {index}'s {num_kv_heads} key/value heads")
        is_shared = index >= first_shared
        source = max((i for i in range(first_shared) if kinds[i] == kind), default=-1) if is_shared else index
        if source < 0 and not is_drafter:
            raise ConfigError(
                f"layer {index} shares {kind} keys, but no {kind} layer before layer {first_shared} stores any."
            )
        own_mlp_len = mlp_len * 2 if is_double and is_shared else mlp_len
        own_window = window if kind == "sliding" else None
        layers.append(LayerConfig(kind, head_len, num_heads, num_kv_heads, is_shared, source, own_mlp_len, own_window))
    return tuple(layers)


def _kinds(read: _Reader, count: int) -> list[str]:
    """Kind of each layer; where the file is silent five sliding to one full, as in the reference."""
    types = read.get("layer_types")
    if types is None:
        return ["sliding" if (index + 1) % 6 and index + 1 < count else "full" for index in range(count)]
    if not isinstance(types, list) or len(types) != count or not all(isinstance(t, str) and t in KINDS for t in types):
        read.refuse("layer_types", f"{count} names out of {', '.join(KINDS)}")
    if types[-1] != "full_attention":  # the reference silently turns it into one
        read.refuse("layer_types", "full_attention last")
    return [KINDS[t] for t in types]


def _head_sizes(read: _Reader, kinds: list[str]) -> list[tuple[int, int]]:
    """(head width, key/value heads) of every layer from both spellings, which must agree where both speak.

    Released files: full layers take `global_head_dim` (512 where absent) and, only with keys used as values,
    `num_global_key_value_heads`. transformers 5.24: `per_layer_config` lists what differs, and nothing is implied.
    """
    own = read.size("head_dim", 256, high=1 << 12), read.size("num_key_value_heads", high=1 << 12)
    full = read.size("global_head_dim", 512, high=1 << 12), own[1]
    if read.get("attention_k_eq_v"):
        full = full[0], read.size("num_global_key_value_heads", own[1], high=1 << 12)
    released = [full if kind == "full" else own for kind in kinds]
    if read.get("per_layer_config") is None:
        return released
    table = read.part("per_layer_config")
    strange = sorted(set(table.data) - {str(index) for index in range(len(kinds))})
    if strange:
        read.refuse("per_layer_config", f"layer numbers from 0 to {len(kinds) - 1}, not {strange[0][:40]!r}")
    listed = []
    for index, sizes in enumerate(released):
        override = table.part(str(index)) if str(index) in table.data else _Reader({})
        unknown = override.unknown({"head_dim", "num_key_value_heads"})
        if unknown:
            raise ConfigError(f"{unknown[0]} in the config is not known, expected head_dim or num_key_value_heads.")
        listed.append(
            (
                override.size("head_dim", own[0], high=1 << 12),
                override.size("num_key_value_heads", own[1], high=1 << 12),
            )
        )
        if read.get("global_head_dim") is not None and listed[-1][0] != sizes[0]:
            raise ConfigError(
                f"layer {index} has head width {listed[-1][0]} by per_layer_config, {sizes[0]} by global_head_dim and "
                "head_dim. Remove the wrong one."
            )
    return listed


def _ropes(read: _Reader, layers: tuple[LayerConfig, ...]) -> dict[str, np.ndarray]:
    """Inverse frequencies per kind; layers of one kind must have one head width."""
    table = _Reader(DEFAULT_ROPE) if read.get("rope_parameters") is None else read.part("rope_parameters")
    found = {}
    for long_name, kind in KINDS.items():
        widths = sorted({layer.head_len for layer in layers if layer.kind == kind})
        if len(widths) > 1:
            raise ConfigError(f"{kind} layers have head widths {widths}, expected one.")
        if widths:
            found[kind] = _inv_freq(table.part(long_name), widths[0])
    return found


def _inv_freq(read: _Reader, head_len: int) -> np.ndarray:
    """(R,) float32: theta^(−2i/Dh) ÷ factor of the rotated pairs (i, i + Dh/2), i < R.

    "default" rotates all Dh/2 pairs; "proportional" the first share of them, with the whole head width in the
    exponent (specification 2.5). Decimal arithmetic, because the C library's power differs between machines.
    """
    if head_len % 2:
        raise ConfigError(f"head width {head_len} is odd, expected an even one: rotary pairs need it.")
    unknown = read.unknown({"rope_type", "rope_theta", "partial_rotary_factor", "factor"})
    if unknown:
        raise ConfigError(f"{unknown[0]} in the config is not known; it may change every position.")
    theta, num_pairs, factor = read.number("rope_theta"), head_len // 2, 1.0
    if read.get("rope_type") == "proportional":
        share = read.number("partial_rotary_factor", 1.0, high=1.0)
        num_pairs = int(share * head_len // 2)
        if not num_pairs:
            read.refuse("partial_rotary_factor", f"enough to rotate a pair of a head of width {head_len}")
        factor = read.number("factor", 1.0)
    elif read.get("rope_type") == "default":
        read.exactly("partial_rotary_factor", 1.0)
        read.exactly("factor", 1.0)
    else:
        read.refuse("rope_type", "default or proportional")
    with localcontext() as context:
        context.prec = 40
        values = [Decimal(theta) ** (Decimal(-2 * i) / head_len) / Decimal(factor) for i in range(num_pairs)]
    return np.array([float(value) for value in values], dtype=np.float32)
