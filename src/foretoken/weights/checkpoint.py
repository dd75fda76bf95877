"""What every reader of model files offers, and how files are told apart by content."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from foretoken.config import read_json
from foretoken.errors import ConfigError, WeightsError
from foretoken.files import write_atomically

HASH_PIECE_BYTES = 16 << 20
FINGERPRINTS, MAX_FINGERPRINTS = "fingerprints.json", 256
SETTLED_NS = 2_000_000_000  # a file changed less than this ago may change again within one tick of its clock


class Entry(Protocol):
    """A tensor as its file describes it. `itemsize` are bytes of one value, a fraction in types with blocks."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def itemsize(self) -> float: ...


class Checkpoint(Protocol):
    """The tensors of a model by their Hugging Face names (specification 5.1, 5.2), read a piece at a time."""

    @property
    def folder(self) -> Path:
        """The folder or the file, for messages."""

    @property
    def entries(self) -> Mapping[str, Entry]: ...

    @property
    def notes(self) -> Sequence[str]:
        """Sentences that the user should read once, on what is not taken as the files say."""

    @property
    def norms_are_complete(self) -> bool:
        """Whether norm weights that a model stores as w and uses as 1 + w (Gemma 3) have their 1 already."""

    def stored_dtype(self, name: str) -> str: ...
    def stored_bytes(self, name: str) -> int: ...

    def read(self, name: str, rows: slice | np.ndarray | None = None) -> np.ndarray:
        """A tensor, or rows of it (all but the last axis count rows), as a new float32 array."""

    def read_ids(self, name: str) -> np.ndarray:
        """A whole tensor of whole numbers."""

    def blocks(self, name: str, rows: slice | np.ndarray, format: str) -> np.ndarray | None:
        """Rows as blocks of `format`, (N, blocks, bytes) uint8, where the stored ones are that exactly; else None."""

    def fingerprint(self, memory: Path) -> str: ...


def fingerprint(paths: Sequence[Path], memory: Path) -> str:
    """SHA-256 over the files' own SHA-256s, which folder `memory` remembers by path, size and modification time.

    A memory that is missing, damaged or cannot be written only costs the time of hashing again.
    """
    known = _remembered(memory)
    total, new = hashlib.sha256(), {}
    for path in paths:
        stat = path.stat()
        key = f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
        digest = known.get(key) or _sha256(path)
        if key not in known and time.time_ns() - stat.st_mtime_ns > SETTLED_NS:
            new[key] = digest
        total.update(bytes.fromhex(digest))
    if new:
        kept = dict(list((known | new).items())[-MAX_FINGERPRINTS:])
        with suppress(OSError):
            write_atomically(memory / FINGERPRINTS, json.dumps(kept, indent=0).encode())
    return total.hexdigest()


def _remembered(memory: Path) -> dict[str, str]:
    try:
        known = read_json(memory / FINGERPRINTS)
    except ConfigError:
        return {}
    return {k: v for k, v in known.items() if isinstance(v, str) and re.fullmatch(r"[0-9a-f]{64}", v)}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(HASH_PIECE_BYTES):
                digest.update(piece)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    return digest.hexdigest()
