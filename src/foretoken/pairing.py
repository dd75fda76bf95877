"""From what a user names to a drafter: opens folders, checks that they fit the target, and joins several sources."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretoken import config as configs
from foretoken import weights
from foretoken.drafters.choice import Choice
from foretoken.drafters.model import ModelDrafter
from foretoken.drafters.mtp import MtpDrafter
from foretoken.drafters.protocol import Drafter
from foretoken.drafters.suffix import SuffixDrafter
from foretoken.errors import ConfigError, InputError, WeightsError, shown
from foretoken.models.gemma4 import Gemma4
from foretoken.models.gemma4_assistant import Assistant
from foretoken.ops import native
from foretoken.tokenizer import Tokenizer

EXPECTED = "auto, suffix, none, the path of a folder, or a list such as code=PATH,prose=PATH,suffix"
MAX_SOURCES = 8
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")


@dataclass(frozen=True)
class DrafterState:
    """Whether drafts are made, by what, and why or why not; nothing falls back in silence."""

    name: str
    state: str  # "on" or "off"
    reason: str
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Beside:
    """What a drafter is opened for: the target with its tokenizer, the folder that "auto" looks into, the packing of
    drafters, and where warnings go."""

    target: Gemma4
    tokenizer: Tokenizer
    own: Path
    format: str
    say: Callable[[str], None]


def find_drafter(asked: Any, beside: Beside) -> tuple[Drafter | None, DrafterState]:
    """The drafter that `asked` means, and its state.

    asked   "auto" (the target's own, and what stood in the text before), "suffix" (the latter alone), "none", the
            folder of a drafter, or of a smaller model with the same tokens; or a list of those and "suffix", joined by
            commas, folders with names where there are several: "code=PATH,prose=PATH,suffix"
    raises  InputError for what cannot be read so; ConfigError, WeightsError for a named folder that does not fit
    """
    if not isinstance(asked, (str, Path)):
        raise InputError(f"drafter is {shown(asked)}, expected {EXPECTED}.")
    if asked == "none":
        return None, DrafterState("none", "off", "switched off with drafter none")
    if asked == "auto":
        return _automatic(beside)
    named = _named(asked)
    models: list[Drafter] = []
    for name, path in named:
        if path is not None:
            model = _open(path, name, beside)
            if any(model.name == other.name for other in models):
                raise InputError(f"two drafters are called {model.name}. Name them, as in code=PATH,prose=PATH.")
            models.append(model)
    paths = [path for _, path in named if path is not None]
    has_suffix = len(paths) < len(named)
    name = paths[0].name if len(paths) == 1 and not has_suffix else ""
    return _joined(models, has_suffix, name, "named by the user")


def _automatic(beside: Beside) -> tuple[Drafter, DrafterState]:
    own = beside.own
    if not own.is_dir():
        return _joined([], True, "", f"from the text itself; no folder {own.name} beside the model")
    try:
        model = _open(own, "mtp", beside)
    except (ConfigError, WeightsError) as error:
        beside.say(f"the drafter beside the model is off: {error}")
        return _joined([], True, "", f"from the text itself; {own.name} is off: {error}")
    return _joined([model], True, own.name, "the model's own, and the text itself")


def _joined(models: list[Drafter], has_suffix: bool, name: str, reason: str) -> tuple[Drafter, DrafterState]:
    suffix = SuffixDrafter() if has_suffix else None
    sources: list[Drafter] = [*models, *([suffix] if suffix else [])]
    drafter = sources[0] if len(sources) == 1 else Choice(models, suffix)
    return drafter, DrafterState(name or drafter.name, "on", reason, tuple(source.name for source in sources))


def _named(asked: str | Path) -> list[tuple[str | None, Path | None]]:
    """(name, folder) of each source in a list; (None, None) is the text itself. A folder's name may have a comma."""
    if isinstance(asked, Path) or os.path.isdir(asked):
        return [(None, _absolute(asked))]
    parts = asked.split(",")
    if not all(parts) or len(parts) > MAX_SOURCES or parts.count("suffix") > 1:
        raise InputError(f"drafter is {shown(asked)}, expected {EXPECTED}, of at most {MAX_SOURCES} different sources.")
    found: list[tuple[str | None, Path | None]] = []
    for part in parts:
        name, is_pair, path = part.partition("=")
        if part == "suffix":
            found.append((None, None))
        elif not is_pair:
            found.append((None, _absolute(part)))
        elif NAME.fullmatch(name) and name != "suffix" and path:
            found.append((name, _absolute(path)))
        else:
            raise InputError(
                f"drafter source {shown(part)}, expected NAME=PATH, with a name of letters, digits, - and _."
            )
    return found


def _absolute(path: str | Path) -> Path:
    """So that "." has a name."""
    return Path(os.path.abspath(path))


def _open(path: Path, name: str | None, beside: Beside) -> Drafter:
    """An assistant made for the target, or a second target that writes the same token ids."""
    if configs.is_target(path):
        return _open_model(path, name or "model", beside)
    config = configs.load_drafter_config(path)
    problems = configs.pairing_problems(beside.target.config, config)
    if problems:
        raise WeightsError(
            f"drafter {path} does not fit this target: {'; '.join(problems)}. Use the drafter made for it."
        )
    return MtpDrafter(Assistant(config, _weights(path, config, beside), beside.target, native), name or "mtp")


def _open_model(path: Path, name: str, beside: Beside) -> Drafter:
    config = configs.load_target_config(path)
    own, wanted = config.vocab_len, beside.target.config.vocab_len
    if own != wanted:
        raise WeightsError(f"drafter {path} has {own} token ids, the target {wanted}. Use a model of its vocabulary.")
    if difference := Tokenizer.from_folder(path).difference(beside.tokenizer):
        raise WeightsError(f"drafter {path} has other tokens than the target: {difference}. Use a model of its family.")
    return ModelDrafter(Gemma4(config, _weights(path, config, beside), native), name)


def _weights(path: Path, config: Any, beside: Beside) -> Any:
    packed, info = weights.load(path, config, beside.format, native, None)
    for sentence in info.warnings:
        beside.say(sentence)
    return packed
