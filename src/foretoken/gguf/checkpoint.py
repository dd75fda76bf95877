"""The tensors of a GGUF file under their Hugging Face names, decoded a piece of rows at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foretoken.errors import WeightsError
from foretoken.gguf.container import Container, Entry
from foretoken.gguf.names import OTHER_PARTS, ROPE_FREQS, SPLIT_EXPERTS, hugging_face_name
from foretoken.gguf.types import as_q4_0, as_q8_0, decode
from foretoken.weights.checkpoint import fingerprint
from foretoken.weights.safetensors import shown

IDS = {"I32": "<i4", "I64": "<i8"}


@dataclass(frozen=True)
class GateUp:
    """Gate and up of all experts as one tensor (E, 2F, D), of each expert gate rows and then up, from two (E, F, D)."""

    gate: Entry
    up: Entry

    @property
    def dtype(self) -> str:
        return self.gate.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        experts, rows, width = self.gate.shape
        return experts, 2 * rows, width

    @property
    def itemsize(self) -> float:
        return self.gate.itemsize

    @property
    def row_bytes(self) -> int:
        return self.gate.row_bytes

    @property
    def num_rows(self) -> int:
        return 2 * self.gate.num_rows

    @property
    def num_bytes(self) -> int:
        return 2 * self.gate.num_bytes


class GgufCheckpoint:
    """A `weights.checkpoint.Checkpoint` over one GGUF file."""

    notes: tuple[str, ...] = ()
    norms_are_complete = True  # converters of Gemma 3 add the 1

    def __init__(self, container: Container) -> None:
        self.folder = container.path
        self.entries: dict[str, Entry | GateUp] = {}
        split: dict[str, dict[str, Entry]] = {}
        for name, entry in container.entries.items():
            if name == ROPE_FREQS or OTHER_PARTS.fullmatch(name):
                continue
            if match := SPLIT_EXPERTS.fullmatch(name):
                split.setdefault(name.replace(match[1], "gate_up", 1), {})[match[1]] = entry
                continue
            self._add(name, hugging_face_name(name), entry)
        for name, halves in split.items():
            self._add(name, hugging_face_name(name), self._joined(name, halves))

    def _add(self, name: str, known_as: str, entry: Entry | GateUp) -> None:
        if known_as in self.entries:
            raise WeightsError(f"{self.folder} has {shown(known_as)} twice, once as {shown(name)}. Use another file.")
        self.entries[known_as] = entry

    def _joined(self, name: str, halves: dict[str, Entry]) -> GateUp:
        kinds = {(entry.dtype, entry.shape) for entry in halves.values()}
        if len(halves) < 2 or len(kinds) > 1 or len(halves["gate"].shape) != 3:
            raise WeightsError(
                f"{shown(name)} of {self.folder} comes in parts {sorted(halves)} that do not fit each other, "
                "expected gate and up of one type and shape. Use another file."
            )
        return GateUp(**halves)

    def stored_dtype(self, name: str) -> str:
        """F32, or else BF16: what is stored in fewer bits was made from bf16, and counts as that (numerics.md)."""
        return "F32" if self.entries[name].dtype == "F32" else "BF16"

    def stored_bytes(self, name: str) -> int:
        return self.entries[name].num_bytes

    def read(self, name: str, rows: slice | np.ndarray | None = None) -> np.ndarray:
        entry = self.entries[name]
        values = decode(entry.dtype, self._raw(entry, slice(None) if rows is None else rows))
        return values.reshape(entry.shape) if rows is None else values

    def read_ids(self, name: str) -> np.ndarray:
        entry = self.entries[name]
        return self._raw(entry, slice(None)).view(IDS[entry.dtype]).reshape(entry.shape).astype(np.int64)

    def blocks(self, name: str, rows: slice | np.ndarray, format: str) -> np.ndarray | None:
        entry = self.entries[name]
        take = {"q4": as_q4_0, "q8": as_q8_0}.get(format)
        return None if take is None else take(entry.dtype, self._raw(entry, rows))

    def fingerprint(self, memory: Path) -> str:
        return fingerprint([self.folder], memory)

    def _raw(self, entry: Entry | GateUp, rows: slice | np.ndarray) -> np.ndarray:
        """(rows, bytes of a row) uint8, a copy."""
        if isinstance(entry, Entry):
            return np.array(self._mapped(entry)[rows])
        wanted = np.arange(entry.num_rows)[rows]
        expert, row = np.divmod(wanted, entry.shape[1])
        is_up, row = np.divmod(row, entry.gate.shape[1])
        found = np.empty((len(wanted), entry.row_bytes), np.uint8)
        for value, half in enumerate((entry.gate, entry.up)):
            chosen = is_up == value
            found[chosen] = self._mapped(half)[(expert * half.shape[1] + row)[chosen]]
        return found

    def _mapped(self, entry: Entry) -> np.ndarray:
        try:
            return np.memmap(entry.path, np.uint8, "r", entry.offset, (entry.num_rows, entry.row_bytes))
        except (OSError, ValueError) as error:
            raise WeightsError(f"{entry.path} cannot be read: {error}. Was it changed while it was loaded?") from error
