"""Packed weights on disk: made once per model and format, read back at the next start.

    64 bytes     magic, offset and length of the header, blake2b of the header
    payloads     each at a multiple of 64 bytes: first what is read into memory, then tables that are mapped
    header       JSON: key, where each payload lies, and the CRC-32 of every chunk of at most 16 MiB
                 (it finds accidents, which is all it is for, at three times the speed of blake2b)

Written to a temporary file in the same folder, synced and renamed, so a reader never sees half of one and writers
cannot disturb each other. The header comes last because sizes are known only then. Never a pickle.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from foretoken.errors import WeightsError
from foretoken.files import TEMPORARY, remove_stale
from foretoken.ops.arena import aligned

MAGIC = b"FTPACK\0\2"
HEAD = struct.Struct("<8sQQ32s8x")
ALIGN = 64
CHUNK_BYTES = 16 << 20
MAX_HEADER_BYTES = 64 << 20
MAX_TABLE_CHUNKS_CHECKED = 8  # a mapped table may have gigabytes: a start must not read them all
READ_THREADS = 4


class Writer:
    """A packed file in the making, as a context that leaves no half of one behind.

    Disks are full and folders read-only: the first OSError is kept in `error`, and from then on nothing happens.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.error: OSError | None = None
        self._path, self._key = path, key
        self._temporary: Path | None = None
        self._payloads: dict[str, list[int]] = {}  # name: [offset, bytes, 1 where mapped]
        self._chunks: list[list[Any]] = []  # [offset, bytes, checksum, 1 where mapped]
        self._end = HEAD.size

    def __enter__(self) -> Writer:
        try:
            remove_stale(self._path.parent)
            descriptor, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=".tmp", dir=self._path.parent)
            self._temporary = Path(name)
            self._file = os.fdopen(descriptor, "wb")
            self._file.write(b"\0" * HEAD.size)
        except OSError as error:
            self.error = error
        return self

    def __exit__(self, *_: Any) -> None:
        if self._temporary is not None:
            with suppress(OSError):
                self._file.close()
            with suppress(OSError):
                self._temporary.unlink(missing_ok=True)

    def add(self, name: str, pieces: Iterable[np.ndarray], is_mapped: bool) -> None:
        """Append a payload, given as uint8 arrays one after the other; mapped ones come last."""
        if self.error is not None:
            return
        start = self._end
        try:
            for piece in pieces:
                self._write(piece.data, is_mapped)
            self._payloads[name] = [start, self._end - start, int(is_mapped)]
            self._file.write(b"\0" * (-self._end % ALIGN))
            self._end += -self._end % ALIGN
        except OSError as error:
            self.error = error

    def _write(self, data: memoryview, is_mapped: bool) -> None:
        for at in range(0, len(data), CHUNK_BYTES):
            chunk = data[at : at + CHUNK_BYTES]
            self._chunks.append([self._end, len(chunk), zlib.crc32(chunk), int(is_mapped)])
            self._file.write(chunk)
            self._end += len(chunk)

    def finish(self) -> dict[str, np.ndarray]:
        """Write the header, make the file durable, put it in place; returns its tables, mapped."""
        if self.error is not None or self._temporary is None:
            return {}
        try:
            header = json.dumps({"key": self._key, "payloads": self._payloads, "chunks": self._chunks}).encode()
            self._file.write(header)
            self._file.seek(0)
            self._file.write(HEAD.pack(MAGIC, self._end, len(header), hashlib.blake2b(header, digest_size=32).digest()))
            self._file.flush()
            os.fsync(self._file.fileno())
            for start, count, is_mapped in self._payloads.values():
                if is_mapped:
                    _forget(self._file.fileno(), start, count)
            self._file.close()
            os.replace(self._temporary, self._path)
            return {name: _mapped(self._path, *where[:2]) for name, where in self._payloads.items() if where[2]}
        except OSError as error:
            self.error = error
            return {}


def restore(path: Path, key: str) -> dict[str, np.ndarray] | None:
    """Payloads (bytes,) uint8 by name, or None where no file is; raises WeightsError when damaged or foreign.

    Everything is read into one block of memory and checked, except mapped tables: of those up to eight chunks are.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for without end
        raise WeightsError("it is no file")
    try:
        with path.open("rb") as file:
            header = _header(file, key)
        payloads, chunks = header["payloads"], header["chunks"]
        end = max(
            [offset + count for offset, count, is_mapped in payloads.values() if not is_mapped], default=HEAD.size
        )
        memory = aligned(end - HEAD.size)
        _check_chunks(path, chunks, memory)
        return {name: _payload(path, memory, *where) for name, where in payloads.items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise WeightsError(f"it cannot be read ({error})") from error


def _header(file: BinaryIO, key: str) -> dict[str, Any]:
    size = os.fstat(file.fileno()).st_size
    head = file.read(HEAD.size)
    if len(head) < HEAD.size:
        raise WeightsError("it is cut off")
    magic, offset, count, digest = HEAD.unpack(head)
    if magic != MAGIC or count > MAX_HEADER_BYTES or offset + count != size:
        raise WeightsError("its length is not what it says, or it is no such file")
    file.seek(offset)
    text = file.read(count)
    if hashlib.blake2b(text, digest_size=32).digest() != digest:
        raise WeightsError("the checksum of its header is wrong")
    header = json.loads(text)
    if header["key"] != key:
        raise WeightsError("it belongs to another model or version")
    if any(not HEAD.size <= start <= start + length <= offset for start, length, _ in header["payloads"].values()):
        raise WeightsError("a payload lies outside")
    return dict(header)


def _check_chunks(path: Path, chunks: list[list[Any]], memory: np.ndarray) -> None:
    """Read what belongs in memory and compare checksums, on a few threads."""
    tables = [chunk for chunk in chunks if chunk[3]]
    step = -(-len(tables) // MAX_TABLE_CHUNKS_CHECKED) or 1
    wanted = [chunk for chunk in chunks if not chunk[3]] + tables[::step] + tables[-1:]

    def check(chunk: list[Any]) -> bool:
        offset, count, checksum, is_mapped = chunk
        start = offset - HEAD.size
        into = aligned(count) if is_mapped else memory[start : start + count]
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            view, filled = into.data, 0
            while filled < count and (got := file.readinto(view[filled:])):
                filled += got
            if is_mapped:
                _forget(file.fileno(), offset, count)
        return filled == count and zlib.crc32(into.data) == checksum

    with ThreadPoolExecutor(READ_THREADS) as pool:
        if not all(pool.map(check, wanted)):
            raise WeightsError("a checksum is wrong")


def _payload(path: Path, memory: np.ndarray, offset: int, count: int, is_mapped: int) -> np.ndarray:
    if is_mapped:
        return _mapped(path, offset, count)
    return memory[offset - HEAD.size : offset - HEAD.size + count]


def _mapped(path: Path, offset: int, count: int) -> np.ndarray:
    with path.open("rb") as file:
        return mapped(file, offset, count)


def mapped(file: IO[bytes], offset: int, count: int) -> np.ndarray:
    """(count,) uint8 of a file, read-only and in memory only where read: for tables read here and there."""
    before = offset % mmap.ALLOCATIONGRANULARITY
    memory = mmap.mmap(file.fileno(), before + count, access=mmap.ACCESS_READ, offset=offset - before)
    if sys.platform == "linux":
        memory.madvise(mmap.MADV_RANDOM)  # else every row brings 32 pages of its neighbours along
    return np.frombuffer(memory, np.uint8, count, before)


def _forget(descriptor: int, offset: int, count: int) -> None:
    """Drop a table's pages from the system's cache: of what is cached in one piece, a touched row would map it all."""
    if sys.platform == "linux":
        with suppress(OSError):  # a hint; not every file system takes it
            os.posix_fadvise(descriptor, offset, count, os.POSIX_FADV_DONTNEED)
