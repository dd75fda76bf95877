"""Descriptions of tools, checked: a list of function schemas as in OpenAI's API. They come from files and requests of
others, and go to the model's chat template, which decides how the model sees them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NoReturn

from foretoken.errors import InputError, shown

MAX_FILE_BYTES = 1 << 20
MAX_TOOLS = 128
MAX_DEPTH = 32
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def read_tools(path: str | Path) -> list[dict[str, Any]]:
    """The tools of a JSON file: a list, or an object with a list under `tools`; raises InputError."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise InputError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB, too much for descriptions of tools.")
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}.") from error
    if isinstance(value, dict) and "tools" in value:
        value = value["tools"]
    return check_tools(value, str(path))


def check_tools(value: Any, origin: str = "tools") -> list[dict[str, Any]]:
    """The tools, each {"type": "function", "function": {"name", "description", "parameters"}}; raises InputError.

    `type` may be left out. Names are distinct, `parameters` is a JSON schema (an object), all of it plain JSON.
    """
    if not isinstance(value, (list, tuple)):
        raise InputError(f"{origin} holds a {type(value).__name__}, expected a list of functions.")
    if not 1 <= len(value) <= MAX_TOOLS:
        raise InputError(f"{origin} holds {len(value)} functions, expected 1 to {MAX_TOOLS}.")
    tools = [_checked(tool, f"{origin}: entry {number}") for number, tool in enumerate(value, 1)]
    names = [tool["function"]["name"] for tool in tools]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{origin} describes {name} twice. Give each function its own name.")
    return tools


def _checked(tool: Any, where: str) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(tool, dict) or not isinstance(function, dict) or tool.get("type", "function") != "function":
        raise InputError(f'{where} is no function, expected {{"type": "function", "function": {{"name": …}}}}.')
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            f"{where} is named {shown(name)}, expected 1 to 64 letters, digits, dots, dashes or underscores."
        )
    if not isinstance(function.get("description", ""), str):
        raise InputError(f"{where} ({name}): its description is no text.")
    parameters = function.get("parameters", {})
    if not isinstance(parameters, dict) or not isinstance(parameters.get("properties", {}), dict):
        raise InputError(f"{where} ({name}): its parameters are no JSON schema of an object.")
    _check_json(tool, f"{where} ({name})", MAX_DEPTH)
    return {**tool, "type": "function", "function": {"description": "", **function}}


def _check_json(value: Any, where: str, depth: int) -> None:
    """Plain JSON types only, so deep and no deeper; a text must be valid as UTF-8."""
    if depth == 0:
        raise InputError(f"{where} is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise InputError(f"{where} has the key {shown(key)}, expected a text.")
            _check_json(key, where, depth)
            _check_json(inner, where, depth - 1)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _check_json(inner, where, depth - 1)
    elif isinstance(value, str):
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise InputError(f"{where} holds a text that is not valid as UTF-8.")
    elif not isinstance(value, (bool, int, float, type(None))) or value != value:
        raise InputError(f"{where} holds a {type(value).__name__}, expected JSON.")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
