"""`--trace FILE.jsonl`: a line of JSON per round, to see afterwards what the horizon decided and why."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foretoken.errors import InputError

Trace = Callable[[dict[str, Any]], None]


@contextmanager
def opened(path: Path | None) -> Iterator[Trace | None]:
    """What to set as `Model.trace`; None where nobody asked.

    Raises InputError for a file that cannot be written: before anything is done, or where the disk is full later on,
    at the end, for the text must not pay for its trace. What stood in it is lost with the first line, or where all
    went well without one.
    """
    if path is None:
        yield None
        return
    try:
        file = path.open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise InputError(f"the trace {path} cannot be written: {error.strerror or error}.") from error
    failed: list[OSError] = []
    is_begun = False

    def begin() -> None:
        nonlocal is_begun
        if not is_begun and os.path.isfile(path):
            file.truncate(0)
        is_begun = True

    def write(line: dict[str, Any]) -> None:
        if not failed:
            try:
                begin()
                print(json.dumps(line, allow_nan=False), file=file)
            except OSError as error:
                failed.append(error)

    try:
        yield write
        begin()
    finally:
        try:
            file.close()
        except OSError as error:
            failed.append(error)
    if failed:
        raise InputError(f"the trace {path} is not whole: {failed[0].strerror or failed[0]}. The text is.")
