"""Put the embedded pair into the exact shapes of E2B or E4B: the same text, at the full cost of that size.

    python bench/inflate.py e2b OUT            # OUT/target and OUT/drafter, Hugging Face folders in bf16
    python bench/inflate.py middle OUT --dtype f32

Padded with zeros, the large model computes the small one's function: time depends on shapes, acceptance on the text.
Any runtime that reads the folders can be timed on the same work. Label what is measured with them "inflated".

Small sizes: h hidden, d head width, e per-layer width; large ones H, D, E. The residual stream is s = √(H/h) times
the small one's, so that every mean square, and with it eps, is the same. Where √(E/e) is no power of two (our e is 32)
the per-layer input is √2 times the small one's instead, so that weights stay exact in bf16; the norm behind it takes
that away again, and only its eps is felt half as much. Zeros are holes in the files: they take no room on disk.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from foretoken.bench import script
from foretoken.bench.shapes import SHAPES, Shape, drafter_json, target_json
from foretoken.cli import terminal
from foretoken.config import DrafterConfig, LayerConfig, TargetConfig, drafter_config, target_config
from foretoken.places import ASSETS
from foretoken.weights.safetensors import Checkpoint

MIDDLE = replace(
    SHAPES["e2b"], hidden=512, num_layers=15, num_heads=4, mlp=512, num_shared=5, per_layer=64,
    draft_mlp=512, head_len=128, full_head_len=256, vocab=8192, context=2048,
)  # fmt: skip
INFLATABLE = {"e2b": SHAPES["e2b"], "e4b": SHAPES["e4b"], "middle": MIDDLE}
RESERVED = 5  # the row whose logit the training counted once per padding row
PIECE_VALUES = 16 << 20
COLUMNS = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
NORMS_IN, NORMS_OUT = ("input", "pre_feedforward"), ("post_attention", "post_feedforward", "post_per_layer_input")


@dataclass(frozen=True)
class Placed:
    """A large tensor, zero but for `values` (n, m) at its rows `rows` (n,) and columns `cols` (m,); vectors have m = 1.

    padding  row of `values` that also stands in every row from the first `len(rows)` on, or None
    """

    shape: tuple[int, ...]
    rows: np.ndarray
    cols: np.ndarray
    values: np.ndarray
    padding: int | None = None

    def pieces(self) -> Iterator[np.ndarray]:
        """The tensor as float32 (rows, columns), a few rows at a time."""
        height, width = self.shape[0], math.prod(self.shape[1:])
        step = max(1, PIECE_VALUES // width)
        for start in range(0, height, step):
            piece = np.zeros((min(step, height - start), width), np.float32)
            inside = np.flatnonzero((self.rows >= start) & (self.rows < start + len(piece)))
            if self.padding is not None and start + len(piece) > len(self.rows):
                piece[max(0, len(self.rows) - start) :, self.cols] = self.values[self.padding]
            piece[np.ix_(self.rows[inside] - start, self.cols)] = self.values[inside]
            yield piece


def vector(length: int, at: np.ndarray, values: np.ndarray) -> Placed:
    return Placed((length,), at, np.zeros(1, int), values[:, None])


def matrix(shape: tuple[int, int], values: np.ndarray, rows: np.ndarray | None = None, cols: Any = None) -> Placed:
    """`values` at the first rows and columns, or at those given."""
    rows = np.arange(values.shape[0]) if rows is None else rows
    return Placed(shape, rows, np.arange(values.shape[1]) if cols is None else cols, values)


def table(shape: tuple[int, int], values: np.ndarray, cols: np.ndarray | None = None) -> Placed:
    """Rows by token id; ids that the small vocabulary lacks copy its reserved row."""
    return replace(matrix(shape, values, cols=cols), padding=RESERVED)


def rotary_places(small: int, large: int) -> np.ndarray:
    """Where the entries of a head go: pair (i, i + small/2) to the pair of the same frequency."""
    first = np.arange(small // 2) * (large // small)
    return np.concatenate([first, first + large // 2])


def heads(places: np.ndarray, count: int, width: int) -> np.ndarray:
    """Places of all heads in a fused row: head by head."""
    return (np.arange(count)[:, None] * width + places).reshape(-1)


def layer_places(small: TargetConfig, large: TargetConfig) -> list[int]:
    """For each small layer its large one: by type and in order, donors on donors, shared on shared."""
    places, at = [], large.first_shared
    for layer in reversed(small.layers[: small.first_shared]):
        at = max(i for i in range(at) if large.layers[i].kind == layer.kind)
        places.insert(0, at)
    at = large.first_shared - 1
    for layer in small.layers[small.first_shared :]:
        at = min(i for i in range(at + 1, len(large.layers)) if large.layers[i].kind == layer.kind)
        places.append(at)
    return places


class Inflation:
    """The tensors of one model, made one after the other. `s` is the factor of its residual stream."""

    def __init__(self, checkpoint: Checkpoint, small_hidden: int, hidden: int) -> None:
        self.read = checkpoint.read
        self.small, self.hidden = small_hidden, hidden
        self.s = math.sqrt(hidden / small_hidden)
        self.tensors: dict[str, Placed] = {}

    def attention(self, to: str, of: str, layer: LayerConfig, small: LayerConfig) -> None:
        """q, k, v, o and the norms of heads; every key/value head is a copy of the small model's only one."""
        d, width, factor = small.head_len, layer.head_len, math.sqrt(layer.head_len / small.head_len)
        turned, straight = rotary_places(d, width), np.arange(d)
        q = matrix(
            (layer.num_heads * width, self.hidden),
            self.read(of + "q_proj.weight") * factor,
            rows=heads(turned, small.num_heads, width),
        )
        o = matrix(
            (self.hidden, layer.num_heads * width),
            self.read(of + "o_proj.weight") * (self.s / factor),
            cols=heads(straight, small.num_heads, width),
        )
        self.tensors |= {to + "q_proj.weight": q, to + "o_proj.weight": o}
        self.tensors[to + "q_norm.weight"] = vector(width, turned, self.read(of + "q_norm.weight") / factor)
        if layer.is_shared:
            return
        self.tensors[to + "k_norm.weight"] = vector(width, turned, self.read(of + "k_norm.weight") / factor)
        for name, places in (("k_proj", turned), ("v_proj", straight)):
            values = np.tile(self.read(f"{of}{name}.weight") * factor, (layer.num_kv_heads, 1))
            rows = heads(places, layer.num_kv_heads, width)
            self.tensors[f"{to}{name}.weight"] = matrix((layer.num_kv_heads * width, self.hidden), values, rows=rows)

    def layer(self, to: str, of: str, layer: LayerConfig, small: LayerConfig, per_layer: int) -> None:
        """One layer that computes what the small one does; the per-layer width is 0 where there is none."""
        self.attention(to + "self_attn.", of + "self_attn.", layer, small)
        for name in ("gate_proj", "up_proj"):
            values = self.read(f"{of}mlp.{name}.weight")
            self.tensors[f"{to}mlp.{name}.weight"] = matrix((layer.mlp_len, self.hidden), values)
        down = self.read(of + "mlp.down_proj.weight") * self.s
        self.tensors[to + "mlp.down_proj.weight"] = matrix((self.hidden, layer.mlp_len), down)
        if per_layer:
            gate = self.read(of + "per_layer_input_gate.weight") / self.s
            back = self.read(of + "per_layer_projection.weight") * self.s
            self.tensors[to + "per_layer_input_gate.weight"] = matrix((per_layer, self.hidden), gate)
            self.tensors[to + "per_layer_projection.weight"] = matrix((self.hidden, per_layer), back)
        for name in (*NORMS_IN, *NORMS_OUT):
            if name == "post_per_layer_input":
                key = name + "_norm.weight"
                if not per_layer:
                    continue
            else:
                key = name + "_layernorm.weight"
            weight = self.read(of + key) / (self.s if name in NORMS_IN else 1.0)
            self.tensors[to + key] = vector(self.hidden, np.arange(self.small), weight)
        self.tensors[to + "layer_scalar"] = vector(1, np.zeros(1, int), self.read(of + "layer_scalar"))

    def identity(self, to: str, layer: LayerConfig, like: str) -> None:
        """A layer that changes nothing: everything zero, the scalar 1; shapes from the layer of the same sort."""
        for name, placed in list(self.tensors.items()):
            if name.startswith(like):
                nothing = replace(placed, rows=np.zeros(0, int), values=placed.values[:0])
                self.tensors[to + name.removeprefix(like)] = nothing
        self.tensors[to + "layer_scalar"] = vector(1, np.zeros(1, int), np.ones(1, np.float32))


def target_tensors(folder: Path, small: TargetConfig, large: TargetConfig) -> dict[str, Placed]:
    """All tensors of the large target by name."""
    new = Inflation(Checkpoint(folder), small.hidden_len, large.hidden_len)
    places, width = layer_places(small, large), large.per_layer_len
    sort: dict[tuple[str, bool], str] = {}
    for index, place in enumerate(places):
        to, layer = f"model.layers.{place}.", large.layers[place]
        new.layer(to, f"model.layers.{index}.", layer, small.layers[index], width)
        sort[layer.kind, layer.is_shared] = to
    for index, layer in enumerate(large.layers):
        if index not in places:
            new.identity(f"model.layers.{index}.", layer, sort[layer.kind, layer.is_shared])
    ratio = width / small.per_layer_len
    rows_factor = 2.0 ** math.ceil(math.log2(math.sqrt(ratio)))  # √ratio, or √2 times that
    slices = heads(np.arange(small.per_layer_len), 1, width)
    cols = (np.array(places)[:, None] * width + slices).reshape(-1)
    shape, total = (large.vocab_len, large.hidden_len), len(large.layers) * width
    projection = new.read("model.per_layer_model_projection.weight") * rows_factor
    per_layer = new.read("model.embed_tokens_per_layer.weight") * (rows_factor / ratio)
    norm = new.read("model.per_layer_projection_norm.weight") * (rows_factor / ratio)
    return new.tensors | {
        "model.embed_tokens.weight": table(shape, new.read("model.embed_tokens.weight")),
        "model.norm.weight": vector(large.hidden_len, np.arange(new.small), new.read("model.norm.weight") / new.s),
        "model.embed_tokens_per_layer.weight": table((large.vocab_len, total), per_layer, cols),
        "model.per_layer_model_projection.weight": matrix((total, large.hidden_len), projection, rows=cols),
        "model.per_layer_projection_norm.weight": vector(width, np.arange(small.per_layer_len), norm),
    }


def drafter_tensors(folder: Path, small: DrafterConfig, large: DrafterConfig) -> dict[str, Placed]:
    """All tensors of the large drafter by name, but for the order of tokens."""
    new = Inflation(Checkpoint(folder), small.hidden_len, large.hidden_len)
    for index, layer in enumerate(large.layers):
        name = f"model.layers.{index}."
        new.layer(name, name, layer, small.layers[index], 0)
    h, width, t = small.backbone_len, large.backbone_len, new.s
    before = new.read("pre_projection.weight") * t
    before[:, :h] /= math.sqrt(width / h)
    cols = np.concatenate([np.arange(h), width + np.arange(h)])
    norm = new.read("model.norm.weight") / t
    return new.tensors | {
        "model.embed_tokens.weight": table((large.vocab_len, large.hidden_len), new.read("model.embed_tokens.weight")),
        "model.norm.weight": vector(large.hidden_len, np.arange(new.small), norm),
        "pre_projection.weight": matrix((large.hidden_len, 2 * width), before, cols=cols),
        "post_projection.weight": matrix((width, large.hidden_len), new.read("post_projection.weight")),
        "masked_embedding.centroids.weight": matrix(
            (large.num_clusters, large.hidden_len), new.read("masked_embedding.centroids.weight")
        ),
    }


def token_order(folder: Path, small: DrafterConfig, large: DrafterConfig) -> np.ndarray:
    """(V,) int64: each cluster's own tokens, then padding ids."""
    own = Checkpoint(folder).read_ids("masked_embedding.token_ordering").reshape(small.num_clusters, -1)
    padding = np.arange(small.vocab_len, large.vocab_len).reshape(small.num_clusters, -1)
    return np.concatenate([own, padding], axis=1).reshape(-1).astype(np.int64)


def as_bf16(x: np.ndarray) -> np.ndarray:
    """float32 to the bits of bf16, ties to even; the pair's own values come through unchanged."""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write(path: Path, tensors: Mapping[str, Placed], ids: Mapping[str, np.ndarray], dtype: str) -> None:
    """One safetensors file; pieces that are zero are skipped, so they become holes."""
    header, at = {}, 0
    for name, placed in tensors.items():
        size = math.prod(placed.shape) * (2 if dtype == "BF16" else 4)
        header[name] = {"dtype": dtype, "shape": list(placed.shape), "data_offsets": [at, at + size]}
        at += size
    at = -(-at // 8) * 8
    for name, values in ids.items():
        header[name] = {"dtype": "I64", "shape": [len(values)], "data_offsets": [at, at + values.nbytes]}
        at += values.nbytes
    text = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
    text += b" " * (-len(text) % 64)
    start = 8 + len(text)
    with path.open("wb") as file, Progress(*COLUMNS, console=Console(stderr=True)) as progress:
        task = progress.add_task(path.parent.name, total=at)
        file.write(len(text).to_bytes(8, "little") + text)
        for name, placed in tensors.items():
            file.seek(start + header[name]["data_offsets"][0])
            for piece in placed.pieces():
                data = as_bf16(piece) if dtype == "BF16" else piece
                if data.any():
                    file.write(data.tobytes())
                else:
                    file.seek(data.nbytes, 1)
                progress.advance(task, data.nbytes)
        for name, values in ids.items():
            file.seek(start + header[name]["data_offsets"][0])
            file.write(values.tobytes())
        file.truncate(start + at)


def write_folder(small: Path, out: Path, config: dict[str, Any], dtype: str, tensors: Any, ids: Any) -> None:
    """Weights, config, and what else lies in the small model's folder."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for path in small.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            shutil.copy(path, out / path.name)
    write(out / "model.safetensors", tensors, ids, dtype)


def inflate(pair: Path, shape: Shape, out: Path, dtype: str) -> None:
    """Write OUT/target and OUT/drafter."""
    torch_dtype = {"BF16": "bfloat16", "F32": "float32"}[dtype]
    old = json.loads((pair / "target/config.json").read_text())
    config = old | target_json(shape)["text_config"] | {"dtype": torch_dtype}
    small, large = target_config(old), target_config(config)
    tensors = target_tensors(pair / "target", small, large)
    write_folder(pair / "target", out / "target", config, dtype, tensors, {})
    old = json.loads((pair / "drafter/config.json").read_text())
    outer = drafter_json(shape)
    config = old | outer | {"dtype": torch_dtype}
    config["text_config"] = old["text_config"] | outer["text_config"] | {"dtype": torch_dtype}
    small_d, large_d = drafter_config(old), drafter_config(config)
    order = {"masked_embedding.token_ordering": token_order(pair / "drafter", small_d, large_d)}
    tensors = drafter_tensors(pair / "drafter", small_d, large_d)
    write_folder(pair / "drafter", out / "drafter", config, dtype, tensors, order)


def main() -> None:
    parser = script.parser(__doc__)
    parser.add_argument("shape", choices=list(INFLATABLE), help="the shape to put it into")
    parser.add_argument("out", type=Path, help="gets target/ and drafter/; E2B takes some 6 GB of disk")
    parser.add_argument("--pair", type=Path, default=ASSETS, help="folder with target/ and drafter/")
    parser.add_argument("--dtype", choices=["bf16", "f32"], default="bf16", help="of the files")
    options = parser.parse_args()
    inflate(options.pair, INFLATABLE[options.shape], options.out, options.dtype.upper())


if __name__ == "__main__":
    sys.exit(script.run(main, terminal.say))
