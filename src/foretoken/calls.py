"""A call of a tool as Gemma 4 writes it, to a name and arguments (specification section 6).

    <|tool_call>call:NAME{key:value,…}<tool_call|>

Keys are bare, texts stand between two `<|"|>`, objects and lists are as in JSON: `{at:<|"|>noon<|"|>,days:[1,2]}`.
Quotes of JSON are read as well, since a model may fall back to them. The text comes from a model: whatever it is, the
answer is a call or None.
"""

from __future__ import annotations

import json
import re
from typing import Any

QUOTE = '<|"|>'
MAX_DEPTH = 32
_CALL = re.compile(r"(?:<\|tool_call>)?\s*call:([\w.-]{1,64})(\{.*\})\s*(?:<tool_call\|>)?", re.S)
_KEY = re.compile(r'\s*(?:<\|"\|>(.*?)<\|"\|>|"([^"]*)"|([^\s:{}\[\],"]+))\s*:', re.S)
_SPACE = re.compile(r"\s*")
_WORD = re.compile(r"[^\s,{}\[\]]+")


class _NotACall(ValueError):
    pass


def parse_call(text: str) -> tuple[str, dict[str, Any]] | None:
    """(name, arguments) of one call, None where the text is none."""
    match = _CALL.fullmatch(text)
    if match is None:
        return None
    try:
        arguments, end = _value(match[2], 0, MAX_DEPTH)
    except _NotACall:
        return None
    return (match[1], arguments) if end == len(match[2]) else None


def _value(text: str, at: int, depth: int) -> tuple[Any, int]:
    """The value that begins at `at`, and where it ends."""
    at = _skip(text, at)
    if depth == 0:
        raise _NotACall
    if text.startswith(QUOTE, at):
        end = text.find(QUOTE, at + len(QUOTE))
        if end < 0:
            raise _NotACall
        return text[at + len(QUOTE) : end], end + len(QUOTE)
    if text.startswith(("{", "["), at):
        return _items(text, at, depth)
    if text.startswith('"', at):
        try:
            return json.JSONDecoder().raw_decode(text, at)
        except ValueError as error:
            raise _NotACall from error
    word = _WORD.match(text, at)
    if word is None:
        raise _NotACall
    return _scalar(word[0]), word.end()


def _items(text: str, at: int, depth: int) -> tuple[Any, int]:
    """An object or a list; `at` is its bracket."""
    is_object, found = text[at] == "{", []
    closing = "}" if is_object else "]"
    at = _skip(text, at + 1)
    while not text.startswith(closing, at):
        key = ""
        if is_object:
            match = _KEY.match(text, at)
            if match is None:
                raise _NotACall
            key, at = next(group for group in match.groups() if group is not None), match.end()
        value, at = _value(text, at, depth - 1)
        found.append((key, value))
        at = _skip(text, at)
        if text.startswith(",", at):
            at = _skip(text, at + 1)
        elif not text.startswith(closing, at):
            raise _NotACall
    return dict(found) if is_object else [value for _, value in found], at + 1


def _scalar(word: str) -> Any:
    """A number or a constant; a word that is neither is a text whose marks are missing."""
    try:
        value = json.loads(word)
    except (ValueError, RecursionError):
        return word
    return value if value == value and value not in (float("inf"), float("-inf")) else word


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
