"""The container of a GGUF file: its key/value fields and where its tensors lie. Hostile until checked.

Read by us and not by the `gguf` package, whose reader makes an array object of every token, score and merge of a
vocabulary (docs/log.md has the figures) and checks no length against the file. Here every count is checked against
what is left of the file before memory is taken, and the header as a whole is bounded.
Source: the format page of the ggml project ("GGUF"), versions 2 and 3. Knows nothing of models.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from foretoken.errors import WeightsError
from foretoken.gguf.types import NAMES, TYPES
from foretoken.weights.safetensors import shown

MAGIC, VERSIONS = b"GGUF", (2, 3)
MAX_HEADER_BYTES = 96 << 20  # Gemma 4's, with its vocabulary and merges, has about 20 MB
MAX_FIELDS, MAX_TENSORS, MAX_DIMENSIONS, MAX_KEY_BYTES = 1 << 14, 1 << 16, 4, 1 << 12
MAX_ITEMS = 1 << 22  # of all arrays of a file together; Gemma 4 has 1.3 million
MAX_ALIGNMENT = 1 << 20
READ_BYTES = 4 << 20
STRING, ARRAY, BOOL = 8, 9, 7
SCALARS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "<u1", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: type by name, shape as NumPy counts (last axis fastest), file, offset of its first byte."""

    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int

    @property
    def itemsize(self) -> float:
        """Bytes of one value; a fraction in types with blocks."""
        count, size = TYPES[self.dtype]
        return size / count

    @property
    def row_bytes(self) -> int:
        """Bytes of the last axis."""
        count, size = TYPES[self.dtype]
        return self.shape[-1] // count * size

    @property
    def num_rows(self) -> int:
        return math.prod(self.shape[:-1])

    @property
    def num_bytes(self) -> int:
        return self.num_rows * self.row_bytes


@dataclass(frozen=True)
class Container:
    """What a file's header says. Fields are str, bool, int, float, list[str], or one-dimensional numeric arrays."""

    path: Path
    fields: dict[str, Any]
    entries: dict[str, Entry]

    @property
    def architecture(self) -> str:
        """What kind of model the file says it is; of a file that says something else than a text, that thing shown."""
        value = self.fields.get("general.architecture")
        return value if isinstance(value, str) else repr(value)


def read_container(path: Path) -> Container:
    """The header of a GGUF file, every size checked; raises WeightsError."""
    try:
        if not os.path.isfile(path):  # a pipe or device would hang or never end
            raise WeightsError(f"{path} is no file. Give a GGUF file or the folder of a Hugging Face model.")
        with path.open("rb") as file:
            return _read(path, _Header(path, file))
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error


def _read(path: Path, header: _Header) -> Container:
    if header.take(4) != MAGIC:
        raise WeightsError(f"{path} is no GGUF file. Give a GGUF file or the folder of a Hugging Face model.")
    version = header.number("<u4")
    if version not in VERSIONS:
        big = " (it seems to be big-endian)" if version & 0xFFFF == 0 else ""
        raise WeightsError(f"{path} has GGUF version {version}{big}, expected {' or '.join(map(str, VERSIONS))}.")
    num_tensors, num_fields = header.number("<u8"), header.number("<u8")
    if num_tensors > MAX_TENSORS or num_fields > MAX_FIELDS:
        header.refuse(f"says it has {num_tensors} tensors and {num_fields} fields, more than any model")
    fields: dict[str, Any] = {}
    for _ in range(num_fields):
        key = header.text(MAX_KEY_BYTES)
        if key in fields:
            header.refuse(f"has the field {shown(key)} twice")
        fields[key] = header.value(key)
    infos = [_info(header) for _ in range(num_tensors)]
    start = header.at + -header.at % _alignment(header, fields)
    return Container(path, fields, _entries(header, infos, start, _alignment(header, fields)))


def _alignment(header: _Header, fields: dict[str, Any]) -> int:
    value = fields.get("general.alignment", 32)
    if not isinstance(value, int) or not 0 < value <= MAX_ALIGNMENT or value & (value - 1) or isinstance(value, bool):
        header.refuse(f"has general.alignment {str(value)[:40]}, expected a power of two up to {MAX_ALIGNMENT}")
    return value


def _info(header: _Header) -> tuple[str, tuple[int, ...], int, int]:
    """(name, shape, type, offset) of one tensor, as the file says."""
    name = header.text(MAX_KEY_BYTES)
    rank = header.number("<u4")
    if not 1 <= rank <= MAX_DIMENSIONS:
        header.refuse(f"has tensor {shown(name)} with {rank} dimensions, expected 1 to {MAX_DIMENSIONS}")
    sizes = [header.number("<u8") for _ in range(rank)]
    return name, tuple(reversed(sizes)), header.number("<u4"), header.number("<u8")


def _entries(header: _Header, infos: list[Any], start: int, alignment: int) -> dict[str, Entry]:
    """Tensors by name: known types, whole blocks, inside the file, no two in one place and none named twice."""
    entries: dict[str, Entry] = {}
    end, last = start, ""
    for name, shape, number, offset in sorted(infos, key=lambda info: info[3]):
        where = f"has tensor {shown(name)}"
        dtype = NAMES.get(number, f"number {number}")
        if dtype not in TYPES:
            raise WeightsError(
                f"tensor {shown(name)} of {header.path} has type {dtype}, which is not supported; "
                f"expected one of {', '.join(TYPES)}. Use a file in another quantisation."
            )
        if name in entries:
            header.refuse(f"{where} twice")
        if not all(0 < size < 1 << 48 for size in shape) or shape[-1] % TYPES[dtype][0]:
            header.refuse(f"{where} with shape {str(list(shape))[:80]}, expected rows of {TYPES[dtype][0]} values each")
        if offset % alignment:
            header.refuse(f"{where} at offset {offset}, expected a multiple of {alignment}")
        entry = Entry(dtype, shape, header.path, start + offset)
        if entry.offset + entry.num_bytes > header.size:
            header.refuse(f"{where} up to byte {entry.offset + entry.num_bytes}, the file ends at {header.size}")
        if entry.offset < end:
            header.refuse(f"{where} in the place of {shown(last)}")
        entries[name], end, last = entry, entry.offset + entry.num_bytes, name
    return entries


class _Header:
    """The beginning of a file, read as far as it is needed and never further than it may go."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.at = path, 0
        self.size = path.stat().st_size
        self._file, self._data, self._items = file, bytearray(), 0

    def refuse(self, what: str) -> NoReturn:
        raise WeightsError(f"{self.path} {what}. The file is cut off or damaged; copy it again.")

    def take(self, count: int) -> bytes:
        self._fill(count)
        self.at += count
        return bytes(self._data[self.at - count : self.at])

    def number(self, dtype: str) -> Any:
        """One value, as Python's own number."""
        return np.frombuffer(self.take(np.dtype(dtype).itemsize), dtype)[0].item()

    def text(self, limit: int = MAX_HEADER_BYTES) -> str:
        length = self.number("<u8")
        if length > limit:
            self.refuse(f"has a text of {length} bytes, expected at most {limit}")
        return self._decoded(self.take(length))

    def value(self, key: str) -> Any:
        """The value of a field."""
        kind = self.number("<u4")
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            return self._array(key)
        if kind not in SCALARS:
            self.refuse(f"has field {shown(key)} of unknown type {kind}")
        number = self.number(SCALARS[kind])
        if kind == BOOL:
            return bool(number)
        return float(str(np.float32(number))) if kind == 6 else number  # the decimal that was stored: 1e-06

    def _array(self, key: str) -> Any:
        kind, count = self.number("<u4"), self.number("<u8")
        self._items += count
        if self._items > MAX_ITEMS:
            self.refuse(f"has field {shown(key)} of {count} items, expected at most {MAX_ITEMS} in all arrays")
        if kind == STRING:
            return self._texts(count)
        if kind not in SCALARS:
            self.refuse(f"has field {shown(key)}, an array of type {kind}, which is not supported")
        array = np.frombuffer(self.take(count * np.dtype(SCALARS[kind]).itemsize), SCALARS[kind])
        return array != 0 if kind == BOOL else array

    def _texts(self, count: int) -> list[str]:
        """Many strings; written out because a vocabulary has a million."""
        self._check(8 * count)
        found, unpack = [], struct.Struct("<Q").unpack_from
        for _ in range(count):
            self._fill(8)
            length = unpack(self._data, self.at)[0]
            self._fill(8 + length)
            self.at += 8 + length
            found.append(self._decoded(self._data[self.at - length : self.at]))
        return found

    def _decoded(self, raw: bytes | bytearray) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.refuse(f"has a text that is not UTF-8: {bytes(raw[:40])!r}")

    def _fill(self, count: int) -> None:
        """Have the next `count` bytes in memory."""
        missing = self.at + count - len(self._data)
        if missing > 0:
            self._check(count)
            self._data += self._file.read(max(missing, READ_BYTES))
            if self.at + count > len(self._data):
                self.refuse("ends within its header")

    def _check(self, count: int) -> None:
        if self.at + count > self.size:
            self.refuse(f"says its header goes on for {count} bytes from byte {self.at}, the file ends at {self.size}")
        if self.at + count > MAX_HEADER_BYTES:
            self.refuse(f"has a header of more than {MAX_HEADER_BYTES} bytes")
