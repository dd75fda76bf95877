"""Folders whose matrices are quantised, read as they are: our own (`foretoken quantize`) and compressed-tensors.

Every quantised matrix is shown as one of type Q4_0 or Q8_0, blocks of 32 inputs with a scale of 16 bits, which are the
grids of formats q4 and q8 (docs/formats.md). So nothing is rounded where the stored scales are f16 numbers: all of
type F16 are, and those of BF16 that are not tiny. What would lose more than that is refused with a reason.
Source: compressed-tensors 0.20, `compressors/pack_quantized` and `compressors/naive_quantized`.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from foretoken.config import read_json
from foretoken.errors import WeightsError
from foretoken.weights.checkpoint import Checkpoint
from foretoken.weights.safetensors import Checkpoint as Folder
from foretoken.weights.safetensors import Entry, mapped, shown, widened

BLOCK = 32
SIZES = {"Q4_0": 18, "Q8_0": 34}  # bytes of a block
OF_FORMAT = {"q4": "Q4_0", "q8": "Q8_0"}
OURS, THEIRS, VERSION = "foretoken", "compressed-tensors", 1
FLOATS = ("F32", "BF16", "F16")
PACKED, SCALE, SHAPE, INT = ".weight_packed", ".weight_scale", ".weight_shape", ".weight"
WEIGHT_FIELDS: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (  # name, value where absent, values that we read
    ("type", "int", ("int",)),
    ("num_bits", 8, (4, 8)),
    ("symmetric", True, (True,)),
    ("dynamic", False, (False,)),
    ("strategy", "tensor", ("group", "channel", "tensor", None)),
    ("actorder", None, (None, False, "weight", "static")),  # the others move columns, and store where to
)
Rows = slice | np.ndarray


@dataclass(frozen=True)
class Blocks:
    """A matrix in blocks: (…, K) values of `dtype` from `codes`, with `scales` beside where they lie apart.

    layout  "blocks": scale and codes of each block together;  "nibbles": two codes a byte, the even input low, + 8;
            "bytes": a code a byte, + 128;  "int8": a code a byte
    """

    dtype: str
    shape: tuple[int, ...]
    codes: Entry
    layout: str
    scales: Entry | None = None

    @property
    def itemsize(self) -> float:
        return SIZES[self.dtype] / BLOCK


def open_folder(folder: Path) -> Checkpoint:
    """The tensors of a model folder, quantised or not; raises WeightsError, ConfigError."""
    path = folder / "config.json"
    data = read_json(path) if os.path.isfile(path) else {}
    inner = data.get("text_config")
    found = data.get("quantization_config") or (inner.get("quantization_config") if isinstance(inner, dict) else None)
    return Folder(folder) if found is None else QuantisedFolder(folder, found)


class QuantisedFolder(Folder):
    """A `weights.checkpoint.Checkpoint` over a folder with a quantization_config."""

    def __init__(self, folder: Path, settings: Any) -> None:
        super().__init__(folder)
        self.matrices: dict[str, Blocks] = {}
        self._embedding_dtype = "BF16"
        if not isinstance(settings, dict):
            raise WeightsError(f"quantization_config of {folder} is {str(settings)[:40]!r}, expected an object.")
        if settings.get("quant_method") == OURS:
            self._take_ours(settings)
        else:
            notes = _checked(folder, settings)
            self._take_theirs()
            if any(matrix.scales is not None and matrix.scales.dtype == "F32" for matrix in self.matrices.values()):
                notes.append(f"scales of {folder} have 32 bits and are rounded to 16 bits, by 1 part in 2048 at most.")
            self.notes = tuple(notes)
        self.entries: dict[str, Any] = {**self.entries, **self.matrices}

    def stored_dtype(self, name: str) -> str:
        return self._embedding_dtype if name in self.matrices else super().stored_dtype(name)

    def stored_bytes(self, name: str) -> int:
        return int(math.prod(self.entries[name].shape) * self.entries[name].itemsize)

    def read(self, name: str, rows: Rows | None = None) -> np.ndarray:
        entry = self.matrices.get(name)
        if entry is None:
            return super().read(name, rows)
        codes, scales = self._codes(name, entry, slice(None) if rows is None else rows)
        values = (codes * scales[..., None]).reshape(len(codes), -1)
        return values.reshape(entry.shape) if rows is None else values

    def blocks(self, name: str, rows: Rows, format: str) -> np.ndarray | None:
        entry = self.matrices.get(name)
        if entry is None or format not in OF_FORMAT or (format == "q4" and entry.dtype != "Q4_0"):
            return None
        if entry.layout == "blocks" and OF_FORMAT[format] == entry.dtype:
            return np.array(_bytes(entry.codes)[rows]).reshape(-1, entry.shape[-1] // BLOCK, SIZES[entry.dtype])
        codes, scales = self._codes(name, entry, rows)
        if format == "q4":
            nibbles = (codes + 8).astype(np.uint8)
            stored = nibbles[..., :16] | nibbles[..., 16:] << 4
        else:
            stored = np.maximum(codes, -127).view(np.uint8)  # the grid of q8 has no -128
        return np.concatenate([_halves(name, scales), stored], axis=-1)

    def _codes(self, name: str, entry: Blocks, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Whole numbers (N, K/32, 32) int8 and scales (N, K/32) float32."""
        raw = np.array(_bytes(entry.codes)[rows])
        count = entry.shape[-1] // BLOCK
        if entry.layout == "blocks":
            raw = raw.reshape(-1, count, SIZES[entry.dtype])
            scales = np.ascontiguousarray(raw[..., :2]).view("<f2")[..., 0].astype(np.float32)
            stored = raw[..., 2:]
            if entry.dtype == "Q8_0":
                return stored.view(np.int8), scales
            return np.concatenate([stored & 15, stored >> 4], axis=-1).astype(np.int8) - np.int8(8), scales
        if entry.layout == "nibbles":
            codes = np.stack([raw & 15, raw >> 4], axis=-1).astype(np.int8) - np.int8(8)
        else:
            codes = (raw ^ np.uint8(0x80 if entry.layout == "bytes" else 0)).view(np.int8)
        codes = codes.reshape(-1, count, BLOCK)
        assert entry.scales is not None
        is_one = math.prod(entry.scales.shape) == 1
        found = widened(entry.scales).reshape(1, 1) if is_one else widened(entry.scales, rows)
        if not np.isfinite(found).all():
            raise WeightsError(f"scales of {shown(name)} are NaN or infinite. The file is damaged; copy it again.")
        spread = np.repeat(found, count // found.shape[-1], axis=-1)  # the scale of each block
        return codes, np.broadcast_to(spread, codes.shape[:2])

    def _take_ours(self, settings: dict[str, Any]) -> None:
        if settings.get("version") != VERSION or settings.get("embedding_dtype") not in FLOATS:
            raise WeightsError(
                f"{self.folder} was written by another version of foretoken quantize ({str(settings)[:120]}). "
                "Quantise the model again."
            )
        self._embedding_dtype = settings["embedding_dtype"]
        for name, entry in list(self.entries.items()):
            base, _, format = name.rpartition(".")
            if entry.dtype == "U8" and format in OF_FORMAT:
                dtype = OF_FORMAT[format]
                if not entry.shape or not entry.shape[-1] or entry.shape[-1] % SIZES[dtype] or 0 in entry.shape:
                    raise self._unfit(name, f"shape {list(entry.shape)}, expected rows of {SIZES[dtype]} bytes a block")
                shape = (*entry.shape[:-1], entry.shape[-1] // SIZES[dtype] * BLOCK)
                self._take(base, Blocks(dtype, shape, entry, "blocks"), name)

    def _take_theirs(self) -> None:
        for name, entry in list(self.entries.items()):
            if name.endswith(PACKED):
                base = name.removesuffix(PACKED)
                matrix = self._packed(base, name, entry)
                self._take(base + INT, self._with_scales(base, name, matrix), name, base + SCALE, base + SHAPE)
            elif name.endswith(INT) and entry.dtype == "I8":
                base = name.removesuffix(INT)
                if len(entry.shape) != 2:
                    raise self._unfit(name, f"shape {list(entry.shape)}, expected two sizes")
                matrix = Blocks("Q8_0", entry.shape, entry, "int8")
                self._take(name, self._with_scales(base, name, matrix), name, base + SCALE)

    def _take(self, name: str, matrix: Blocks, *stored: str) -> None:
        """Show `matrix` as tensor `name` in place of the tensors that it is `stored` in."""
        if name in self.matrices or (name in self.entries and name not in stored):
            raise WeightsError(f"{self.folder} has {shown(name)} twice. Copy the model again.")
        self.matrices[name] = matrix
        for one in stored:
            self.entries.pop(one, None)

    def _packed(self, base: str, name: str, entry: Entry) -> Blocks:
        """A matrix of `weight_packed`; its `weight_shape` says how many values there are, and so of how many bits."""
        shape = self.entries.get(base + SHAPE)
        if entry.dtype != "I32" or len(entry.shape) != 2:
            raise self._unfit(name, f"dtype {entry.dtype} and shape {list(entry.shape)}, expected I32 and two sizes")
        if shape is None or shape.dtype not in ("I64", "I32") or shape.shape != (2,):
            raise self._unfit(name, f"no {SHAPE[1:]} of two whole numbers beside it")
        rows, width = (int(size) for size in self.read_ids(base + SHAPE))
        for bits, dtype, layout in ((4, "Q4_0", "nibbles"), (8, "Q8_0", "bytes")):
            if (rows, width * bits) == (entry.shape[0], entry.shape[1] * 32):
                return Blocks(dtype, (rows, width), entry, layout)
        raise self._unfit(
            name, f"shape {list(entry.shape)} for a matrix of {rows} × {width}, expected 4 or 8 bits each"
        )

    def _with_scales(self, base: str, name: str, matrix: Blocks) -> Blocks:
        rows, width = matrix.shape
        scales = self.entries.get(base + SCALE)
        if not rows or not width or width % BLOCK:
            raise self._unfit(name, f"rows of {width} values, expected a multiple of {BLOCK}")
        if scales is None or scales.dtype not in FLOATS:
            raise self._unfit(name, f"no {SCALE[1:]} of floats beside it")
        for end in ("_zero_point", "_g_idx", "_global_scale"):
            if base + INT + end in self.entries:
                raise self._unfit(name, f"a {INT[1:]}{end} beside it, which our grids have no place for")
        if math.prod(scales.shape) == 1:
            return replace(matrix, scales=scales)
        groups = scales.shape[-1] if len(scales.shape) == 2 and scales.shape[0] == rows else 0
        if not groups or width % groups or width // groups % BLOCK:
            raise self._unfit(
                name, f"scales of shape {list(scales.shape)}, expected one for each row or for groups of 32, 64, …"
            )
        return replace(matrix, scales=scales)

    def _unfit(self, name: str, what: str) -> WeightsError:
        return WeightsError(f"{shown(name)} of {self.folder} has {what}. Use the model that is not quantised.")


def _halves(name: str, scales: np.ndarray) -> np.ndarray:
    """(N, K/32, 2) bytes of scales as f16; refused where that would lose more than their last bits."""
    with np.errstate(over="ignore"):
        halves = scales.astype(np.float16)
    error = np.abs(halves.astype(np.float32) - scales)
    if not (error <= np.abs(scales) * np.float32(2.0**-11)).all():
        raise WeightsError(
            f"scales of {shown(name)} are too large or too small for 16 bits. Load with format bf16, or use the "
            "model that is not quantised."
        )
    return halves[..., None].view(np.uint8)


def _bytes(entry: Entry) -> np.ndarray:
    """(rows, bytes of a row) uint8, mapped."""
    raw = mapped(entry)
    return raw.reshape(-1, raw.shape[-1]).view(np.uint8)


def _checked(folder: Path, settings: dict[str, Any]) -> list[str]:
    """Refuse what a quantization_config of compressed-tensors asks for and cannot be had; returns what to tell."""

    def refuse(field: str, value: Any, expected: str) -> NoReturn:
        raise WeightsError(
            f"{field} in the quantization_config of {folder} is {str(value)[:80]!r}, expected {expected}. "
            "Use the model that is not quantised."
        )

    groups = settings.get("config_groups")
    if settings.get("quant_method") != THEIRS:
        refuse("quant_method", settings.get("quant_method"), f"{THEIRS} or {OURS}")
    if not isinstance(groups, dict) or not all(isinstance(group, dict) for group in groups.values()):
        refuse("config_groups", groups, "an object of objects")
    for field in ("kv_cache_scheme", "transform_config"):
        if settings.get(field):
            refuse(field, settings[field], "nothing")
    sparsity = settings.get("sparsity_config")
    if sparsity and (not isinstance(sparsity, dict) or sparsity.get("format") != "dense"):
        refuse("sparsity_config", sparsity, "nothing")
    notes = set()
    for group in groups.values():
        weights, inputs = group.get("weights"), group.get("input_activations")
        if not isinstance(weights, dict):
            refuse("weights", weights, "an object")
        for field, default, allowed in WEIGHT_FIELDS:
            if (value := weights.get(field, default)) not in allowed:
                refuse(f"weights.{field}", value, " or ".join(map(str, allowed)))
        if inputs:
            if not isinstance(inputs, dict) or inputs.get("dynamic") is not True:
                refuse("input_activations", inputs, "nothing, or dynamic ones")
            notes.add(f"activations are quantised as Foretoken does it, not as {folder} says.")
        if weights.get("num_bits", 8) == 8:
            notes.add(f"whole numbers of -128 in {folder} count as -127, the least that format q8 has.")
    return sorted(notes)
