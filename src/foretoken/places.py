"""Which files a model and its drafter are: what the user names, to places on this machine, and why this drafter.

A folder or file here wins over a name on the hub. A model on the hub that is here already is used as it is, without a
look at the network; `foretoken pull` is what fetches a newer one. Knows nothing of what is in the files.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretoken import hub
from foretoken.errors import InputError, NoRepositoryError, shown

ASSETS = Path(__file__).parent / "assets"
EMBEDDED = "the embedded one"  # why its drafter drafts
OFF = "none"
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """Where a model lies, and why it is this one; a drafter's `path` is None where there is none, for that reason."""

    name: str
    path: Path | None
    reason: str

    @property
    def where(self) -> Path:
        """The path of what is surely there."""
        assert self.path is not None
        return self.path


def _no_tell(sentence: str) -> None:
    pass


def find(model: Any, with_drafter: bool, tell: Tell | None = None) -> tuple[Place, Place]:
    """(target, its own drafter) for what a user gave: None is the embedded pair; a folder or file, or a hub name.

    with_drafter  whether to look for one: the pair's own, the assistant beside a folder, or the hub's
    tell          called with a sentence before a download
    raises        InputError
    """
    tell = tell or _no_tell
    off = Place(OFF, None, "not asked for")
    if model is None:
        target = Place("embedded", ASSETS / "target", "it comes with Foretoken")
        return target, Place("drafter", ASSETS / "drafter", EMBEDDED) if with_drafter else off
    target, name, is_new = _place("model", model, False, tell)
    if not with_drafter:
        return target, off
    if name is None:
        return target, _beside(target.where)
    return target, _assistant_here(name) or (_fetched_aloud(name, tell) if is_new else _not_here(name))


def find_drafter(drafter: Any, tell: Tell | None = None) -> Place:
    """A drafter that the user names as a model is named; raises InputError."""
    return _place("drafter", drafter, True, tell or _no_tell)[0]


def pull(text: str, with_drafter: bool, tell: Tell) -> tuple[Place, Place]:
    """Fetch a model of the hub, or what is newer there, and the drafter that belongs to it; raises InputError."""
    name = _hub_name(text)
    is_drafter = not hub.assistants(name.repo)
    target = Place(str(name), hub.fetch(name, is_drafter, tell), "on the hub")
    return target, fetch_assistant(name, tell) if with_drafter else Place(OFF, None, "not asked for")


def fetch_assistant(name: hub.HubName, tell: Tell) -> Place:
    """The drafter of a model on the hub, fetched from the first repository of a fitting name; raises InputError."""
    names = hub.assistants(name.repo)
    for one in names:
        try:
            return Place(one, hub.fetch(hub.HubName(one), True, tell), "the assistant on the hub")
        except NoRepositoryError:
            continue
    return Place(OFF, None, f"the hub has no {' or '.join(names)}" if names else f"{name} is a drafter itself")


def _fetched_aloud(name: hub.HubName, tell: Tell) -> Place:
    """As `fetch_assistant`, but a drafter that cannot be had costs only the drafts."""
    try:
        return fetch_assistant(name, tell)
    except InputError as error:
        return Place(OFF, None, str(error))


def _assistant_here(name: hub.HubName) -> Place | None:
    for one in hub.assistants(name.repo):
        if (path := hub.cached(hub.HubName(one), is_drafter=True)) is not None:
            return Place(one, path, "the assistant on the hub")
    return None


def _not_here(name: hub.HubName) -> Place:
    names = hub.assistants(name.repo)
    if not names:
        return Place(OFF, None, f"{name} is a drafter itself")
    return Place(OFF, None, f"{' or '.join(names)} is not on this machine; `foretoken pull {name}` looks for it")


def _beside(path: Path) -> Place:
    names = hub.assistants(_name(path)) if path.name else []  # the root has no neighbours
    for name in names:
        for other in (path.with_name(name), path.with_name(f"{name}.gguf")):
            if os.path.exists(other):
                return Place(name, other, "found beside the model")
    no = f"no folder {' or '.join(names)}, or .gguf, beside the model" if names else "it is a drafter itself"
    return Place(OFF, None, no)


def _name(path: Path) -> str:
    """Of a folder its own; of a file without what says its kind."""
    return path.stem if os.path.isfile(path) else path.name


def _place(what: str, given: Any, is_drafter: bool, tell: Tell) -> tuple[Place, hub.HubName | None, bool]:
    """(source, name where it is one of the hub, whether it was fetched now)"""
    if not isinstance(given, (str, Path)):
        raise InputError(f"{what} is {shown(given)}, expected the path of a folder or GGUF file, or a hub name.")
    if given == "":  # as of a variable that is not set
        raise InputError(f"{what} is empty. Give the path of a folder or GGUF file, or a hub name.")
    path = Path(os.path.abspath(given))  # so that "." has a name and a folder beside it
    if isinstance(given, Path) or os.path.exists(path):  # False for a name that no file can have
        return Place(_name(path), path, "named by the user"), None, False
    name = hub.parse(given)
    if name is None:
        raise InputError(f"{what} {given} is no folder or file here and no name on the hub. Give a path, or ORG/NAME.")
    try:
        here = hub.cached(name, is_drafter)
        return Place(str(name), here or hub.fetch(name, is_drafter, tell), "named by the user"), name, here is None
    except InputError as error:
        raise InputError(f"there is no folder or file {given} here, and as a name on the hub: {error}") from error


def _hub_name(text: str) -> hub.HubName:
    if (name := hub.parse(text)) is None:
        raise InputError(
            f"{text} is no name on the hub. Give ORG/NAME, with @REVISION or :FILE.gguf behind it if you like."
        )
    return name
