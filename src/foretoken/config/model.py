"""What a model is: frozen dataclasses, made once by the readers of each family and never changed after."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from foretoken.config.layers import LayerConfig

FALLBACK_EOS = (1, 106)
NUM_DRAFT_TOKENS = 6  # where an assistant's generation_config.json does not say (specification 1.3)


@dataclass(frozen=True)
class TargetConfig:
    """A text model. `rope` maps kind to the inverse frequencies (R,) float32 of the rotated pairs only.

    What tells Gemma 3 from Gemma 4 is here and in `layers`, as constants; nothing else asks for the family.
    """

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
    has_other_parts: bool = False  # the text model is one part of the files, beside those for pictures and sound
    query_scale: float = 1.0  # of queries after their norm, before rotation
    norm_offset: float = 0.0  # what Hugging Face files leave out of every norm weight
    unknown_fields: tuple[str, ...] = field(default=(), compare=False)

    @property
    def cache_layers(self) -> tuple[int, ...]:
        """Indices of the layers that store keys and values."""
        return tuple(range(self.first_shared))


@dataclass(frozen=True)
class DrafterConfig:
    """An assistant: queries only, over the target's donors. `num_kv_heads` maps kind to the heads that it reads.

    `head_vocab_len` is how many tokens it can guess: all, or fewer (`head_vocab_size`, ours: docs/distill.md).
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
