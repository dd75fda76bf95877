"""In which format each part of a model is packed. Decided by the files and by what was asked, never by memory.

`auto` is q4 for what is 4-bit already, q8 otherwise. Where tensors have quantised types (GGUF) each part is settled by
its own: of Q4_0 alone it becomes q4, which is the same, else q8, which is the same for Q8_0, Q5_0 and Q4_0 and within
half a step of its own for the rest. Quantised files that say so in their config are refused there; what is left to
find are files that were quantised and then widened again, whose blocks of 32 hold at most 16 different values. There
it is all layers or none, and a part that is not like that itself (often the embedding) stays q8.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from foretoken.weights.checkpoint import Checkpoint
from foretoken.weights.gemma4 import Part

PLAIN = ("F32", "BF16", "F16", "I64", "I32")  # types without blocks
FORMATS = ("f32", "bf16", "q8", "q4")  # largest first
BLOCK, LEVELS = 32, 16  # values that share a scale in a 4-bit file, and how many different ones they can be
SAMPLED_ROWS = 4  # of each tensor; one block of a wider file already has more levels


def settled(parts: Sequence[Part], asked: str, checkpoint: Checkpoint) -> tuple[str, list[Part]]:
    """The format by name, and the parts with the format of each; those that the plan settles keep theirs."""
    if asked != "auto":
        return asked, in_format(parts, asked)
    open_parts = [part for part in parts if part.is_packed and part.format is None]
    layers = [part for part in open_parts if part.name.startswith("layers.")]
    types = {name: entry.dtype for name, entry in checkpoint.entries.items()}
    if any(dtype not in PLAIN for dtype in types.values()):
        four_bit = [part for part in open_parts if all(types[tensor] == "Q4_0" for tensor in part.tensors)]
        is_mostly = 2 * _num_values(part for part in layers if part in four_bit) > _num_values(layers)
        return "q4" if is_mostly else "q8", [_with(part, "q4" if part in four_bit else "q8") for part in parts]
    if not all(_is_four_bit(checkpoint, part) for part in layers):
        return "q8", in_format(parts, "q8")
    others = [part for part in open_parts if part not in layers and not _is_four_bit(checkpoint, part)]
    return "q4", [_with(part, "q8" if part in others else "q4") for part in parts]


def in_format(parts: Sequence[Part], format: str) -> list[Part]:
    """The parts with a format for each; those that the plan settles keep theirs."""
    return [_with(part, format) for part in parts]


def _with(part: Part, format: str) -> Part:
    return replace(part, format=format) if part.is_packed and part.format is None else part


def _num_values(parts: Iterable[Part]) -> int:
    return sum(math.prod(part.size) for part in parts)


def _is_four_bit(checkpoint: Checkpoint, part: Part) -> bool:
    """Whether no sampled block of the part holds more values than 4 bits can tell apart."""
    for tensor, shape in zip(part.tensors, part.row_shapes, strict=True):
        # np.unique would import numpy.ma, which takes longer than the rest of this.
        rows = np.array(sorted({int(row) for row in np.linspace(0, shape[0] - 1, SAMPLED_ROWS)}))
        values = checkpoint.read(tensor, rows)
        blocks = np.sort(values[:, : shape[1] // BLOCK * BLOCK].reshape(-1, BLOCK))
        num_levels = 1 + np.count_nonzero(np.diff(blocks), axis=1)
        if (num_levels > LEVELS).any():
            return False
    return True
