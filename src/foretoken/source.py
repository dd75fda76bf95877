"""Where a model comes from: a Hugging Face folder or a GGUF file, opened as one thing with one interface.

Told apart by what is there, a folder or a file. What they say is checked where it is used: by `foretoken.config`,
`foretoken.weights`, `foretoken.tokenizer` and `foretoken.chat`, the same for both.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

from foretoken import config as configs
from foretoken.chat import ChatTemplate
from foretoken.errors import WeightsError
from foretoken.gguf import settings
from foretoken.gguf.checkpoint import GgufCheckpoint
from foretoken.gguf.container import read_container
from foretoken.gguf.vocabulary import Vocabulary, read_vocabulary
from foretoken.tokenizer import Tokenizer
from foretoken.weights.checkpoint import Checkpoint
from foretoken.weights.compressed import open_folder

SHOWN_CHARS = 40


class Source(Protocol):
    """A model's files. Every method raises ConfigError or WeightsError where they are not what they should be."""

    path: Path
    name: str

    @property
    def is_target(self) -> bool: ...

    def target_config(self) -> configs.TargetConfig: ...
    def drafter_config(self) -> configs.DrafterConfig: ...
    def generation_defaults(self, eos_ids: tuple[int, ...]) -> configs.GenerationDefaults: ...
    def checkpoint(self) -> Checkpoint: ...
    def tokenizer(self) -> Tokenizer: ...
    def chat_template(self) -> ChatTemplate | None: ...

    def pieces(self) -> Sequence[str] | None:
        """Spellings of all token ids, of a source that knows them without reading more files; None of others."""


class Folder:
    """A Hugging Face folder."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name

    @property
    def is_target(self) -> bool:
        return configs.is_target(self.path)

    def target_config(self) -> configs.TargetConfig:
        return configs.load_target_config(self.path)

    def drafter_config(self) -> configs.DrafterConfig:
        return configs.load_drafter_config(self.path)

    def generation_defaults(self, eos_ids: tuple[int, ...]) -> configs.GenerationDefaults:
        return configs.load_generation_defaults(self.path, eos_ids)

    def checkpoint(self) -> Checkpoint:
        return open_folder(self.path)

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_folder(self.path)

    def chat_template(self) -> ChatTemplate | None:
        return ChatTemplate.from_folder(self.path)

    def pieces(self) -> None:
        return None


class GgufFile:
    """A GGUF file; its header is read when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.stem
        self._container = read_container(path)

    @property
    def is_target(self) -> bool:
        return self._container.architecture in settings.TARGETS

    def target_config(self) -> configs.TargetConfig:
        return configs.target_config(settings.target_settings(self._container))

    def drafter_config(self) -> configs.DrafterConfig:
        return configs.drafter_config(settings.drafter_settings(self._container))

    def generation_defaults(self, eos_ids: tuple[int, ...]) -> configs.GenerationDefaults:
        return configs.generation_defaults(settings.generation_settings(self._container), eos_ids)

    def checkpoint(self) -> Checkpoint:
        return GgufCheckpoint(self._container)

    def tokenizer(self) -> Tokenizer:
        return Tokenizer(self._vocabulary.backend(), str(self.path))

    def chat_template(self) -> ChatTemplate | None:
        text = self._container.fields.get("tokenizer.chat_template")
        if not isinstance(text, str):
            return None
        return ChatTemplate(text, self._vocabulary.special_tokens(), f"the chat template of {self.path}")

    def pieces(self) -> Sequence[str] | None:
        has_some = "tokenizer.ggml.tokens" in self._container.fields
        return self._vocabulary.pieces if has_some else None

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return read_vocabulary(self._container)


def open_source(path: Path) -> Source:
    """The model at a path: a GGUF file where a file is, else a folder."""
    return GgufFile(path) if os.path.isfile(path) else Folder(path)


def check_same_tokens(drafter: Source, target: Tokenizer) -> None:
    """Raise WeightsError where a drafter knows its token ids by other spellings than the target's tokenizer."""
    pieces = drafter.pieces() or ()
    for index, piece in enumerate(pieces):
        if (own := target.piece(index)) != piece:
            raise WeightsError(
                f"drafter {drafter.path} has another tokenizer than this target: id {index} is "
                f"{piece[:SHOWN_CHARS]!r}, in the target {str(own)[:SHOWN_CHARS]!r}. Use the drafter made for it."
            )
