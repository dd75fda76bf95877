"""Which format a part gets, and models that are refused because memory is too small."""

from dataclasses import replace

import numpy as np
import pytest
from checkpoints import GOLDEN, PACKABLE, copy_of, save

from foretoken import config as configs
from foretoken import weights
from foretoken.errors import ShapeError, WeightsError
from foretoken.ops import reference
from foretoken.weights import memory, store
from foretoken.weights.formats import FORMATS, settled
from foretoken.weights.gemma4 import plan
from foretoken.weights.safetensors import Checkpoint

GIB = 1 << 30


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETOKEN_CACHE_DIR", str(tmp_path / "cache"))


def config_of(name):
    return configs.load_target_config(GOLDEN / name)


def formats(parts):
    return {part.name: part.format for part in parts if part.is_packed}


def four_bit(shape, rng):
    """What a Q4_0 file holds, widened: 16 levels of one scale in each block of 32, on the bf16 grid."""
    levels = rng.integers(-8, 8, (*shape[:-1], shape[-1] // 32, 32)).astype(np.float32)
    scales = rng.uniform(0.01, 0.02, (*levels.shape[:-1], 1)).astype(np.float16).astype(np.float32)
    return ((levels * scales).reshape(shape).view(np.uint32) >> 16).astype(np.uint16)


@pytest.fixture
def four_bit_model(tmp_path):
    """e2b with 4-bit layers; embedding and per-layer table stay as they are."""
    folder, rng = copy_of("e2b", tmp_path), np.random.default_rng(5)
    files = Checkpoint(folder)
    arrays = {}
    for name, entry in files.entries.items():
        stored = (files.read(name).view(np.uint32) >> 16).astype(np.uint16)
        is_matrix = len(entry.shape) == 2 and entry.shape[1] % 32 == 0 and "embed_tokens" not in name
        arrays[name] = four_bit(entry.shape, rng) if is_matrix else stored
    save(folder / "model.safetensors", arrays)
    return folder


def test_auto_is_q8():
    name, parts = settled(plan(config_of("e2b")), "auto", Checkpoint(GOLDEN / "e2b"))
    assert name == "q8" and set(formats(parts).values()) == {"q8"}
    assert weights.load(GOLDEN / "e2b", config_of("e2b"), "auto", reference)[1].format == "q8"


def test_auto_is_q4_where_the_layers_are_4_bit_already(four_bit_model):
    parts = plan(config_of("e2b"))
    name, found = settled(parts, "auto", Checkpoint(four_bit_model))
    assert name == "q4" and formats(found)["layers.0.qkv"] == "q4"
    assert formats(found)["embed"] == "q8", "the embedding of that file is not"
    assert formats(found)["per_layer_table"] == "q8", "nor is its table"


@pytest.mark.parametrize("tensor", ["model.layers.4.mlp.up_proj.weight", "model.layers.0.self_attn.k_proj.weight"])
def test_one_layer_that_is_not_4_bit_makes_it_q8(four_bit_model, tensor):
    files, original = Checkpoint(four_bit_model), Checkpoint(GOLDEN / "e2b")
    arrays = {
        name: ((original if name == tensor else files).read(name).view(np.uint32) >> 16).astype(np.uint16)
        for name in files.entries
    }
    save(four_bit_model / "model.safetensors", arrays)
    assert settled(plan(config_of("e2b")), "auto", Checkpoint(four_bit_model))[0] == "q8"


@pytest.mark.parametrize("asked", FORMATS)
def test_what_was_asked_holds_for_all_but_the_router(asked):
    name, parts = settled(plan(config_of("26b")), asked, Checkpoint(GOLDEN / "26b"))
    found = formats(parts)
    assert name == asked and {found.pop(f"layers.{layer}.experts.router") for layer in range(3)} == {"f32"}
    assert set(found.values()) == {asked}
    assert all(part.format is None for part in parts if not part.is_packed)


@pytest.mark.parametrize("format", PACKABLE)
@pytest.mark.parametrize("name", ["e2b", "26b", "31b"])
def test_the_bytes_foretold_are_those_packed(name, format):
    folder, config = GOLDEN / name, config_of(name)
    parts = settled(plan(config), format, Checkpoint(folder))[1]
    assert memory.packed_bytes(parts, reference) == weights.load(folder, config, format, reference)[1].packed_bytes


def test_a_mapped_table_takes_no_memory(monkeypatch):
    parts = settled(plan(config_of("e2b")), "q8", Checkpoint(GOLDEN / "e2b"))[1]
    before = memory.packed_bytes(parts, reference)
    monkeypatch.setattr("foretoken.weights.gemma4.MAPPED_VALUES", 1)
    assert before - memory.packed_bytes(parts, reference) == 256 * 3 * 34  # three blocks of 32 hold 5 · 16 columns


class _Ops:
    """Packs only zeros, to count bytes: a format is its bits per weight."""

    def __init__(self, formats=FORMATS):
        self.formats = formats

    def pack(self, w, format, layout):
        assert not w.any(), "a model that does not fit was read"
        if format not in self.formats:
            raise ShapeError(f"no {format}")
        bits = {"f32": 32, "bf16": 16, "q8": 8, "q4": 4}[format]
        return replace(reference.pack(w, "f32", layout), data=np.empty(w.size * bits // 8, np.uint8))


def refused(monkeypatch, have, asked="q8", ops=None):
    monkeypatch.setattr(memory, "WORKING_BYTES", 0)
    monkeypatch.setattr(memory, "available_bytes", lambda: have)
    monkeypatch.setattr(store, "aligned", lambda count: pytest.fail("memory was taken"))
    with pytest.raises(WeightsError) as caught:
        weights.load(GOLDEN / "31b", config_of("31b"), asked, ops or _Ops())
    return str(caught.value)


def test_a_model_that_does_not_fit_is_refused_with_a_format_that_would(monkeypatch):
    parts = plan(config_of("31b"))
    sizes = {f: memory.packed_bytes(settled(parts, f, Checkpoint(GOLDEN / "31b"))[1], _Ops()) for f in FORMATS}
    message = refused(monkeypatch, sizes["q8"], "f32")
    assert f"needs {sizes['f32']:,} bytes" in message and f"{sizes['q8']:,} bytes" in message
    assert "in format f32" in message and "Format q8 would fit" in message
    assert "Format q4 would fit" in refused(monkeypatch, sizes["q8"] - 1)
    assert f"Format q4 needs {sizes['q4']:,} bytes (0.0 GB), which does not fit either" in refused(monkeypatch, 1000)
    assert "No format is smaller" in refused(monkeypatch, 1000, "q4")


def test_a_model_that_just_fits_is_loaded(monkeypatch):
    folder, config = GOLDEN / "31b", config_of("31b")
    need = memory.packed_bytes(settled(plan(config), "q8", Checkpoint(folder))[1], reference) + memory.WORKING_BYTES
    monkeypatch.setattr(memory, "available_bytes", lambda: need)
    weights.load(folder, config, "q8", reference)
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    weights.load(folder, config, "f32", reference)


# What the system says


@pytest.fixture
def system(monkeypatch):
    """Files of the system by path; what is not there cannot be read."""
    files = {}
    monkeypatch.setattr(memory, "_text", lambda path: files.get(str(path), ""))
    monkeypatch.setattr(memory.os, "sysconf", lambda name: {"SC_PHYS_PAGES": 100, "SC_PAGE_SIZE": 4096}[name])
    return files


def test_available_memory_of_the_machine(system):
    assert memory.available_bytes() == 409600, "all there is, where nobody says what is free"
    system["/proc/meminfo"] = "MemTotal: 99 kB\nMemAvailable:      80 kB\n"
    assert memory.available_bytes() == 80 << 10


def test_nobody_says(system, monkeypatch):
    def unknown(name):
        raise ValueError(name)

    monkeypatch.setattr(memory.os, "sysconf", unknown)
    assert memory.available_bytes() is None


def test_a_control_group_limits(system):
    system["/proc/meminfo"] = f"MemAvailable: {64 << 20} kB\n"
    system["/proc/self/cgroup"] = "0::/outer/inner\n"
    group = "/sys/fs/cgroup/outer"
    system |= {f"{group}/inner/memory.max": "max\n", f"{group}/inner/memory.current": "7\n"}
    assert memory.available_bytes() == 64 * GIB
    system |= {f"{group}/memory.max": f"{8 * GIB}\n", f"{group}/memory.current": f"{5 * GIB}\n"}
    assert memory.available_bytes() == 3 * GIB
    system[f"{group}/memory.stat"] = f"anon 1\ninactive_file {GIB}\nactive_file {GIB}\n"
    assert memory.available_bytes() == 5 * GIB, "cached files make room"


def test_a_control_group_of_version_1_limits(system):
    group = "/sys/fs/cgroup/memory"
    system["/proc/meminfo"] = f"MemAvailable: {64 << 20} kB\n"
    system |= {f"{group}/memory.limit_in_bytes": str(4 * GIB), f"{group}/memory.usage_in_bytes": str(GIB)}
    system[f"{group}/memory.stat"] = f"total_inactive_file {GIB}\n"
    assert memory.available_bytes() == 4 * GIB
    system[f"{group}/memory.usage_in_bytes"] = str(9 * GIB)
    assert memory.available_bytes() == 0


def test_this_machine_says_something():
    found = memory.available_bytes()
    assert found is None or found > 0
