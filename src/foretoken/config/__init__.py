"""What a model is: frozen dataclasses made from config.json, checked once, never changed after.

`gemma4` and `gemma3` read the files of their families, `model` holds what comes of it. Unknown values raise; unknown
fields are listed in `unknown_fields`. Knows nothing of tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from foretoken.config import gemma3, gemma4
from foretoken.config.gemma4 import drafter_config
from foretoken.config.layers import LayerConfig
from foretoken.config.model import FALLBACK_EOS, DrafterConfig, GenerationDefaults, TargetConfig
from foretoken.config.reader import Reader, known_type, read_json, read_optional
from foretoken.errors import InputError, shown

__all__ = [
    "DrafterConfig",
    "GenerationDefaults",
    "LayerConfig",
    "TargetConfig",
    "drafter_config",
    "generation_defaults",
    "is_target",
    "load_drafter_config",
    "load_generation_defaults",
    "load_target_config",
    "pairing_problems",
    "read_json",
    "target_config",
    "with_clusters",
]


def is_target(folder: Path) -> bool:
    """Whether `folder`/config.json says that it is a target; raises ConfigError where it cannot be read."""
    return read_json(folder / "config.json").get("model_type") in (*gemma4.TARGET_TYPES, *gemma3.TARGET_TYPES)


def load_target_config(folder: Path) -> TargetConfig:
    """Read and check `folder`/config.json of a target; raises ConfigError."""
    return target_config(read_json(folder / "config.json"))


def load_drafter_config(folder: Path) -> DrafterConfig:
    """Read and check config.json and, where there is one, generation_config.json of a drafter; raises ConfigError."""
    return drafter_config(read_json(folder / "config.json"), read_optional(folder / "generation_config.json"))


def with_clusters(config: DrafterConfig, clusters: int | None, name: str) -> DrafterConfig:
    """A drafter that scores so many of its head's clusters, None: what its files say; InputError beyond what it has."""
    if clusters is None:
        return config
    if not config.num_clusters:
        raise InputError(f"the head of drafter {name} has no clusters. Leave draft_clusters out.")
    most = config.num_clusters
    if isinstance(clusters, bool) or not isinstance(clusters, int) or not 1 <= clusters <= most:
        raise InputError(f"draft_clusters is {shown(clusters)}, expected a whole number from 1 to {most}.")
    return replace(config, top_clusters=clusters)


def load_generation_defaults(folder: Path, eos_ids: tuple[int, ...] = FALLBACK_EOS) -> GenerationDefaults:
    """Read `folder`/generation_config.json where there is one; `eos_ids` are config.json's, for one that names none."""
    return generation_defaults(read_optional(folder / "generation_config.json"), eos_ids)


def target_config(data: Mapping[str, Any]) -> TargetConfig:
    """A target from a parsed config.json; raises ConfigError."""
    types = (*gemma4.TARGET_TYPES, *gemma3.TARGET_TYPES)
    known_type(Reader(data), types, "a target. This may be the folder of a drafter or of another model")
    family = gemma3 if data["model_type"] in gemma3.TARGET_TYPES else gemma4
    return family.target_config(data)


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
