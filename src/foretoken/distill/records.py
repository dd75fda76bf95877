"""What the drafter will be fed, read off the target by our own engine: hidden rows, donor keys and values, choices.

Files of an earlier run are gone on with. All tokens of all texts lie one after the other:
    hidden.npy          (N, D) float32, after the final norm
    keys.KIND.npy       (N, Hkv, Dh) float16, as the drafter reads them (normed and rotated); values.KIND.npy alike
    likely.npy          (N, LIKELY) int32, likeliest next tokens, best first; chance.npy float32, their probabilities;
                        zeros where the next token is the prompt's, which nobody learns to guess
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foretoken import engine
from foretoken.api import Model
from foretoken.cache import Cache, segments
from foretoken.distill.writing import Text
from foretoken.errors import InputError, WeightsError
from foretoken.files import write_atomically
from foretoken.ops import native

LIKELY = 32
GROUP = 64  # tokens whose largest is found first
PASS_ROWS = 256  # rows of a pass; their logits come 32 at a time, for a vocabulary may be large
LOGIT_ROWS = 32
MAX_BYTES = 16 << 30
DONE = "done.json"


@dataclass(frozen=True)
class Records:
    """Recorded texts: `first[i]` is where text i begins in every array, `first[-1]` their tokens in all."""

    texts: list[Text]
    first: np.ndarray
    hidden: np.ndarray
    keys: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    likely: np.ndarray
    chance: np.ndarray


def budget(model: Model, folder: Path) -> int:
    """Tokens that may be recorded: those that fit into MAX_BYTES and half of the free disk."""
    free = shutil.disk_usage(folder).free // 2
    return int(min(MAX_BYTES, free) // _token_bytes(model))


def record(
    model: Model,
    texts: Sequence[Text],
    folder: Path,
    should_stop: Callable[[], bool],
    told: Callable[[int, int, str], None],
) -> Records | None:
    """Read every text with the target and keep what a drafter sees; None where `should_stop` said so half-way.

    raises  InputError if the disk is too small, WeightsError if what lies in `folder` is of other texts
    """
    folder.mkdir(exist_ok=True)
    first = np.cumsum([0, *(len(text.ids) for text in texts)])
    arrays, done = _arrays(model, folder, int(first[-1])), _done(folder, first)
    with ThreadPoolExecutor(native.threads()) as workers:
        for index in range(done, len(texts)):
            if should_stop():
                _keep(folder, arrays, first, index)
                return None
            own = slice(int(first[index]), int(first[index + 1]))
            _read(model, texts[index], {name: array[own] for name, array in arrays.items()}, workers)
            told(int(first[index + 1]), int(first[-1]), "")
    _keep(folder, arrays, first, len(texts))
    kinds = model.target.config.donor
    keys, values = ({kind: arrays[f"{what}.{kind}"] for kind in kinds} for what in ("keys", "values"))
    return Records(list(texts), first, arrays["hidden"], keys, values, arrays["likely"], arrays["chance"])


def _shapes(model: Model) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape of a token's entry and dtype, of every file."""
    config = model.target.config
    found: dict[str, tuple[tuple[int, ...], Any]] = {
        "hidden": ((config.hidden_len,), np.float32),
        "likely": ((min(LIKELY, config.vocab_len),), np.int32),
        "chance": ((min(LIKELY, config.vocab_len),), np.float32),
    }
    for kind, donor in config.donor.items():
        layer = config.layers[donor]
        for what in ("keys", "values"):
            found[f"{what}.{kind}"] = ((layer.num_kv_heads, layer.head_len), np.float16)
    return found


def _token_bytes(model: Model) -> int:
    return sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in _shapes(model).values())


def _arrays(model: Model, folder: Path, count: int) -> dict[str, np.ndarray]:
    """The files, mapped; made where they are missing or of another length."""
    arrays: dict[str, np.ndarray] = {}
    for name, (shape, dtype) in _shapes(model).items():
        path = folder / f"{name}.npy"
        try:
            mode = "r+" if os.path.exists(path) else "w+"
            array = np.lib.format.open_memmap(path, mode=mode, dtype=dtype, shape=(count, *shape))
            if array.shape != (count, *shape) or array.dtype != dtype:
                raise WeightsError(f"{path} is of other texts. Delete {folder} to record anew.")
            _reserve(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be made or read: {error}. Free space, or write fewer tokens.") from error
        arrays[name] = array
    return arrays


def _reserve(path: Path) -> None:
    """Take a file's space on the disk: a map of a file with holes ends the process where the disk is full."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _done(folder: Path, first: np.ndarray) -> int:
    """How many texts an earlier run recorded whole."""
    try:
        kept = json.loads((folder / DONE).read_text())
        return int(kept["done"]) if kept["first"] == first.tolist() else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _keep(folder: Path, arrays: dict[str, Any], first: np.ndarray, done: int) -> None:
    for array in arrays.values():
        array.flush()
    write_atomically(folder / DONE, json.dumps({"done": done, "first": first.tolist()}).encode())


def _read(model: Model, text: Text, out: dict[str, np.ndarray], workers: ThreadPoolExecutor) -> None:
    """One text through the target, in passes whose keys are read back before a sliding layer drops them."""
    target, rows = model.target, np.array(text.ids, dtype=np.int32)
    cache = Cache(engine.Engine(target, PASS_ROWS).pool(len(rows)))
    for start in range(0, len(rows), PASS_ROWS):
        part = rows[start : start + PASS_ROWS]
        own = slice(start, start + len(part))
        cache.begin_pass(len(part))
        hidden = target.forward(part, segments([cache], [len(part)]), np.arange(len(part), dtype=np.int32))
        cache.end_pass()
        out["hidden"][own] = hidden
        for kind, donor in target.config.donor.items():
            out[f"keys.{kind}"][own], out[f"values.{kind}"][own] = cache.read(donor, own.start, own.stop)
        for at in range(max(own.start, text.start - 1), own.stop, LOGIT_ROWS):
            piece = slice(at, min(at + LOGIT_ROWS, own.stop))
            logits = target.logits(hidden[piece.start - start : piece.stop - start])
            # NumPy leaves the interpreter to others, and a row of a large vocabulary takes it long.
            parts = list(workers.map(_likeliest, np.array_split(logits, native.threads())))
            out["likely"][piece], out["chance"][piece] = map(np.concatenate, zip(*parts, strict=True))
    cache.release()


def _likeliest(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest ids of each row (n, V), best first, ties to the lowest id, and their probabilities."""
    num_rows, vocab_len = logits.shape
    count = min(LIKELY, vocab_len)
    groups = np.arange(0, vocab_len, min(GROUP, vocab_len // count))  # at least `count` of them
    ids = np.empty((num_rows, count), np.int32)
    whole = np.empty((num_rows, 1), np.float32)
    for row, found, total in zip(logits, ids, whole, strict=True):
        tops = np.maximum.reduceat(row, groups)  # all of a large vocabulary takes longer than the pass
        least = np.partition(tops, -count)[-count]  # `count` tokens are at least as likely
        near = np.flatnonzero(row >= least)
        found[:] = near[np.lexsort((near, -row[near]))][:count]
        total[:] = np.exp(row - row.max()).sum()
    top = np.take_along_axis(logits, ids, 1)
    return ids, np.exp(top - top[:, :1]) / whole
