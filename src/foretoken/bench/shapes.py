"""Models in the exact shapes of the released ones, with random weights, built in memory without any file of theirs.

What runs is what a folder yields: the same configs (from the released spelling), the same parts, the same weight
classes, so `Gemma4`, `Assistant` and `Engine` take it unchanged. Numbers are drawn so that hidden rows stay finite and
logits have a spread of a few units; the text is noise, and drafts are hardly ever accepted.

Speed: for each width one pool of random rows is packed, and matrices are filled from it panel by panel (panels are
independent of each other, as in `weights.pack`). The per-layer table is a mapped, sparse, already unlinked file of
zeros: it is read by row like the real one and takes no memory, but its rows add nothing to the token part.
Source of the sizes: specification section 1.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foretoken.bench.subject import Subject
from foretoken.config import DrafterConfig, TargetConfig, drafter_config, target_config
from foretoken.drafters.mtp import MtpDrafter
from foretoken.errors import InputError
from foretoken.models.gemma4 import Gemma4
from foretoken.models.gemma4_assistant import Assistant
from foretoken.ops import Packed, native
from foretoken.ops.arena import SMALLEST, aligned
from foretoken.weights import FORMATS
from foretoken.weights.formats import in_format
from foretoken.weights.gemma4 import PANEL, Part, assemble, embed_scale, plan
from foretoken.weights.memory import packed_bytes, refuse_too_large
from foretoken.weights.pack import packed
from foretoken.weights.store import mapped

PIECE_BYTES = 1 << 28  # of memory that several parts share
POOL_VALUES = 2 << 20  # random weights packed per width
SLIDING, FULL = "sliding_attention", "full_attention"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Shape:
    """Sizes of a pair. Every `full_every`-th layer is full; None or 0 is off."""

    hidden: int
    num_layers: int
    full_every: int
    num_heads: int
    num_kv_heads: int
    mlp: int
    window: int
    draft_hidden: int
    draft_mlp: int
    draft_heads: int
    num_shared: int = 0
    per_layer: int = 0
    is_double_wide: bool = False
    num_global_kv_heads: int | None = None  # where set, keys of full layers are their values
    experts: tuple[int, int, int] = (0, 0, 0)  # how many, how many a row passes, width of one
    clusters: tuple[int, int] = (0, 0)  # of the drafter's head, and how many are looked into; 0: dense
    is_unified: bool = False
    head_len: int = 256
    full_head_len: int = 512
    vocab: int = 1 << 18
    context: int = 1 << 17


SHAPES = {
    "e2b": Shape(
        1536, 35, 5, 8, 1, 6144, 512, 256, 2048, 4,
        num_shared=20, per_layer=256, is_double_wide=True, clusters=(2048, 32),
    ),
    "e4b": Shape(2560, 42, 6, 8, 2, 10240, 512, 256, 2048, 4, num_shared=18, per_layer=256, clusters=(2048, 32)),
    "12b": Shape(
        3840, 48, 6, 16, 8, 15360, 1024, 1024, 8192, 16, num_global_kv_heads=1, is_unified=True, context=1 << 18
    ),
    "26b-a4b": Shape(
        2816, 30, 6, 16, 8, 2112, 1024, 1024, 8192, 16,
        num_global_kv_heads=2, experts=(128, 8, 704), context=1 << 18,
    ),
    "31b": Shape(5376, 60, 6, 32, 16, 21504, 1024, 1024, 8192, 32, num_global_kv_heads=4, context=1 << 18),
    "tiny": Shape(
        64, 8, 4, 4, 1, 96, 32, 32, 64, 4,
        num_shared=4, per_layer=16, is_double_wide=True, clusters=(32, 4),
        head_len=16, full_head_len=32, vocab=1 << 10, context=1 << 12,
    ),
}  # fmt: skip


def build(
    name: str, format: str, drafter_format: str | None = "q8", ops: Any = native, progress: Progress | None = None
) -> Subject:
    """The pair of that shape, its weights random and packed in `format`.

    name            a key of SHAPES
    format          one of FORMATS; for the drafter `drafter_format`, None builds no drafter
    progress        called with bytes filled and bytes in all
    raises          InputError for an unknown shape or format; WeightsError, before memory is taken, for a model that
                    does not fit, naming a format that would
    """
    shape, config, parts = _planned(name, format, drafter_format, ops)
    fill = RandomParts(ops, progress, packed_bytes(parts, ops))
    made = {part.name: fill.make(part) for part in parts}
    target = Gemma4(config, assemble(config, made, embed_scale(config.hidden_len, "BF16")), ops)
    drafter, drafter_parts = None, []
    if drafter_format is not None:
        drafter_cfg = drafter_config(drafter_json(shape))
        drafter_parts = _fitting(f"the drafter of shape {name}", drafter_cfg, drafter_format, ops)
        fill = RandomParts(ops)
        weights = assemble(drafter_cfg, {part.name: fill.make(part) for part in drafter_parts}, 1.0)
        drafter = MtpDrafter(Assistant(drafter_cfg, weights, target, ops))
    return Subject(
        name=name,
        format=format,
        target=target,
        drafter=drafter,
        parameters=num_parameters(parts),
        packed_bytes=packed_bytes(parts, ops) + packed_bytes(drafter_parts, ops),
        table_bytes=sum(made[part.name].data.nbytes for part in parts if part.is_mapped),
    )


def memory_bytes(name: str, format: str, drafter_format: str | None = "q8", ops: Any = native) -> int:
    """Packed bytes of what `build` would build, without building it; raises as it does."""
    shape, _, parts = _planned(name, format, drafter_format, ops)
    if drafter_format is None:
        return packed_bytes(parts, ops)
    drafter_parts = in_format(plan(drafter_config(drafter_json(shape))), drafter_format)
    return packed_bytes(parts, ops) + packed_bytes(drafter_parts, ops)


def _planned(name: str, format: str, drafter_format: str | None, ops: Any) -> tuple[Shape, TargetConfig, list[Part]]:
    """The shape of that name, its target's config and settled parts; refuses what `build` refuses of them."""
    if name not in SHAPES:
        raise InputError(f"shape is {name[:40]!r}, expected one of {', '.join(SHAPES)}.")
    for asked in (format, drafter_format or format):
        if asked not in FORMATS:
            raise InputError(f"format of a shape is {asked[:40]!r}, expected one of {', '.join(FORMATS)}.")
    config = target_config(target_json(SHAPES[name]))
    return SHAPES[name], config, _fitting(f"shape {name}", config, format, ops)


def num_parameters(parts: Sequence[Part]) -> int:
    """How many numbers the tensors of a plan hold; ids are none."""
    return sum(math.prod(shape) for part in parts if part.layout != "ids" for shape in part.shapes)


def _fitting(what: str, config: TargetConfig | DrafterConfig, format: str, ops: Any) -> list[Part]:
    """The parts of a model, settled; refused where they do not fit."""
    planned = plan(config)
    parts = in_format(planned, format)
    refuse_too_large(what, parts, format, planned, ops)
    return parts


class RandomParts:
    """Makes settled parts with random content, the same in every run; `total` bytes are expected, for `progress`."""

    def __init__(self, ops: Any, progress: Progress | None = None, total: int = 0) -> None:
        self._ops = ops
        self._progress = progress
        self._total, self._done = total, 0
        self._rng = np.random.default_rng(1)
        self._pools: dict[tuple[str, str, int, float], np.ndarray] = {}
        self._piece = np.empty(0, np.uint8)

    def make(self, part: Part) -> Any:
        """A part as `weights.pack.Packer.make` gives it."""
        if part.layout == "ids":
            return self._rng.permutation(part.shapes[0][0]).astype(np.int32)
        if part.layout == "array":
            return self._vector(part)
        pool = self._pool(part)  # (units, bytes of a unit); a unit is a panel of 16 rows, or a row
        count = -(-part.size[0] // (PANEL if part.layout == "panels" else 1))
        if part.is_mapped:
            return packed(part, _sparse(count * pool.shape[1]))
        data = self._take(count * pool.shape[1])
        units = data.reshape(count, -1)
        at = int(self._rng.integers(max(len(pool) - count, 0) + 1))
        filled = 0
        while filled < count:
            step = min(len(pool) - at, count - filled)
            units[filled : filled + step] = pool[at : at + step]
            filled, at = filled + step, 0
        self._tell(data.nbytes)
        return packed(part, data)

    def _take(self, count: int) -> np.ndarray:
        """(count,) uint8 out of large pieces, as a loaded model lies in one: small arrays alone get no huge pages."""
        if count > len(self._piece):
            self._piece = aligned(max(count, PIECE_BYTES))
        taken, self._piece = self._piece[:count], self._piece[-(-count // SMALLEST) * SMALLEST :]
        return taken

    def _vector(self, part: Part) -> np.ndarray:
        """(n,) float32 within 40 % of its centre; scalars of layers are 1."""
        length = part.shapes[0][0]
        if part.name.endswith("layer_scalar"):
            return np.ones(length, dtype=np.float32)
        centre = 0.5 if part.name.endswith(("q_norm", "k_norm")) else 4.0 if part.name == "norm" else 1.0
        return (centre * (0.6 + 0.8 * self._rng.random(length))).astype(np.float32)

    def _pool(self, part: Part) -> np.ndarray:
        """(units, bytes) uint8: packed random rows, as wide as the part's and of its spread."""
        assert part.format is not None
        width, spread = part.size[1], _spread(part)
        key = part.format, part.layout, width, spread
        if key not in self._pools:
            rows = max(POOL_VALUES // width // PANEL, 1) * PANEL
            values = self._rng.standard_normal((rows, width), dtype=np.float32) * np.float32(spread)
            made: Packed = self._ops.pack(values, part.format, part.layout)
            self._pools[key] = made.data.reshape(rows // (PANEL if part.layout == "panels" else 1), -1)
        return self._pools[key]

    def _tell(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)


def _spread(part: Part) -> float:
    """Standard deviation of a matrix's weights: products of normed rows get about one, router scores and logits two."""
    if part.name.endswith("experts.router"):
        return 2.0  # its input is scaled by D^(−1/2)
    # The embedding is small and the final norm large, or a token would mostly be followed by itself.
    return (0.5 if part.name in ("embed", "head") else 1.0) * float(part.size[1]) ** -0.5


def _sparse(count: int) -> np.ndarray:
    """(count,) uint8 zeros, mapped read-only from a file that has no blocks and, by now, no name."""
    with tempfile.TemporaryFile(prefix="foretoken-table-") as file:
        file.truncate(count)
        return mapped(file, 0, count)


# config.json in the spelling of released files


def target_json(s: Shape) -> dict[str, Any]:
    """config.json of the target, as released files have it."""
    kinds = [SLIDING if (i + 1) % s.full_every else FULL for i in range(s.num_layers)]
    count, top, width = s.experts
    text = _text(s, s.num_heads) | {
        "hidden_size": s.hidden,
        "intermediate_size": s.mlp,
        "layer_types": kinds,
        "num_hidden_layers": s.num_layers,
        "num_kv_shared_layers": s.num_shared,
        "use_double_wide_mlp": s.is_double_wide,
        "hidden_size_per_layer_input": s.per_layer,
        "vocab_size_per_layer_input": s.vocab,
        "final_logit_softcapping": 30.0,
        "enable_moe_block": count > 0,
    }
    if count:
        text |= {"num_experts": count, "top_k_experts": top, "moe_intermediate_size": width}
    return {"model_type": "gemma4_unified" if s.is_unified else "gemma4", "text_config": text}


def drafter_json(s: Shape) -> dict[str, Any]:
    """config.json of its drafter."""
    count, top = s.clusters
    text = _text(s, s.draft_heads) | {
        "hidden_size": s.draft_hidden,
        "intermediate_size": s.draft_mlp,
        "layer_types": [SLIDING, SLIDING, SLIDING, FULL],
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 4,
        "hidden_size_per_layer_input": 0,
        "vocab_size_per_layer_input": 0,
        "final_logit_softcapping": None,
    }
    return {
        "model_type": "gemma4_unified_assistant" if s.is_unified else "gemma4_assistant",
        "backbone_hidden_size": s.hidden,
        "use_ordered_embeddings": count > 0,
        "num_centroids": count or 2048,
        "centroid_intermediate_top_k": top or 32,
        "text_config": text,
    }


def _text(s: Shape, num_heads: int) -> dict[str, Any]:
    """What the text parts of target and drafter share."""
    return {
        "model_type": "gemma4_unified_text" if s.is_unified else "gemma4_text",
        "attention_bias": False,
        "attention_k_eq_v": s.num_global_kv_heads is not None,
        "global_head_dim": s.full_head_len,
        "head_dim": s.head_len,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": s.context,
        "num_attention_heads": num_heads,
        "num_global_key_value_heads": s.num_global_kv_heads,
        "num_key_value_heads": s.num_kv_heads,
        "rms_norm_eps": 1e-6,
        "sliding_window": s.window,
        "tie_word_embeddings": True,
        "vocab_size": s.vocab,
    }
