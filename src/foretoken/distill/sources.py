"""Data of `foretoken distill`: passages of text files and prompts of JSON lines, as prompts that the target continues.

A .txt file is split at blank lines; short paragraphs are joined. A .jsonl line is an object with `messages`, `prompt`
or `text`. Passages are also read by the target as they are. Knows a tokenizer and a chat template, nothing of models.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from foretoken.chat import ChatTemplate
from foretoken.errors import InputError
from foretoken.files import lines, read_text
from foretoken.tokenizer import Tokenizer

MAX_FILE_BYTES = 256 << 20
PASSAGE_CHARS = 240  # paragraphs are joined until they have so many
MIN_CUT, MAX_CUT = 16, 96  # tokens of a passage that the target is given
MOST_TOKEN_CHARS = 16  # of a passage that is read from its beginning: tokens are shorter on the average
LONGEST_PROMPT = 256  # longer chats are left out: memory goes into what the target writes
ANSWER_ROLES = ("assistant", "model")
SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can spell one half


@dataclass(frozen=True)
class Source:
    """One passage (`messages` None) or one chat, whose last answer is left to the target."""

    text: str
    messages: list[dict[str, Any]] | None = None
    is_prompt: bool = False  # a text to be continued as it is, uncut


@dataclass(frozen=True)
class Prompt:
    """What the target continues: token ids, its number, the source it was cut from."""

    number: int
    source: int
    ids: list[int]


def read(paths: Sequence[Path]) -> list[Source]:
    """All sources of files, and of .txt and .jsonl files in folders; raises InputError with file and line."""
    files: list[Path] = []
    for path in paths:
        if os.path.isdir(path):
            inside = sorted(p for p in path.rglob("*") if p.suffix in (".txt", ".jsonl") and os.path.isfile(p))
            if not inside:
                raise InputError(f"{path} holds no .txt or .jsonl file. Give a folder of text, or files.")
            files += inside
        else:
            files.append(path)
    found = [source for file in files for source in _sources(file)]
    if not found:
        raise InputError(f"{', '.join(map(str, paths))[:400]} holds no text.")
    return found


def prompts(
    sources: Sequence[Source], tokenizer: Tokenizer, template: ChatTemplate | None, seed: int, rounds: int
) -> Iterator[Prompt]:
    """Prompts in an order that the seed decides, every source once a round, passages cut elsewhere each time.

    Chats that are too long, or that the template refuses, are left out; raises InputError for a chat without template.
    """
    number = 0
    for _ in range(rounds):
        order = list(range(len(sources)))
        Random(seed).shuffle(order)
        for index in order:
            ids = _ids(sources[index], tokenizer, template, Random(f"{seed}-{number}"))
            if ids:
                yield Prompt(number, index, ids)
            number += 1


def beginnings(sources: Sequence[Source], tokenizer: Tokenizer, seed: int, longest: int) -> Iterator[Prompt]:
    """Beginnings of all passages, LONGEST_PROMPT tokens and `longest` at most, in an order that the seed decides."""
    longest = min(longest, LONGEST_PROMPT)
    order = [index for index, source in enumerate(sources) if source.messages is None and not source.is_prompt]
    Random(seed).shuffle(order)
    for index in order:
        ids = tokenizer.encode(sources[index].text[: longest * MOST_TOKEN_CHARS], add_bos=True)
        yield Prompt(index, index, ids[:longest])


def _ids(source: Source, tokenizer: Tokenizer, template: ChatTemplate | None, rng: Random) -> list[int]:
    """Token ids of a prompt; empty where the source gives none."""
    if source.messages is not None:
        if template is None:
            raise InputError("the data has chat messages, but the model has no chat template. Give plain texts.")
        try:
            ids = tokenizer.encode(template.render(source.messages), add_bos=False)
        except InputError:
            return []
        return ids if len(ids) <= LONGEST_PROMPT else []
    ids = tokenizer.encode(source.text, add_bos=True)
    return ids[:LONGEST_PROMPT] if source.is_prompt else ids[: rng.randrange(MIN_CUT, MAX_CUT)]


def _sources(file: Path) -> list[Source]:
    text = read_text(file, MAX_FILE_BYTES)
    if file.suffix != ".jsonl":
        return [Source(passage) for passage in passages(text)]
    numbered = enumerate(lines(text), 1)
    return [_line(line, f"line {number} of {file}") for number, line in numbered if line.strip()]


def passages(text: str) -> Iterator[str]:
    """Paragraphs, neighbours joined until they have PASSAGE_CHARS characters."""
    held: list[str] = []
    for paragraph in text.replace("\r\n", "\n").split("\n\n"):
        if paragraph.strip():
            held.append(paragraph.strip("\n"))
        if sum(map(len, held)) >= PASSAGE_CHARS:
            yield "\n\n".join(held)
            held = []
    if held:
        yield "\n\n".join(held)


def _line(line: str, where: str) -> Source:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON: {error}.") from error
    if isinstance(value, dict):
        messages = value.get("messages")
        if isinstance(messages, list) and messages and all(isinstance(m, dict) for m in messages):
            asked = messages[:-1] if messages[-1].get("role") in ANSWER_ROLES else messages
            if asked:
                return Source("", asked)
        for name in ("prompt", "text"):
            if isinstance(value.get(name), str) and value[name].strip():
                if SURROGATE.search(value[name]):
                    raise InputError(f"{where} has half of a surrogate pair in its {name}, which is no text.")
                return Source(value[name], is_prompt=name == "prompt")
    raise InputError(f"{where} is no object with messages, prompt or text.")
