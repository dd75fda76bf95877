"""Prompt sets by domain: JSON lines in a file or a folder of files.

A line has `messages`, or a `text` to continue (`prompt` means the same), and, if need be, its `domain`; else the domain
is the file's name.
"""

from __future__ import annotations

import json
import os
from operator import itemgetter
from pathlib import Path
from typing import Any

from foretoken import files
from foretoken.errors import InputError, shown

SETS = Path(__file__).parents[3] / "bench" / "prompts"  # of a checkout
MAX_BYTES = 16 << 20
Prompts = dict[str, list[dict[str, Any]]]


def default_set(is_embedded: bool) -> Path:
    """The set of a checkout that fits the model; raises InputError where there is none, as in an installed package."""
    path = SETS / ("small" if is_embedded else "real")
    if not os.path.isdir(path):
        raise InputError("prompt sets come with a checkout only (bench/prompts). Name a file or folder with --prompts.")
    return path


def load(path: Path, limit: int | None = None) -> Prompts:
    """domain → prompts in the order of files and lines, at most `limit` of each; raises InputError with file and line.

    Of every prompt only what `Model.stream` takes is kept: messages, or prompt.
    """
    sets = sorted(path.glob("*.jsonl")) if os.path.isdir(path) else [path]
    if not sets:
        raise InputError(f"{path} holds no .jsonl file.")
    found: Prompts = {}
    for file in sets:
        for number, line in enumerate(files.lines(read_text(file)), 1):
            if line.strip():
                domain, prompt = _prompt(line, file.stem, f"line {number} of {file}")
                own = found.setdefault(domain, [])
                if limit is None or len(own) < limit:
                    own.append(prompt)
    if not found:
        raise InputError(f"{path} holds no prompt.")
    return found


def places(prompts: Prompts) -> list[tuple[int, str]]:
    """(number, domain) of every prompt, in the order of a turn: first those that come first in a domain, and so on."""
    return sorted(((i, domain) for domain, own in prompts.items() for i in range(len(own))), key=itemgetter(0))


def read_text(file: Path) -> str:
    """The text of a UTF-8 file of at most 16 MB; raises InputError."""
    return files.read_text(file, MAX_BYTES)


def _prompt(line: str, domain: str, where: str) -> tuple[str, dict[str, Any]]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise InputError(f"{where} is no JSON object.")
    domain = value.get("domain", domain)
    if not isinstance(domain, str) or not domain.isprintable():
        raise InputError(f"the domain of {where} is {shown(domain)}, expected a text that can be printed.")
    given = {name: value[name] for name in ("messages", "text", "prompt") if value.get(name) is not None}
    if list(given) == ["messages"] and isinstance(given["messages"], list):
        return domain, given
    if len(given) == 1 and isinstance(text := next(iter(given.values())), str):
        return domain, {"prompt": text}
    raise InputError(f'{where} needs "messages", a list, or "text" (or "prompt"), a text; one of them alone.')
