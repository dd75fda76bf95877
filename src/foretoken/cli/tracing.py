"""`--trace FILE.jsonl`: a line of JSON per round, to see afterwards what the horizon decided and why."""

from __future__ import annotations

import json
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
    at the end, for the text must not pay for its trace.
    """
    if path is None:
        yield None
        return
    try:
        file = path.open("w", encoding="utf-8", buffering=1)
    except OSError as error:
        raise InputError(f"the trace {path} cannot be written: {error.strerror or error}.") from error
    failed: list[OSError] = []

    def write(line: dict[str, Any]) -> None:
        if not failed:
            try:
                print(json.dumps(line, allow_nan=False), file=file)
            except OSError as error:
                failed.append(error)

    try:
        yield write
    finally:
        try:
            file.close()
        except OSError as error:
            failed.append(error)
    if failed:
        raise InputError(f"the trace {path} is not whole: {failed[0].strerror or failed[0]}. The text is.")
