"""Small files that are replaced in one step, and what a crash leaves of them."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

TEMPORARY = ".foretoken-"  # what names begin with until they are whole
STALE_S = 24 * 3600


def write_atomically(path: Path, data: bytes) -> None:
    """Write a small file by way of a temporary one beside it; raises OSError."""
    descriptor, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except OSError:
        with suppress(OSError):
            os.unlink(name)
        raise


def remove_stale(folder: Path) -> None:
    """Remove temporary files that a crash left behind more than a day ago."""
    for path in folder.glob(f"{TEMPORARY}*.tmp"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_S:
                path.unlink()
