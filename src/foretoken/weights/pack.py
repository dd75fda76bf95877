"""Parts of a model to packed bytes: read a piece of rows, check it, hand it to `ops.pack`, join without a seam.

Pieces have a multiple of 16 rows: panels of 16 rows are independent and follow each other, so pieces packed alone and
laid end to end are the packed whole, and memory never holds a large matrix in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from foretoken.errors import ShapeError, WeightsError
from foretoken.ops import Packed
from foretoken.ops.arena import aligned
from foretoken.weights.checkpoint import Checkpoint
from foretoken.weights.gemma4 import PANEL, Part

PIECE_VALUES = 8 << 20  # values widened to float32 at a time


class Packer:
    """Packs the parts of one checkpoint, each in its format. `told` gets the bytes of each tensor piece read."""

    def __init__(self, checkpoint: Checkpoint, ops: Any, told: Callable[[int], None]) -> None:
        self._checkpoint = checkpoint
        self._ops = ops
        self._told = told
        self._ids: dict[str, np.ndarray] = {}  # permutations, needed again for the rows that they order

    def make(self, part: Part) -> Any:
        """The whole part in memory: `ops.Packed`, a float32 vector, or int32 ids."""
        if part.layout == "ids":
            return self.ids(part.tensors[0], part.limit)
        if part.layout == "array":
            return self._read(part.tensors[0])
        rows, width = part.size
        first, *rest = _spans(rows, width)
        data = self._pack(part, *first)
        if rest:
            piece, data = data, aligned(_whole_bytes(part, len(data), first[1]))
            data[: len(piece)], filled = piece, len(piece)
            for start, stop in rest:
                piece = self._pack(part, start, stop)
                data[filled : filled + len(piece)], filled = piece, filled + len(piece)
        return packed(part, data)

    def pieces(self, part: Part) -> Iterator[np.ndarray]:
        """The bytes of a packed part (uint8), a piece at a time; for a file."""
        for start, stop in _spans(*part.size):
            yield self._pack(part, start, stop)

    def ids(self, tensor: str, limit: int | None = None) -> np.ndarray:
        """A permutation (V,) int32 of its places, or below a limit ids that ascend; WeightsError for anything else."""
        if tensor not in self._ids:
            ids = self._checkpoint.read_ids(tensor)
            if limit is not None and not (ids[0] >= 0 and ids[-1] < limit and (ids[1:] > ids[:-1]).all()):
                raise WeightsError(f"{tensor} does not ascend from 0 to at most {limit - 1}. The file is damaged.")
            if limit is None and not np.array_equal(np.sort(ids), np.arange(len(ids))):
                raise WeightsError(f"{tensor} is not a permutation of 0 to {len(ids) - 1}. The file is damaged.")
            self._told(ids.nbytes)
            self._ids[tensor] = ids.astype(np.int32)
        return self._ids[tensor]

    def _pack(self, part: Part, start: int, stop: int) -> np.ndarray:
        """Rows start … stop of the part's tensors as if stacked, packed."""
        found, base = [], 0
        for tensor, (num_rows, _) in zip(part.tensors, part.row_shapes, strict=True):
            low, high = max(start - base, 0), min(stop - base, num_rows)
            if low < high:
                found.append((tensor, self.ids(part.order)[low:high] if part.order else slice(low, high)))
            base += num_rows
        try:
            data = self._taken(part, found)
            if data is None:
                rows = [self._read(tensor, rows) for tensor, rows in found]
                whole = rows[0] if len(rows) == 1 else np.concatenate(rows)  # (stop − start, K)
                data = self._ops.pack(whole, part.format, part.layout).data
        except (ShapeError, WeightsError) as error:  # a value that the format cannot hold
            raise WeightsError(f"{' or '.join(part.tensors)} cannot be packed: {error}") from error
        return data

    def _taken(self, part: Part, found: list[tuple[str, Any]]) -> np.ndarray | None:
        """The rows packed from blocks that are stored in the part's own format; None where none are.

        Where only some tensors of a part have such blocks, the others are rounded to it here.
        """
        assert part.format is not None
        taken = [self._checkpoint.blocks(tensor, rows, part.format) for tensor, rows in found]
        if all(blocks is None for blocks in taken):
            return None
        pack = {"q4": self._ops.pack_q4_0, "q8": self._ops.pack_q8_0}[part.format]
        stacked = []
        for (tensor, rows), blocks in zip(found, taken, strict=True):
            if blocks is None:
                values = self._read(tensor, rows)
                data = self._ops.pack(values, part.format, "rows").data
                stacked.append(data.reshape(len(values), -(-part.size[1] // 32), -1))
            else:
                stacked.append(blocks)
                self._tell(tensor, len(blocks) * part.size[1])
        packed: np.ndarray = pack(np.concatenate(stacked), part.layout).data
        return packed

    def _read(self, tensor: str, rows: Any = None) -> np.ndarray:
        values = self._checkpoint.read(tensor, rows)
        if not self._ops.finite(values.reshape(-1)):
            raise WeightsError(f"{tensor} has values that are NaN or infinite. The file is damaged; copy it again.")
        self._tell(tensor, values.size)
        return values

    def _tell(self, tensor: str, count: int) -> None:
        self._told(int(count * self._checkpoint.entries[tensor].itemsize))


def packed(part: Part, data: np.ndarray) -> Packed:
    """A settled part from its bytes, (bytes,) uint8."""
    assert part.format is not None
    return Packed(part.format, part.layout, *part.size, data)


def _spans(rows: int, width: int) -> list[tuple[int, int]]:
    step = max(PIECE_VALUES // width // PANEL, 1) * PANEL
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


def _whole_bytes(part: Part, first_bytes: int, first_rows: int) -> int:
    """Bytes of the whole from those of its first piece, which has full panels."""
    unit = PANEL if part.layout == "panels" else 1
    return -(-part.size[0] // unit) * (first_bytes // (first_rows // unit))
