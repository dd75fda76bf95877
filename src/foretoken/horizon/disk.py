"""What was learned, on disk: one small JSON file per key, written atomically, and checked as if a stranger wrote it.

It saves the first rounds of the next start; without it everything is learned again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from foretoken.errors import ForetokenError, InputError
from foretoken.files import write_atomically

VERSION = 2
MAX_BYTES = 256 << 10


def path_of(folder: Path, key: str, kind: str = "horizon") -> Path:
    """Where the file of a kind for such a key lies; those of other versions have other names, and are left alone."""
    name = hashlib.sha256(f"{VERSION} {key}".encode("utf-8", "surrogatepass"))  # a path may hold any bytes
    return folder / f"{kind}-{name.hexdigest()[:32]}.json"


def read(path: Path, key: str) -> dict[str, Any] | None:
    """What was kept, or None where nothing is; raises InputError for anything but a small file of ours."""
    try:
        if not os.path.isfile(path):
            return None
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        kept = json.loads(text) if len(text) <= MAX_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    if not isinstance(kept, dict) or kept.get("version") != VERSION or kept.get("key") != key:
        raise InputError(f"{path} is not what this version keeps for this model and machine.")
    return kept


def write(path: Path, key: str, kept: dict[str, Any]) -> None:
    """Replace the file in one step. A folder that takes no files, or a full disk, costs the next start a few rounds."""
    text = json.dumps({"version": VERSION, "key": key, **kept}, allow_nan=False).encode()
    with suppress(OSError):
        write_atomically(path, text)


def take_over(path: Path, key: str, restore: Callable[[Any], None]) -> str:
    """Call `restore` with what was kept, where something was; why it is not used, where it does not fit, else empty."""
    try:
        kept = read(path, key)
    except InputError as error:
        return f"is not used: {error}"
    try:
        if kept is not None:
            restore(kept)
    except (ForetokenError, TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
        return f"is not used: it holds something else: {error}"
    return ""
