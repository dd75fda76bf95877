"""Files that users name, read with a bound; small files replaced in one step, and what a crash leaves of them."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from foretoken.errors import InputError

TEMPORARY = ".foretoken-"  # what names begin with until they are whole
STALE_S = 24 * 3600


def read_text(path: Path, max_bytes: int) -> str:
    """The UTF-8 text of a file or pipe of at most so many bytes, whatever size it says it has; raises InputError."""
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise InputError(f"{path} has more than {max_bytes} bytes, which is too much. Split it.")
        return data.decode("utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} cannot be read as text: {error}.") from error


def lines(text: str) -> list[str]:
    """The lines of a file of JSON lines, in whose texts other line separators than these may stand as they are."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")


def check_writable(path: Path, what: str) -> None:
    """Raise InputError where no file of that name could be made in its folder, or replaced."""
    if not os.path.isdir(path.absolute().parent):
        raise InputError(f"{str(path.parent)[:80]} is no folder, so no {what} can be kept there.")
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"the {what} {str(path)[:80]!r} cannot be written: {error.strerror or error}.") from error
    if is_folder:
        raise InputError(f"{str(path)[:80]!r} is a folder, and no {what} can take its place.")


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
