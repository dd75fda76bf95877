"""Damaged Hugging Face folders all the way: whatever their files say, they are loaded, or refused with our errors."""

import json

import numpy as np
import pytest
from checkpoints import copy_of, join, save, split
from claims import refusals

from foretoken import weights
from foretoken.errors import ForetokenError, WeightsError
from foretoken.ops import native
from foretoken.source import open_source
from foretoken.weights.safetensors import read_header

NESTED = json.loads("[" * 400 + "]" * 400)
ODD = [
    *(None, True, False, 0, 1, -1, 1 << 31, 1 << 47, 1 << 64, 10**400, 0.5, 1e308, float("inf"), float("nan")),
    *("", "F32", "BF16", "I64", "I8", "F8_E4M3", "Q8_0", "\x1b\n" * 99),
    *([], [0], [1], [1] * 9, [1 << 47] * 8, [[]], {}, {"a": 1}, NESTED),
]
STRIKING = (0, 1, 0x7F, 0x80, 0xFF, *b'"{}[],:0')


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETOKEN_CACHE_DIR", str(tmp_path / "cache"))


def load(folder):
    source = open_source(folder)
    config = source.drafter_config() if "assistant" in folder.name else source.target_config()
    source.generation_defaults((1,))
    weights.load(source.checkpoint(), config, "auto", native)


def places(value, place=()):
    """Where in a JSON value another could stand."""
    if place:
        yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, own in inner:
        yield from places(own, (*place, key))


def with_odd_values(value, rng):
    """A copy with one or two values replaced by odd ones."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.integers(1, 3)):
        found = list(places(value))
        *path, last = found[rng.integers(len(found))]
        owner = value
        for key in path:
            owner = owner[key]
        owner[last] = ODD[rng.integers(len(ODD))]
    return value


def with_odd_bytes(raw, rng, where):
    raw = bytearray(raw)
    for at in rng.integers(where.start, where.stop, rng.integers(1, 5)):
        raw[at] = rng.choice(STRIKING) if rng.random() < 0.5 else rng.integers(256)
    return bytes(raw)


def damage(folder, part, rng):
    path = folder / "model.safetensors"
    if part == "config":
        config = folder / "config.json"
        config.write_text(json.dumps(with_odd_values(json.loads(config.read_text()), rng)))
    elif part == "entries":
        header, data = split(path)
        join(path, with_odd_values(header, rng), data)
    else:
        raw = path.read_bytes()
        start = 8 + int.from_bytes(raw[:8], "little")
        path.write_bytes(with_odd_bytes(raw, rng, range(start) if part == "header" else range(start, len(raw))))


@pytest.mark.parametrize("part", ["config", "entries", "header", "data"])
@pytest.mark.parametrize("name", ["e2b", "26b", "31b-assistant", "g3"])
def test_damaged_folders(name, part, tmp_path):
    """Values of the config or of the header's entries replaced, or bytes of the header or of the weights changed."""
    folder, rng, outcomes = copy_of(name, tmp_path), np.random.default_rng(13), []
    sound = {path: path.read_bytes() for path in folder.iterdir()}
    for _ in range(60):
        for path, raw in sound.items():
            path.write_bytes(raw)
        damage(folder, part, rng)
        try:
            load(folder)
            outcomes.append("loaded")
        except ForetokenError as error:
            assert len(str(error)) > 20
            outcomes.append("refused")
    assert outcomes.count("refused") > (0 if part == "data" else 20)


def test_every_truncation_of_a_header_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save(path, {"a": np.zeros((4, 4), np.float32), "b": np.zeros(3, np.uint16)})
    raw = path.read_bytes()
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        with pytest.raises(WeightsError):
            read_header(path)


def test_memory_is_not_taken_for_what_a_file_only_claims(tmp_path):
    """In a process of its own: tensors of terabytes and a header of gigabytes are refused before they are believed."""
    for index, shape in enumerate(([1 << 40], [1 << 20, 1 << 20], [1 << 47] * 8)):
        size = 4 * int(np.prod(shape, dtype=object))
        for stop in (size, 64):
            entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, stop]}
            join(tmp_path / f"{index}-{stop == size}.safetensors", {"a": entry}, bytes(64))
    (tmp_path / "long.safetensors").write_bytes((1 << 33).to_bytes(8, "little") + b"{")
    count, taken = refusals(tmp_path, ".safetensors", "foretoken.weights.safetensors:read_header")
    assert count == 7
    assert taken < 16 << 10  # KiB
