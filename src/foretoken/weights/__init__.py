"""Files on disk to weights in kernel order: check everything, pack once, keep the result for the next start."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from foretoken.config import DrafterConfig, TargetConfig
from foretoken.errors import WeightsError
from foretoken.ops import NUMERICS_VERSION, Packed
from foretoken.weights.checkpoint import Checkpoint
from foretoken.weights.compressed import open_folder
from foretoken.weights.formats import FORMATS, settled
from foretoken.weights.gemma4 import Part, assemble, embed_scale, plan, problems
from foretoken.weights.memory import refuse_too_large
from foretoken.weights.pack import Packer, packed
from foretoken.weights.store import Writer, restore

__all__ = ["FORMATS", "Info", "cache_dir", "fitting_plan", "load"]

PACKER_VERSION = 2
SHOWN_PROBLEMS = 40
Progress = Callable[[int, int], None]
Config = TargetConfig | DrafterConfig


@dataclass(frozen=True)
class Info:
    """What came of loading: the format, stored parameters, bytes in memory, whether from the cache, what to tell.

    fingerprint  of the files, by their contents; empty where there is no cache folder
    """

    format: str
    parameters: int
    packed_bytes: int
    is_from_cache: bool
    warnings: tuple[str, ...]
    fingerprint: str


def load(
    model: Path | Checkpoint, config: Config, format: str, ops: Any, progress: Progress | None = None
) -> tuple[Any, Info]:
    """`TargetWeights` or `DrafterWeights` of a model, packed in `format`.

    model     a Hugging Face folder, or a checkpoint that is open already
    format    one of FORMATS, or "auto": what the files ask for (`weights.formats`)
    ops       pack, pack_q4_0, pack_q8_0 and finite are used
    progress  called with bytes done and bytes in all while packing
    raises    WeightsError listing every mismatch at once, or saying that memory is too small and which format would
              fit, before memory is taken; or naming a NaN or infinity
    """
    checkpoint = open_folder(model) if isinstance(model, Path) else model
    folder = checkpoint.folder
    planned, warnings = fitting_plan(checkpoint, config), list(checkpoint.notes)
    format, parts = settled(planned, format, checkpoint)
    refuse_too_large(checkpoint.folder, parts, format, planned, ops)
    if config.unknown_fields:
        warnings.append(f"config fields of {folder} that are not known here: {', '.join(config.unknown_fields)[:400]}")
    made, is_from_cache, fingerprint = _made(checkpoint, parts, ops, progress, warnings)
    arrays = [part.data if isinstance(part, Packed) else part for part in made.values()]
    info = Info(
        format=format,
        parameters=sum(math.prod(shape) for part in parts if part.layout != "ids" for shape in part.shapes),
        packed_bytes=sum(array.nbytes for array in arrays),
        is_from_cache=is_from_cache,
        warnings=tuple(warnings),
        fingerprint=fingerprint,
    )
    return assemble(config, made, _scale(checkpoint, config, parts), checkpoint.norms_are_complete), info


def fitting_plan(checkpoint: Checkpoint, config: Config) -> list[Part]:
    """The plan of a model; raises WeightsError where its files are not what the plan reads."""
    found = problems(checkpoint, config)
    if found:
        rest = f"; and {len(found) - SHOWN_PROBLEMS} more" if len(found) > SHOWN_PROBLEMS else ""
        listed = "; ".join(found[:SHOWN_PROBLEMS]) + rest
        raise WeightsError(
            f"{checkpoint.folder} does not fit its config: {listed}. Use files of one and the same model."
        )
    return plan(config, checkpoint.entries)


def cache_dir() -> Path:
    """FORETOKEN_CACHE_DIR, or the user's cache folder."""
    return Path(os.environ.get("FORETOKEN_CACHE_DIR") or platformdirs.user_cache_dir("foretoken"))


def _scale(checkpoint: Checkpoint, config: Config, parts: list[Part]) -> float:
    if isinstance(config, DrafterConfig):
        return 1.0
    return embed_scale(config.hidden_len, checkpoint.stored_dtype(parts[0].tensors[0]))


def _made(
    checkpoint: Checkpoint, parts: list[Part], ops: Any, progress: Progress | None, warnings: list[str]
) -> tuple[dict[str, Any], bool, str]:
    """Parts from the cache, or made now and kept there; and `Info.fingerprint`. A cache that cannot be used is said."""
    folder = cache_dir()
    packer = Packer(checkpoint, ops, _counter(checkpoint, parts, progress))
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        warnings.append(_not_kept(folder, error))
        return {part.name: packer.make(part) for part in parts}, False, ""
    fingerprint = checkpoint.fingerprint(folder)
    key = hashlib.sha256(repr((fingerprint, parts, PACKER_VERSION, NUMERICS_VERSION)).encode()).hexdigest()
    path = folder / f"{key}.packed"
    try:
        payloads = restore(path, key)
        if payloads is not None:
            return {part.name: _part(part, payloads[part.name]) for part in parts}, True, fingerprint
    except (WeightsError, KeyError, ValueError) as error:  # the latter: not the payloads of this plan
        warnings.append(f"packed weights {path} were made anew: {error}")
    return _make_and_keep(packer, parts, path, key, warnings), False, fingerprint


def _make_and_keep(packer: Packer, parts: list[Part], path: Path, key: str, warnings: list[str]) -> dict[str, Any]:
    """Pack everything and write it to `path` on the way; tables go straight to the file, then are mapped from it."""
    made: dict[str, Any] = {}
    with Writer(path, key) as writer:
        for part in parts:
            if not part.is_mapped:
                made[part.name] = packer.make(part)
                writer.add(part.name, [_bytes(made[part.name])], is_mapped=False)
        for part in parts:
            if part.is_mapped:
                writer.add(part.name, packer.pieces(part), is_mapped=True)
        tables = writer.finish()
    if writer.error is not None:
        warnings.append(_not_kept(path.parent, writer.error))
    for part in parts:
        if part.is_mapped:
            made[part.name] = _part(part, tables[part.name]) if part.name in tables else packer.make(part)
    return made


def _bytes(part: Any) -> np.ndarray:
    array: np.ndarray = part.data if isinstance(part, Packed) else part
    return array.view(np.uint8)


def _part(part: Part, data: np.ndarray) -> Any:
    """A part from its bytes, (bytes,) uint8."""
    if part.layout == "ids":
        return data.view(np.int32)
    if part.layout == "array":
        return data.view(np.float32)
    return packed(part, data)


def _not_kept(folder: Path, error: OSError) -> str:
    return f"packed weights cannot be kept in {folder} ({error.strerror or error}); the next start packs them again"


def _counter(checkpoint: Checkpoint, parts: list[Part], progress: Progress | None) -> Callable[[int], None]:
    """Turns bytes of one piece into (bytes done, bytes in all)."""
    total = sum(checkpoint.stored_bytes(tensor) for part in parts for tensor in part.tensors)
    done = 0

    def told(count: int) -> None:
        nonlocal done
        done = min(done + count, total)  # a table whose file failed is packed twice
        if progress is not None:
            progress(done, total)

    return told
