"""A model folder written anew with its matrices in blocks of q4 or q8: smaller, and loaded to the same bits.

What comes out is a Hugging Face folder: the model's own text side, config.json with a `quantization_config` of ours,
and one safetensors file (docs/formats.md, "Quantised folders"). It is made under another name beside its place and
renamed once it is whole and on disk. Reads and writes a piece of rows at a time.
"""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foretoken.config import read_json
from foretoken.errors import InputError
from foretoken.files import TEMPORARY
from foretoken.weights.checkpoint import Checkpoint
from foretoken.weights.compressed import BLOCK, FLOATS, OF_FORMAT, OURS, SIZES, VERSION
from foretoken.weights.formats import in_format
from foretoken.weights.gemma4 import Part
from foretoken.weights.pack import Packer

FORMATS = tuple(OF_FORMAT)
SIDE_FILES = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "NOTICE",
    "LICENSE",
)
ITEMS = {"F32": 4, "BF16": 2, "F16": 2, "I64": 8}
SPARE_BYTES = 16 << 20  # the header, and what a file system takes for itself


@dataclass(frozen=True)
class Tensor:
    """One tensor to be written: `format` where it becomes blocks, else None and it stays as it is."""

    source: str
    shape: tuple[int, ...]
    format: str | None
    dtype: str

    @property
    def name(self) -> str:
        return f"{self.source}.{self.format}" if self.format else self.source

    @property
    def stored_shape(self) -> tuple[int, ...]:
        if self.format is None:
            return self.shape
        return (*self.shape[:-1], self.shape[-1] // BLOCK * SIZES[OF_FORMAT[self.format]])

    @property
    def num_bytes(self) -> int:
        return math.prod(self.stored_shape) * ITEMS.get(self.dtype, 1)


def quantize(
    folder: Path,
    checkpoint: Checkpoint,
    parts: Sequence[Part],
    format: str,
    out: Path,
    ops: Any,
    progress: Callable[[int, int], None] | None = None,
) -> list[Tensor]:
    """Write the model of `folder` to the new folder `out`; returns its tensors.

    parts     the plan of the model, which must fit the checkpoint (`weights.gemma4.problems`)
    format    "q4" or "q8"
    ops       pack and finite are used
    progress  called with bytes written and bytes in all
    raises    InputError where `out` is taken or the disk too small, before anything is written, or where it fills up;
              WeightsError for values that the format cannot hold. Nothing is left behind then, nor after Ctrl-C
    """
    if os.path.lexists(out):
        raise InputError(f"{out} is there already, and nothing is overwritten. Name another folder or remove it.")
    if not os.path.isdir(out.parent):
        raise InputError(f"{out.parent}, in which {out.name} is to be, is no folder. Make it first.")
    tensors = list(_tensors(checkpoint, in_format(parts, format)))
    whole = sum(tensor.num_bytes for tensor in tensors)
    sides = [folder / name for name in SIDE_FILES if os.path.isfile(folder / name)]
    _check_space(out, whole + sum(path.stat().st_size for path in sides))
    config = _config(folder, checkpoint, parts, format)
    done = 0

    def told(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, whole)

    temporary = out.parent / f"{TEMPORARY}{secrets.token_hex(6)}"  # named before it is there: an interrupt removes it
    try:
        temporary.mkdir(mode=0o700)
        for path in sides:
            shutil.copyfile(path, temporary / path.name)
        (temporary / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
        _write(temporary / "model.safetensors", tensors, Packer(checkpoint, ops, lambda count: None), checkpoint, told)
        _settle(temporary)
        os.chmod(temporary, 0o755)
        os.rename(temporary, out)
    except OSError as error:
        what = (
            "the disk is full" if error.errno == errno.ENOSPC else f"it cannot be written ({error.strerror or error})"
        )
        raise InputError(f"{out} was not made: {what}. Free some, or name another place.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return tensors


def _tensors(checkpoint: Checkpoint, parts: Sequence[Part]) -> Iterator[Tensor]:
    """What the plan reads, in its order; matrices whose rows are no whole blocks stay as they are, as norms do."""
    for part in parts:
        for name, shape in zip(part.tensors, part.shapes, strict=True):
            fits = part.format in FORMATS and shape[-1] % BLOCK == 0
            dtype = "I64" if part.layout == "ids" else checkpoint.stored_dtype(name)
            yield Tensor(name, shape, part.format, "U8") if fits else Tensor(name, shape, None, dtype)


def _write(
    path: Path, tensors: Sequence[Tensor], packer: Packer, checkpoint: Checkpoint, told: Callable[[int], None]
) -> None:
    """One safetensors file: the length of the header, the header, the tensors one after the other."""
    header: dict[str, Any] = {}
    end = 0
    for tensor in tensors:
        offsets = [end, end + tensor.num_bytes]
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.stored_shape), "data_offsets": offsets}
        end += tensor.num_bytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            for piece in _pieces(tensor, packer, checkpoint):
                file.write(piece.data)
                told(piece.nbytes)


def _pieces(tensor: Tensor, packer: Packer, checkpoint: Checkpoint) -> Iterator[np.ndarray]:
    if tensor.format is not None:  # the bytes of a packed matrix in rows are its blocks
        yield from packer.pieces(Part(tensor.source, (tensor.source,), (tensor.shape,), "rows", None, tensor.format))
    elif tensor.dtype == "I64":
        yield checkpoint.read_ids(tensor.source).astype("<i8")
    else:
        values = checkpoint.read(tensor.source)
        if tensor.dtype == "BF16":
            yield (values.view(np.uint32) >> 16).astype("<u2")
        else:
            yield values.astype({"F16": "<f2", "F32": "<f4"}[tensor.dtype])


def _config(folder: Path, checkpoint: Checkpoint, parts: Sequence[Part], format: str) -> dict[str, Any]:
    """config.json with what the reader of the blocks must know: the dtype that the embedding had (numerics.md)."""
    dtype = checkpoint.stored_dtype(parts[0].tensors[0])
    assert dtype in FLOATS
    data = read_json(folder / "config.json")
    if isinstance(inner := data.get("text_config"), dict):
        inner.pop("quantization_config", None)
    ours = {"quant_method": OURS, "version": VERSION, "format": format, "embedding_dtype": dtype}
    return {**data, "quantization_config": ours}


def _check_space(out: Path, need: int) -> None:
    free = shutil.disk_usage(out.parent).free
    if need + SPARE_BYTES > free:
        raise InputError(
            f"{out} needs {need + SPARE_BYTES:,} bytes, {free:,} are free. Free some, or name another place."
        )


def _settle(folder: Path) -> None:
    """Make the files durable before the folder gets its name."""
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
