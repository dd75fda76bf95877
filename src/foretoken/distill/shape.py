"""config.json of a new drafter for a target: everything that must agree comes from the target's own config."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from foretoken import config as configs
from foretoken.config import DrafterConfig, TargetConfig
from foretoken.errors import InputError

MAX_CLUSTERS, MIN_CLUSTER_LEN, TOP_CLUSTERS = 2048, 16, 32
LONG_NAMES = {"sliding": "sliding_attention", "full": "full_attention"}


@dataclass(frozen=True)
class Sizes:
    """What a user may choose. `head_vocab` 0 is the whole vocabulary, `clusters` −1 what suits it, 0 a dense head."""

    hidden: int = 256
    layers: int = 4
    mlp: int = 512
    head_vocab: int = 0
    clusters: int = -1


def config_data(target: TargetConfig, sizes: Sizes) -> dict[str, Any]:
    """config.json of a drafter for `target`, in the released spelling; raises InputError where there can be none."""
    if not 0 < sizes.hidden <= target.hidden_len or sizes.hidden % 32:
        raise InputError(
            f"hidden is {sizes.hidden}, expected a multiple of 32, at most the target's {target.hidden_len}."
        )
    head_vocab = sizes.head_vocab or target.vocab_len
    if not 2 <= head_vocab <= target.vocab_len:
        raise InputError(f"head-vocab is {head_vocab}, expected 2 to the target's vocabulary of {target.vocab_len}.")
    donors = {kind: target.layers[index] for kind, index in target.donor.items()}
    kinds = [kind if kind in donors else "full" for kind in ["sliding"] * (sizes.layers - 1) + ["full"]]
    full, near = donors["full"], donors.get("sliding", donors["full"])
    unit = math.lcm(*(donor.num_kv_heads for donor in donors.values()))
    clusters = _clusters(head_vocab, sizes.clusters)
    text = {
        "attention_bias": False,
        "attention_k_eq_v": full.num_kv_heads != near.num_kv_heads,  # only then may their numbers differ
        "enable_moe_block": False,
        "final_logit_softcapping": None,
        "global_head_dim": full.head_len,
        "head_dim": near.head_len,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": sizes.hidden,
        "hidden_size_per_layer_input": 0,
        "intermediate_size": sizes.mlp,
        "layer_types": [LONG_NAMES[kind] for kind in kinds],
        "max_position_embeddings": target.max_positions,
        "model_type": "gemma4_text",
        "num_attention_heads": unit * -(-4 // unit),
        "num_global_key_value_heads": full.num_kv_heads if full.num_kv_heads != near.num_kv_heads else None,
        "num_hidden_layers": sizes.layers,
        "num_key_value_heads": near.num_kv_heads,
        "num_kv_shared_layers": sizes.layers,
        "rms_norm_eps": target.eps,
        "rope_parameters": {LONG_NAMES[kind]: rope(target, kind) for kind in ("full", "sliding") if kind in donors},
        "sliding_window": target.window,
        "tie_word_embeddings": True,
        "use_double_wide_mlp": False,
        "vocab_size": target.vocab_len,
        "vocab_size_per_layer_input": 0,
    }
    data = {
        "architectures": ["Gemma4AssistantForCausalLM"],
        "backbone_hidden_size": target.hidden_len,
        "dtype": "bfloat16",
        "model_type": "gemma4_assistant",
        "text_config": text,
        "tie_word_embeddings": True,
        "use_ordered_embeddings": clusters > 0,
    }
    if clusters:
        data |= {"num_centroids": clusters, "centroid_intermediate_top_k": min(TOP_CLUSTERS, clusters)}
    if head_vocab != target.vocab_len:
        data["head_vocab_size"] = head_vocab
    return data


def checked(target: TargetConfig, data: dict[str, Any]) -> DrafterConfig:
    """The same as the runtime reads it; raises InputError where it would not fit the target."""
    config = configs.drafter_config(data)
    problems = configs.pairing_problems(target, config)
    if problems:
        raise InputError(f"no drafter can be made for this target: {'; '.join(problems)}.")
    return config


def _clusters(head_vocab: int, asked: int) -> int:
    """Clusters of equal size; fewer than asked never: a number that does not divide the head is refused."""
    if asked == 0 or (asked < 0 and head_vocab < 2 * TOP_CLUSTERS * MIN_CLUSTER_LEN):
        return 0  # most of a small head would be looked at anyway
    if asked > 0:
        if head_vocab % asked:
            raise InputError(f"clusters is {asked}, expected a divisor of the head's {head_vocab} tokens.")
        return asked
    most = min(MAX_CLUSTERS, head_vocab // MIN_CLUSTER_LEN)
    return next(count for count in range(most, 0, -1) if head_vocab % count == 0)


def rope(target: TargetConfig, kind: str) -> dict[str, Any]:
    """Parameters that give exactly the target's frequencies of a kind of layers, whatever spelling its file has."""
    own, head_len = target.rope[kind].astype(np.float64), target.layers[target.donor[kind]].head_len
    last, factor = len(own) - 1, float(np.float32(1.0 / own[0]))
    share = 2 * len(own) / head_len
    theta = (own[0] / own[last]) ** (head_len / (2 * last)) if last else 1e4
    for digits in range(1, 12):
        found: dict[str, Any] = {"rope_theta": float(f"{theta:.{digits}g}"), "rope_type": "default"}
        if share != 1.0:
            found |= {"rope_type": "proportional", "partial_rotary_factor": share}
        if factor != 1.0:
            found |= {"factor": factor} if share != 1.0 else {"rope_type": "linear", "factor": factor}
        if np.array_equal(_frequencies(found, head_len), target.rope[kind]):
            return found
    raise InputError(f"the rotary frequencies of the target's {kind} layers cannot be written in a drafter's config.")


def _frequencies(parameters: dict[str, Any], head_len: int) -> np.ndarray:
    """As the config of a drafter with one full layer gives them."""
    text = {
        "model_type": "gemma4_text", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1,
        "num_key_value_heads": 1, "head_dim": head_len, "global_head_dim": head_len, "intermediate_size": 32,
        "layer_types": ["full_attention"], "rope_parameters": {"full_attention": parameters}, "sliding_window": 1,
        "max_position_embeddings": 1, "vocab_size": 2, "num_kv_shared_layers": 1, "hidden_size_per_layer_input": 0,
    }  # fmt: skip
    data = {"model_type": "gemma4_assistant", "backbone_hidden_size": 32, "text_config": text}
    return configs.drafter_config(data).rope["full"]
