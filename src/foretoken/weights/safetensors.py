"""A folder of safetensors files as named arrays, read piece by piece. Files from outside are hostile until checked.

Only headers are read at first; every size is checked against the file before memory is taken. Values are widened to
float32 on reading. Holes between tensors are harmless and allowed. Source: the format page of the `safetensors`
project, whose own reader is stricter about holes but widens nothing and reads no index.
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foretoken.config import read_json
from foretoken.errors import WeightsError
from foretoken.weights.checkpoint import fingerprint

DTYPES = {
    "F32": np.float32,
    "BF16": np.uint16,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "I8": np.int8,
    "U8": np.uint8,
}  # fmt: skip  (those that we read)
ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
MAX_RANK = 8
MAX_HEADER_BYTES = 100 << 20
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: dtype as the file names it, shape, file, and the offset of its first byte."""

    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int

    @property
    def itemsize(self) -> int:
        return ITEM_BYTES[self.dtype]


class Checkpoint:
    """The tensors of a model folder, single file or shards; raises WeightsError where one is not what it says."""

    notes: tuple[str, ...] = ()
    norms_are_complete = False  # what Hugging Face files leave out of norm weights (`config.norm_offset`) is missing

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not os.path.isdir(folder):
            raise WeightsError(f"{folder} is not a folder. Give the folder of a Hugging Face model.")
        shards = _shards(folder)
        self.paths = list(shards)
        self.entries: dict[str, Entry] = {}
        for path, promised in shards.items():
            entries = read_header(path)
            for name in entries.keys() & self.entries.keys():
                raise WeightsError(f"tensor {shown(name)} stands in two shards of {folder}. Copy the model again.")
            for name in sorted(promised - entries.keys()):
                raise WeightsError(
                    f"{folder / INDEX} says that {shown(name)} is in {path.name}; it is not. Copy the model again."
                )
            self.entries |= entries

    def stored_dtype(self, name: str) -> str:
        return self.entries[name].dtype

    def stored_bytes(self, name: str) -> int:
        return math.prod(self.entries[name].shape) * self.entries[name].itemsize

    def read(self, name: str, rows: slice | np.ndarray | None = None) -> np.ndarray:
        """A tensor, or rows of it (all but the last axis count rows), as a new float32 array, widened exactly."""
        return widened(self.entries[name], rows)

    def read_ids(self, name: str) -> np.ndarray:
        """A whole tensor of whole numbers, as int64."""
        return np.array(mapped(self.entries[name]), np.int64)

    def blocks(self, name: str, rows: slice | np.ndarray, format: str) -> np.ndarray | None:
        """None: no dtype of these files is one of our formats."""
        return None

    def fingerprint(self, memory: Path) -> str:
        return fingerprint(self.paths, memory)


def widened(entry: Entry, rows: slice | np.ndarray | None = None) -> np.ndarray:
    """The values of an entry, or rows of them, as a new float32 array."""
    raw = mapped(entry)
    raw = raw if rows is None else raw.reshape(-1, raw.shape[-1])[rows]
    if entry.dtype == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return np.array(raw, np.float32)


def mapped(entry: Entry) -> np.ndarray:
    """The array of an entry as it is stored, read-only; BF16 as uint16."""
    try:
        return np.memmap(entry.path, DTYPES[entry.dtype], "r", entry.offset, entry.shape)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{entry.path} cannot be read: {error}. Was it changed while it was loaded?") from error


def read_header(path: Path) -> dict[str, Entry]:
    """All tensors of one file, checked: lengths, types, ranges inside the file, no two in one place."""
    text, start, size = _header_text(path)
    try:
        header = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"the header of {path} is not JSON: {error}. The file is damaged.") from error
    if not isinstance(header, dict):
        raise WeightsError(f"the header of {path} is a {type(header).__name__}, expected an object.")
    header.pop("__metadata__", None)
    entries, end, last = {}, 0, ""
    checked = [(name, *_checked(path, name, value)) for name, value in header.items()]
    for name, dtype, shape, (begin, stop) in sorted(checked, key=lambda row: row[3]):
        if begin < end:
            raise WeightsError(f"tensors {shown(last)} and {shown(name)} of {path} overlap. The file is damaged.")
        entries[name] = Entry(dtype, shape, path, start + begin)
        end, last = stop, name
    if start + end > size:
        raise WeightsError(f"{path} has {size} bytes, its header expects {start + end}. It is cut off; copy it again.")
    return entries


def _header_text(path: Path) -> tuple[bytes, int, int]:
    """(header, offset of the data, size of the file)"""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            limit = min(size - 8, MAX_HEADER_BYTES)
            if size < 8 or length > limit:
                raise WeightsError(
                    f"{path} says its header has {length} bytes, expected at most {max(limit, 0)}. "
                    "It is cut off or no safetensors file."
                )
            return file.read(length), 8 + length, size
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error


def _checked(path: Path, name: str, value: Any) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    """(dtype, shape, range in the data) of one header entry."""
    where = f"tensor {shown(name)} of {path}"
    try:
        dtype, shape, (begin, stop) = value["dtype"], value["shape"], value["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise WeightsError(f"{where} lacks dtype, shape or data_offsets. The file is damaged.") from error
    if not isinstance(shape, list) or len(shape) > MAX_RANK or not all(_is_size(n) for n in (begin, stop, *shape)):
        raise WeightsError(f"{where} has sizes that are no whole numbers in range. The file is damaged.")
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise WeightsError(f"{where} has dtype {str(dtype)[:40]!r}, expected one of {', '.join(ITEM_BYTES)}.")
    expected = math.prod(shape) * ITEM_BYTES[dtype]
    if stop - begin != expected:
        raise WeightsError(f"{where} has {stop - begin} bytes, its shape {str(shape)[:80]} needs {expected}.")
    return dtype, tuple(shape), (begin, stop)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48


def shown(name: str) -> str:
    """A name from a file, fit for one line of a message."""
    return name if re.fullmatch(r"[\w.\-]{1,160}", name) else repr(name[:160])


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _shards(folder: Path) -> dict[Path, set[str]]:
    """Files of the folder and the tensors that its index promises in each; nothing is promised of a single file."""
    index = folder / INDEX
    if os.path.isfile(folder / SINGLE):
        return {folder / SINGLE: set()}
    if not os.path.isfile(index):
        raise WeightsError(
            f"{folder} holds neither {SINGLE} nor {INDEX}. Give a Hugging Face folder with safetensors, never pickles."
        )
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(v, str) for v in names.values()):
        raise WeightsError(f"weight_map of {index} is not an object of file names. The file is damaged.")
    shards: dict[Path, set[str]] = {}
    for name, file in sorted(names.items(), key=lambda item: item[1]):
        if not re.fullmatch(r"[\w\-][\w.\-]*\.safetensors", file):
            raise WeightsError(
                f"{index} names the shard {file[:160]!r}, expected a plain .safetensors name in the folder."
            )
        shards.setdefault(folder / file, set()).add(name)
    for path in shards:
        if not os.path.isfile(path):
            raise WeightsError(f"shard {path.name} of {folder} is missing. Copy the model again.")
    return shards
