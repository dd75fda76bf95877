"""The decoder layers of a text config of Gemma 4: kinds, head sizes in both spellings, sharing, experts.

Source: specification 1, 2.5 to 2.7; transformers 5.24, Gemma4TextConfig and Gemma4UnifiedTextConfig.
"""

from __future__ import annotations

from dataclasses import dataclass

from foretoken.config.reader import Reader
from foretoken.errors import ConfigError

KINDS = {"sliding_attention": "sliding", "full_attention": "full"}
MAX_LAYERS = 1024
MAX_HEAD_SIZE = 1 << 12
MAX_EXPERTS = 1 << 12


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
    k_eq_v: bool = False  # no value projection: values are the raw keys, before norm and rotation
    num_experts: int = 0  # E; 0 where the MLP stands alone
    top_experts: int = 0  # experts that a row passes
    expert_len: int = 0  # F of one expert
    has_value_norm: bool = True
    has_scalar: bool = True  # one number that scales the layer's result


def read_layers(read: Reader, first_shared: int, is_drafter: bool = False) -> tuple[LayerConfig, ...]:
    """Every layer of a text config; layers from `first_shared` on store no keys and values (specification 2.7)."""
    kinds = _kinds(read, read.size("num_hidden_layers", high=MAX_LAYERS))
    num_heads, window = read.size("num_attention_heads", high=MAX_HEAD_SIZE), read.size("sliding_window")
    mlp_len, is_double = read.size("intermediate_size"), read.flag("use_double_wide_mlp", False)
    k_eq_v, (num_experts, top_experts, expert_len) = read.flag("attention_k_eq_v", False), _experts(read)
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
        layers.append(
            LayerConfig(
                kind=kind,
                head_len=head_len,
                num_heads=num_heads,
                num_kv_heads=num_kv_heads,
                is_shared=is_shared,
                kv_source=source,
                mlp_len=mlp_len * 2 if is_double and is_shared else mlp_len,
                window=window if kind == "sliding" else None,
                k_eq_v=k_eq_v and kind == "full",
                num_experts=num_experts,
                top_experts=top_experts,
                expert_len=expert_len,
            )
        )
    return tuple(layers)


def _experts(read: Reader) -> tuple[int, int, int]:
    """(experts, how many a row passes, width of one), all 0 where the block is off; sizes alone mean nothing."""
    if not read.flag("enable_moe_block", False):
        return 0, 0, 0
    count = read.size("num_experts", high=MAX_EXPERTS)
    return count, read.size("top_k_experts", high=count), read.size("moe_intermediate_size")


def named_kinds(read: Reader, count: int) -> list[str] | None:
    """Kind of each layer by `layer_types`; None where the file is silent."""
    types = read.get("layer_types")
    if types is None:
        return None
    if not isinstance(types, list) or len(types) != count or not all(isinstance(t, str) and t in KINDS for t in types):
        read.refuse("layer_types", f"{count} names out of {', '.join(KINDS)}")
    return [KINDS[t] for t in types]


def _kinds(read: Reader, count: int) -> list[str]:
    """Kind of each layer; where the file is silent five sliding to one full, as in the reference."""
    kinds = named_kinds(read, count)
    if kinds is None:
        return ["sliding" if (index + 1) % 6 and index + 1 < count else "full" for index in range(count)]
    if kinds[-1] != "full":  # the reference silently turns it into one
        read.refuse("layer_types", "full_attention last")
    return kinds


def _head_sizes(read: Reader, kinds: list[str]) -> list[tuple[int, int]]:
    """(head width, key/value heads) of every layer from both spellings, which must agree where both speak.

    Released files: full layers take `global_head_dim` (512 where absent) and, only with keys used as values,
    `num_global_key_value_heads`. transformers 5.24: `per_layer_config` lists what differs, and nothing is implied.
    """
    own = read.size("head_dim", 256, high=MAX_HEAD_SIZE), read.size("num_key_value_heads", high=MAX_HEAD_SIZE)
    full = read.size("global_head_dim", 512, high=MAX_HEAD_SIZE), _global_heads(read, own[1])
    released = [full if kind == "full" else own for kind in kinds]
    if read.get("per_layer_config") is None:
        return released
    listed = _listed_sizes(read, own, len(kinds))
    for index, (ours, theirs) in enumerate(zip(listed, released, strict=True)):
        if read.get("global_head_dim") is not None and ours[0] != theirs[0]:
            _contradicts(index, "head width", ours[0], theirs[0], "global_head_dim and head_dim")
        if read.get("num_global_key_value_heads") is not None and ours[1] != theirs[1]:
            names = "num_global_key_value_heads and num_key_value_heads"
            _contradicts(index, "key/value heads", ours[1], theirs[1], names)
    return listed


def _global_heads(read: Reader, own: int) -> int:
    """Key/value heads of full layers in the released spelling; their own number only where keys are values."""
    count = read.size("num_global_key_value_heads", own, high=MAX_HEAD_SIZE)
    if count != own and not read.flag("attention_k_eq_v", False):  # the reference silently takes `own`
        read.refuse("num_global_key_value_heads", f"null or {own} without attention_k_eq_v")
    return count


def _listed_sizes(read: Reader, own: tuple[int, int], count: int) -> list[tuple[int, int]]:
    """(head width, key/value heads) of every layer by `per_layer_config`: what it does not list is `own`."""
    table = read.part("per_layer_config")
    strange = sorted(set(table.data) - {str(index) for index in range(count)})
    if strange:
        read.refuse("per_layer_config", f"layer numbers from 0 to {count - 1}, not {strange[0][:40]!r}")
    listed = []
    for index in range(count):
        override = table.part(str(index)) if str(index) in table.data else Reader({})
        unknown = override.unknown({"head_dim", "num_key_value_heads"})
        if unknown:
            raise ConfigError(f"{unknown[0]} in the config is not known, expected head_dim or num_key_value_heads.")
        head_len = override.size("head_dim", own[0], high=MAX_HEAD_SIZE)
        listed.append((head_len, override.size("num_key_value_heads", own[1], high=MAX_HEAD_SIZE)))
    return listed


def _contradicts(index: int, what: str, listed: int, released: int, names: str) -> None:
    raise ConfigError(
        f"layer {index} has {what} {listed} by per_layer_config, {released} by {names}. Remove the wrong one."
    )
