"""Checked access to JSON from outside: bounded files, no name twice, and errors that name the field.

Knows nothing of models. Every value is hostile until `Reader` has checked it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from foretoken.errors import ConfigError

MAX_JSON_BYTES = 16 << 20
MAX_SIZE = 1 << 24  # larger than any released size; a hostile file must not overflow a product
MAX_VOCAB = (1 << 19) - 1  # what the exact sums of top-p have room for (docs/formats.md)
QUANT_METHODS = ("compressed-tensors", "foretoken")  # `weights.compressed` looks at what else they say
# Fields that change nothing here: training, special ids, or read in another place.
IGNORED_FIELDS = {
    "architectures", "attention_dropout", "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id",
    "dtype", "torch_dtype", "initializer_range", "use_cache", "transformers_version",
    "is_encoder_decoder", "return_dict", "output_attentions", "output_hidden_states", "chunk_size_feed_forward",
    "id2label", "label2id", "problem_type", "_name_or_path", "_model_name_or_path",
}  # fmt: skip


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of bounded size; raises ConfigError with the path."""
    try:
        if not os.path.isfile(path):  # a pipe or device would hang or never end
            raise ConfigError(f"{path} is missing. Give the folder of a Hugging Face model.")
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ConfigError(f"{path} has {path.stat().st_size} bytes, expected at most {MAX_JSON_BYTES}.")
        data = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_repeats)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds a {type(data).__name__}, expected an object.")
    return data


class Reader:
    """Checked access to one JSON object: every error names the field, what it is and what was expected."""

    def __init__(self, data: Mapping[str, Any], prefix: str = "") -> None:
        self.data = data
        self._prefix = prefix

    def get(self, name: str) -> Any:
        return self.data.get(name)

    def size(self, name: str, default: int | None = None, low: int = 1, high: int = MAX_SIZE) -> int:
        """A whole number; null counts as absent."""
        value = self.data.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.refuse(name, f"a whole number from {low} to {high}")
        return value

    def number(self, name: str, default: float | None = None, low: float = 1e-30, high: float = 1e12) -> float:
        value = self.data.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            self.refuse(name, f"a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.data.get(name)
        value = default if value is None else value
        if not isinstance(value, bool):
            self.refuse(name, "true or false")
        return value

    def ids(self, name: str) -> tuple[int, ...]:
        """Token ids from one id or a list of them; empty where the field is absent."""
        value = self.data.get(name)
        found = [] if value is None else value if isinstance(value, list) else [value]
        if not all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < MAX_SIZE for i in found):
            self.refuse(name, "a token id or a list of token ids")
        return tuple(found)

    def part(self, name: str) -> Reader:
        value = self.data.get(name)
        if not isinstance(value, dict):
            self.refuse(name, "an object")
        return Reader(value, f"{self._prefix}{name}.")

    def exactly(self, name: str, expected: Any, why: str = "nothing else is supported") -> None:
        """A field that we support with one value only; absent and null count as that value."""
        value = self.data.get(name)
        if value is not None and (value != expected or isinstance(value, bool) != isinstance(expected, bool)):
            self.refuse(name, f"{json.dumps(expected)}: {why}")

    def refuse(self, name: str, expected: str) -> NoReturn:
        got = repr(self.data[name])[:120] if name in self.data else "missing"
        raise ConfigError(f"{self._prefix}{name} in the config is {got}, expected {expected}.")

    def unknown(self, known: set[str]) -> list[str]:
        return [f"{self._prefix}{name}" for name in sorted(set(self.data) - known)]


def known_type(read: Reader, types: tuple[str, ...], what: str) -> None:
    """Refuse a config whose `model_type` is none of `types`."""
    own = read.get("model_type")
    if own not in types:
        raise ConfigError(f"model_type is {str(own)[:40]!r}, expected {' or '.join(types)}: {what}.")


def text_part(outer: Reader, types: tuple[str, ...]) -> Reader:
    """The text part of an outer config, of one of `types`; what the two must agree on is checked."""
    read = outer.part("text_config")
    known_type(read, types, f"the text part of {outer.get('model_type')}")
    outer.exactly("tie_word_embeddings", True)
    known_quantisation(outer)
    return read


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name[:80]!r} is there twice")
        found[name] = value
    return found


def read_optional(path: Path) -> dict[str, Any]:
    return read_json(path) if os.path.exists(path) else {}


def known_quantisation(read: Reader) -> None:
    """Refuse quantised files but those of QUANT_METHODS."""
    if read.get("quantization_config") is not None:
        part = read.part("quantization_config")
        if part.get("quant_method") not in QUANT_METHODS:
            part.refuse("quant_method", f"{' or '.join(QUANT_METHODS)}; other quantised files are not read")
