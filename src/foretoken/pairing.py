"""From what a user names to a drafter: opens folders, checks that they fit the target, and joins several sources."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from foretoken import config as configs
from foretoken import places, weights
from foretoken.drafters.choice import Choice
from foretoken.drafters.model import ModelDrafter
from foretoken.drafters.mtp import MtpDrafter
from foretoken.drafters.protocol import Drafter, DrafterState
from foretoken.drafters.suffix import SuffixDrafter
from foretoken.errors import ConfigError, InputError, WeightsError, shown
from foretoken.models.gemma4 import Gemma4
from foretoken.models.gemma4_assistant import Assistant
from foretoken.ops import native
from foretoken.places import Place
from foretoken.source import Source, check_same_tokens, open_source
from foretoken.tokenizer import Tokenizer

EXPECTED = "auto, suffix, none, a path, a name on the hub, or a list such as code=PATH,prose=PATH,suffix"
MAX_SOURCES = 8
Named = tuple[str | None, Place | None]
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")


@dataclass(frozen=True)
class Beside:
    """What a drafter is opened for: the target with its tokenizer, the drafter that "auto" means, the packing of
    drafters, how many clusters they score where not what their files say, and where warnings go.

    tuned    fingerprint of a drafter's files -> clusters that it scores where the user names no number
    drafters fingerprint of each that was opened -> the clusters that it scores, 0 where it has none
    """

    target: Gemma4
    tokenizer: Tokenizer
    own: Place
    format: str
    clusters: int | None
    say: Callable[[str], None]
    tuned: Mapping[str, int] = field(default_factory=dict)
    drafters: dict[str, int] = field(default_factory=dict)


def named_sources(asked: Any, tell: Callable[[str], None] | None) -> list[Named]:
    """(name, place) of each source that the user names, the place None for the text itself; none for "auto" and "none".

    Looks for the files, and fetches what is on the hub, but opens nothing. Raises InputError.
    """
    if not isinstance(asked, (str, Path)):
        raise InputError(f"drafter is {shown(asked)}, expected {EXPECTED}.")
    if asked in ("auto", "none"):
        return []
    if isinstance(asked, Path) or os.path.exists(asked):  # its name may have a comma
        return [(None, places.find_drafter(asked, tell))]
    parts = asked.split(",")
    if not all(parts) or len(parts) > MAX_SOURCES or parts.count("suffix") > 1:
        raise InputError(f"drafter is {shown(asked)}, expected {EXPECTED}, of at most {MAX_SOURCES} different sources.")
    found: list[Named] = []
    for part in parts:
        name, is_pair, path = part.partition("=")
        if part in ("auto", "none"):
            raise InputError(f"drafter is {shown(asked)}, but {part} stands alone. Name the sources, or {part} only.")
        if part == "suffix":
            found.append((None, None))
        elif not is_pair:
            found.append((None, places.find_drafter(part, tell)))
        elif NAME.fullmatch(name) and name != "suffix" and path:
            found.append((name, places.find_drafter(path, tell)))
        else:
            raise InputError(
                f"drafter source {shown(part)}, expected NAME=PATH, with a name of letters, digits, - and _."
            )
    return found


def find_drafter(asked: Any, named: list[Named], beside: Beside) -> tuple[Drafter | None, DrafterState]:
    """The drafter that `asked` means, and its state.

    asked   "auto" (the target's own, and what stood in the text before), "suffix" (the latter alone), "none", a
            drafter's folder, file or hub name, or that of a smaller model with the same tokens; or a list of those and
            "suffix", joined by commas, with names where there are several: "code=PATH,prose=PATH,suffix"
    named   what `named_sources` makes of it
    raises  InputError; ConfigError, WeightsError for something named that does not fit
    """
    drafter, state = _find(asked, named, beside)
    models = list(drafter.models.values()) if isinstance(drafter, Choice) else [drafter]
    if beside.clusters is not None and not any(isinstance(model, MtpDrafter) for model in models):
        beside.say(f"draft_clusters {beside.clusters} has no effect: no drafter here has a head with clusters.")
    return drafter, state


def _find(asked: Any, named: list[Named], beside: Beside) -> tuple[Drafter | None, DrafterState]:
    if asked == "none":
        return None, DrafterState("none", "off", "switched off with drafter none")
    if asked == "auto":
        return _automatic(beside)
    models: list[Drafter] = []
    for name, place in named:
        if place is not None:
            try:
                model = _open(place.where, name, beside)
            except (ConfigError, WeightsError) as error:  # its files are named as a target's are
                raise type(error)(f"the drafter cannot be used: {error}") from error
            if any(model.name == other.name for other in models):
                raise InputError(f"two drafters are called {model.name}. Name them, as in code=PATH,prose=PATH.")
            models.append(model)
    found = [place for _, place in named if place is not None]
    has_suffix = len(found) < len(named)
    name = found[0].name if len(found) == 1 and not has_suffix else ""
    return _joined(models, has_suffix, name, "named by the user")


def _automatic(beside: Beside) -> tuple[Drafter, DrafterState]:
    own = beside.own
    if own.path is None:
        return _joined([], True, "", f"from the text itself; {own.reason}")
    try:
        model = _open(own.path, "mtp", beside)
    except (ConfigError, WeightsError) as error:
        beside.say(f"the model's own drafter is off: {error}")
        drafter, state = _joined([], True, "", f"from the text itself; {own.name} is off: {error}")
        return drafter, replace(state, fallback="drafter-mismatch")
    return _joined([model], True, own.name, own.reason)


def _joined(models: list[Drafter], has_suffix: bool, name: str, reason: str) -> tuple[Drafter, DrafterState]:
    suffix = SuffixDrafter() if has_suffix else None
    sources: list[Drafter] = [*models, *([suffix] if suffix else [])]
    drafter = sources[0] if len(sources) == 1 else Choice(models, suffix)
    return drafter, DrafterState(name or drafter.name, "on", reason, tuple(source.name for source in sources))


def _open(path: Path, name: str | None, beside: Beside) -> Drafter:
    """An assistant made for the target, or a second target that writes the same token ids."""
    source = open_source(path)
    if source.is_target:
        return _open_model(source, name or "model", beside)
    config = configs.with_clusters(source.drafter_config(), beside.clusters, source.name)
    problems = configs.pairing_problems(beside.target.config, config)
    if problems:
        raise WeightsError(
            f"drafter {path} does not fit this target: {'; '.join(problems)}. Use the drafter made for it."
        )
    check_same_tokens(source, beside.tokenizer)
    packed, fingerprint = _weights(source, config, beside)
    found = beside.tuned.get(fingerprint)
    if beside.clusters is None and found is not None and found <= config.num_clusters:
        config = configs.with_clusters(config, found, source.name)
    beside.drafters[fingerprint] = config.top_clusters
    return MtpDrafter(Assistant(config, packed, beside.target, native), name or "mtp")


def _open_model(source: Source, name: str, beside: Beside) -> Drafter:
    config, path = source.target_config(), source.path
    own, wanted = config.vocab_len, beside.target.config.vocab_len
    if own != wanted:
        raise WeightsError(f"drafter {path} has {own} token ids, the target {wanted}. Use a model of its vocabulary.")
    if difference := source.tokenizer().difference(beside.tokenizer):
        raise WeightsError(f"drafter {path} has other tokens than the target: {difference}. Use a model of its family.")
    packed, fingerprint = _weights(source, config, beside)
    beside.drafters[fingerprint] = 0
    return ModelDrafter(Gemma4(config, packed, native), name)


def _weights(source: Source, config: Any, beside: Beside) -> tuple[Any, str]:
    """They, and the fingerprint of their files."""
    packed, info = weights.load(source.checkpoint(), config, beside.format, native, None)
    for sentence in info.warnings:
        beside.say(sentence)
    return packed, info.fingerprint
