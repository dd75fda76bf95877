"""Model names of the Hugging Face hub to files on this machine: ORG/NAME, ORG/NAME@REVISION, ORG/NAME:FILE.gguf.

huggingface-hub does the work, with its own cache, progress bars and settings (`HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`,
`HF_HUB_OFFLINE`, …). Files that came whole are kept when a download breaks off; one that was cut is begun anew by the
next run (within a run, huggingface-hub asks for the rest). Only files that Foretoken reads are fetched, from the top
folder of a repository alone, and never a pickle. Knows nothing of what is in the files.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from foretoken.errors import InputError, NoRepositoryError

NAME = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*)(@(?P<revision>\w[\w./\-]*))?(:(?P<file>\w[\w.\-]*))?", re.ASCII
)
SIDE_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
)  # fmt: skip
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD = re.compile(r"model[\w.\-]*\.safetensors", re.ASCII)
PLAIN = re.compile(r"\w[\w.\-]*", re.ASCII)  # a file of the top folder, whatever a server says
SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
QAT = re.compile(r"(?P<base>.+)-qat-(q4_0(-unquantized)?|w4a16-ct)")
ASSISTANT = "-assistant"
FOLDERS = "*/*"  # for huggingface-hub's filter: everything that is not in the top folder
SHOWN_FILES = 12


@dataclass(frozen=True)
class HubName:
    """A model on the hub. `file` names one GGUF file, or a part of its name that only one file has."""

    repo: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        return self.repo + (f"@{self.revision}" if self.revision else "") + (f":{self.file}" if self.file else "")


def parse(text: str) -> HubName | None:
    """`text` as a name on the hub, None where it cannot be one."""
    match = NAME.fullmatch(text)
    if match is None or ".." in text or "--" in match["repo"] or len(match["repo"]) > 96:
        return None
    return HubName(match["repo"], match["revision"], match["file"])


def assistants(name: str) -> list[str]:
    """Names that the drafter of a model may have, the likeliest first; none for an assistant itself.

    Models trained for 4 bits have assistants of their own, published for the unquantised files alone; the model that
    they were made from has one too, which fits but guesses less well. Source: specification 5.3.
    """
    if name.endswith(ASSISTANT):
        return []
    name = re.sub("-gguf$", "", name, flags=re.IGNORECASE)
    qat = QAT.fullmatch(name)
    return [f"{qat['base']}-qat-q4_0-unquantized{ASSISTANT}", qat["base"] + ASSISTANT] if qat else [name + ASSISTANT]


def cached(name: HubName, is_drafter: bool = False) -> Path | None:
    """The folder or GGUF file of a model that is here whole, or None. Asks no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    def local(wanted: Sequence[str]) -> Path:
        return Path(
            snapshot_download(
                name.repo,
                revision=name.revision,
                local_files_only=True,
                allow_patterns=list(wanted),
                ignore_patterns=[FOLDERS],
            )
        )

    with _explained(name):
        try:
            folder = local([])
            files = [path.name for path in folder.iterdir() if os.path.isfile(path)]
            if name.file or not _has_weights(folder, files):
                found = _matching(files, name.file)
                return folder / found[0] if len(found) == 1 else None
            local(SIDE_FILES)  # raises where the repository has one that is not here
            return folder if {"config.json"} | (set() if is_drafter else {"tokenizer.json"}) <= set(files) else None
        except (LocalEntryNotFoundError, FileNotFoundError):
            return None


def fetch(name: HubName, is_drafter: bool = False, tell: Callable[[str], None] = lambda sentence: None) -> Path:
    """The folder or GGUF file of a model as the hub has it now; only what is not here yet is downloaded.

    tell    called with a sentence before a download begins
    raises  InputError with a plain reason: no such repository or nothing in it that we read, gated, no network,
            a download that broke off, a full disk
    """
    from huggingface_hub import hf_hub_download, snapshot_download, try_to_load_from_cache
    from huggingface_hub.utils import tqdm

    with _explained(name):
        commit, sizes = _listing(name)
        wanted = _wanted(name, list(sizes), is_drafter)
        missing = [f for f in wanted if not isinstance(try_to_load_from_cache(name.repo, f, revision=commit), str)]
        if missing:
            _check_space(name, sum(sizes[file] for file in missing))
            tell(f"downloading {name}: {len(missing)} files, {sum(sizes[file] for file in missing) / 1e6:,.1f} MB.")
        for file in missing:  # one by one, in this thread, so that Ctrl-C ends it at once and nothing is left
            hf_hub_download(name.repo, file, revision=commit)
        no_bar: Any = partial(tqdm, disable=True)
        folder = snapshot_download(  # only now does the branch mean this commit: a broken update leaves the old one
            name.repo,
            revision=name.revision,
            allow_patterns=wanted,
            ignore_patterns=[FOLDERS],
            tqdm_class=no_bar,
        )
    for file in wanted:
        if not os.path.isfile(Path(folder) / file):
            raise InputError(f"{file} of {name} did not come. Run the same command again.")
    return Path(folder) / wanted[0] if wanted[0].endswith(".gguf") else Path(folder)


def _listing(name: HubName) -> tuple[str, dict[str, int]]:
    """(commit, bytes of each file in the top folder)"""
    from huggingface_hub import HfApi

    info = HfApi().model_info(name.repo, revision=name.revision, files_metadata=True)
    files = {one.rfilename: one.size or 0 for one in info.siblings or () if PLAIN.fullmatch(one.rfilename)}
    return info.sha or "", files


def _wanted(name: HubName, files: Sequence[str], is_drafter: bool) -> list[str]:
    """The files to fetch: one GGUF file, or those of a folder with safetensors."""
    shards = [SINGLE] if SINGLE in files else [f for f in files if SHARD.fullmatch(f) or f == INDEX]
    ggufs = _matching(files, name.file)
    if name.file or (not shards and ggufs):
        if len(ggufs) != 1:
            raise InputError(
                f"{len(ggufs) or 'no'} GGUF files of {name.repo} fit {name.file or 'the name'}; "
                f"it holds {_shown(_matching(files, None))}. Name one: {name.repo}:FILE.gguf."
            )
        if SPLIT.search(ggufs[0]):
            raise InputError(f"{ggufs[0]} of {name.repo} is a part of a split file. Take one that is whole.")
        return ggufs
    needed = ["config.json"] if is_drafter else ["config.json", "tokenizer.json"]
    lacks = [file for file in needed if file not in files] + ([] if shards else [SINGLE])
    if lacks:
        why = " Pickles are never read." if any(f.endswith(PICKLES) for f in files) else ""
        raise InputError(f"{name} lacks {' and '.join(lacks)}; it holds {_shown(files)}.{why} Take another repository.")
    return [*(file for file in SIDE_FILES if file in files), *shards]


def _matching(files: Iterable[str], wanted: str | None) -> list[str]:
    """GGUF files of that name, or else those with it in their name; projectors for pictures are no models."""
    ggufs = [f for f in files if f.endswith(".gguf") and "mmproj" not in f.lower()]
    if wanted is None or wanted in ggufs:
        return ggufs if wanted is None else [wanted]
    return [file for file in ggufs if wanted.lower() in file.lower()]


def _has_weights(folder: Path, files: Sequence[str]) -> bool:
    """Whether a snapshot has its safetensors whole: the single file, or every shard that the index names."""
    if SINGLE in files or INDEX not in files:
        return SINGLE in files
    named = set(re.findall(rf'"({SHARD.pattern})"', (folder / INDEX).read_text(encoding="utf-8", errors="replace")))
    return bool(named) and named <= set(files)


def _shown(files: Sequence[str]) -> str:
    rest = f" and {len(files) - SHOWN_FILES} more" if len(files) > SHOWN_FILES else ""
    return (", ".join(sorted(files)[:SHOWN_FILES]) or "none") + rest


def _check_space(name: HubName, need: int) -> None:
    from huggingface_hub.constants import HF_HUB_CACHE

    place = next(p for p in (Path(HF_HUB_CACHE), *Path(HF_HUB_CACHE).parents) if os.path.exists(p))
    free = shutil.disk_usage(place).free
    if need > free:
        raise InputError(
            f"{name} needs {need:,} bytes in {HF_HUB_CACHE}, {free:,} are free. Free some, or set HF_HOME."
        )


@contextmanager
def _explained(name: HubName) -> Iterator[None]:
    """What huggingface-hub and the network raise, as one sentence that says what to do."""
    from huggingface_hub import errors
    from huggingface_hub.constants import ENDPOINT

    hub = f"{ENDPOINT}/{name.repo}"
    try:
        yield
    except InputError:
        raise
    except errors.GatedRepoError as error:
        raise InputError(
            f"{name} is gated. Accept its terms at {hub}, then log in with `hf auth login` or set HF_TOKEN."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise NoRepositoryError(
            f"there is no repository {name.repo} at {ENDPOINT}, or it is private. Check the name; for a private one "
            "log in with `hf auth login` or set HF_TOKEN."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{name.repo} has no revision {name.revision}. Look at {hub} for those it has.") from error
    except errors.OfflineModeIsEnabled as error:
        raise InputError(
            f"{name} is not in the cache of this machine, and HF_HUB_OFFLINE forbids to fetch it. Unset it, or give a "
            "folder."
        ) from error
    except errors.HfHubHTTPError as error:
        raise InputError(f"{ENDPOINT} refuses {name}: {_short(error)}. Try later, or check HF_TOKEN.") from error
    except Exception as error:  # of the network, in classes of whichever HTTP library is below, and of the disk
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise InputError(f"the disk is full: {name} was not fetched whole. Free some, or set HF_HOME.") from error
        raise InputError(
            f"{name} cannot be fetched from {ENDPOINT}: {_short(error)}. Check the network and run the same command "
            "again; files that came whole are kept."
        ) from error


def _short(error: Exception) -> str:
    """The first line of an error."""
    return next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), type(error).__name__)
