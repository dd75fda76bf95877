"""`weights.quantize`: folders in q4 and q8 that load to the bits of the original in that format."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from checkpoints import GOLDEN, copy_of, join, split

from foretoken import config as configs
from foretoken import weights
from foretoken.errors import ConfigError, InputError, WeightsError
from foretoken.ops import native, reference
from foretoken.weights.compressed import open_folder
from foretoken.weights.quantize import quantize

FORMATS = ("q4", "q8")
TARGETS = ("e2b", "26b", "12b", "g3", "g3-text")


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETOKEN_CACHE_DIR", str(tmp_path / "cache"))


def config_of(folder):
    return configs.load_drafter_config(folder) if "assistant" in folder.name else configs.load_target_config(folder)


def make(folder, format, out, progress=None, ops=native):
    checkpoint = open_folder(folder)
    parts = weights.fitting_plan(checkpoint, config_of(folder))
    return quantize(folder, checkpoint, parts, format, out, ops, progress)


def flat(value, name=""):
    """{path: bytes} of everything in a tree of dataclasses, tuples and arrays."""
    if hasattr(value, "data") and hasattr(value, "layout"):
        return {name: (value.format, value.n, value.k, value.data.tobytes())}
    if isinstance(value, np.ndarray):
        return {name: value.tobytes()}
    if hasattr(value, "__dataclass_fields__"):
        return {
            k: v
            for field in value.__dataclass_fields__
            for k, v in flat(getattr(value, field), f"{name}.{field}").items()
        }
    if isinstance(value, tuple):
        return {k: v for i, item in enumerate(value) for k, v in flat(item, f"{name}.{i}").items()}
    return {name: value}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", [*TARGETS, "e2b-assistant", "12b-assistant"])
def test_every_bit_is_that_of_the_original_in_that_format(tmp_path, name, format):
    out = tmp_path / f"out-{name}"
    make(GOLDEN / name, format, out)
    expected = flat(weights.load(GOLDEN / name, config_of(GOLDEN / name), format, native)[0])
    assert flat(weights.load(out, config_of(out), format, native)[0]) == expected
    assert any(value[0] == format for value in expected.values() if isinstance(value, tuple))


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_tokens_and_a_smaller_folder(tmp_path, format):
    import foretoken
    from foretoken.places import ASSETS

    out = tmp_path / "small"
    make(ASSETS / "target", format, out)
    model, original = foretoken.load(str(out)), foretoken.load(format=format, drafter="none")
    assert model.info()["format"] == format
    for prompt in ("Once", "def add(a, b):", "日本 🙂"):
        options = {"max_tokens": 30, "seed": 3, "temperature": 0.7, "logprobs": 5}
        ours, theirs = model.generate(prompt, **options), original.generate(prompt, **options)
        assert (ours.tokens, ours.logprobs) == (theirs.tokens, theirs.logprobs)
    size = (out / "model.safetensors").stat().st_size
    assert size < {"q4": 0.3, "q8": 0.55}[format] * (ASSETS / "target" / "model.safetensors").stat().st_size


def test_what_is_on_disk(tmp_path):
    out = tmp_path / "out"
    tensors = make(GOLDEN / "e2b", "q4", out)
    header, data = split(out / "model.safetensors")
    assert {t.name for t in tensors} == set(header)
    name = next(t.source for t in tensors if t.format and "gate_proj" in t.source)
    entry = header[name + ".q4"]
    values = open_folder(GOLDEN / "e2b").read(name)
    expected = reference.pack(values, "q4", "rows").data
    assert entry["dtype"] == "U8" and entry["shape"] == [values.shape[0], values.shape[1] // 32 * 18]
    start, stop = entry["data_offsets"]
    assert data[start:stop] == expected.tobytes()
    settings = json.loads((out / "config.json").read_text())["quantization_config"]
    assert settings == {"quant_method": "foretoken", "version": 1, "format": "q4", "embedding_dtype": "BF16"}


def test_the_text_side_comes_along_and_nothing_else(tmp_path):
    folder = copy_of("e2b", tmp_path)
    for name in (
        "tokenizer.json",
        "chat_template.jinja",
        "generation_config.json",
        "NOTICE",
        "pytorch_model.bin",
        "README.md",
    ):
        (folder / name).write_text(name)
    make(folder, "q8", tmp_path / "out")
    expected = {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
        "generation_config.json",
        "NOTICE",
    }
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "tokenizer.json"


def test_quantised_once_more(tmp_path):
    make(GOLDEN / "e2b", "q4", tmp_path / "first")
    make(tmp_path / "first", "q4", tmp_path / "second")
    assert (tmp_path / "first" / "model.safetensors").read_bytes() == (
        tmp_path / "second" / "model.safetensors"
    ).read_bytes()
    assert (tmp_path / "first" / "config.json").read_bytes() == (tmp_path / "second" / "config.json").read_bytes()


def test_another_format_can_be_asked_of_it(tmp_path):
    make(GOLDEN / "e2b", "q4", tmp_path / "out")
    files = open_folder(tmp_path / "out")
    name = next(name for name in files.entries if "gate_proj" in name)
    values = open_folder(GOLDEN / "e2b").read(name)
    assert np.array_equal(files.read(name), reference.unpack(reference.pack(values, "q4", "rows")))
    rows = np.array([3, 0, 3])
    assert np.array_equal(files.read(name, rows), files.read(name)[rows])
    assert files.blocks(name, slice(0, 4), "bf16") is None
    for format in ("q8", "f32"):  # both hold whole numbers of 4 bits and their scale
        packed = weights.load(tmp_path / "out", config_of(GOLDEN / "e2b"), format, native)[0]
        assert packed.layers[0].gate_up.format == format
        assert np.array_equal(native.unpack(packed.layers[0].gate_up)[: len(values)], files.read(name))


def test_progress_counts_every_byte(tmp_path):
    seen = []
    tensors = make(GOLDEN / "e2b", "q4", tmp_path / "out", lambda *told: seen.append(told))
    whole = sum(tensor.num_bytes for tensor in tensors)
    assert seen[-1] == (whole, whole) and seen == sorted(seen)


def only(folder, *names):
    return sorted(path.name for path in folder.iterdir() if path.name != "cache") == sorted(names)


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_nothing_is_overwritten(tmp_path, kind):
    out = tmp_path / "out"
    {"folder": out.mkdir, "file": out.touch, "link": lambda: out.symlink_to("nowhere")}[kind]()
    with pytest.raises(InputError, match="is there already"):
        make(GOLDEN / "e2b", "q4", out)
    assert only(tmp_path, "out")


def test_no_folder_to_put_it_in(tmp_path):
    with pytest.raises(InputError, match="Make it first"):
        make(GOLDEN / "e2b", "q4", tmp_path / "a" / "out")


def test_a_disk_too_small_is_seen_first(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 99, 1))
    with pytest.raises(InputError, match="1 are free"):
        make(GOLDEN / "e2b", "q4", tmp_path / "out")
    assert only(tmp_path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "full"), WeightsError("x")])
def test_nothing_half_written_stays(tmp_path, error):
    def stop(done, whole):
        if done > whole // 2:
            raise error

    expected = InputError if isinstance(error, OSError) else error if isinstance(error, type) else type(error)
    with pytest.raises(expected, match="disk is full" if isinstance(error, OSError) else None):
        make(GOLDEN / "e2b", "q4", tmp_path / "out", stop)
    assert only(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(InputError, match="Permission denied"):
        make(GOLDEN / "e2b", "q4", tmp_path / "out")


def test_the_folder_appears_only_when_it_is_whole(tmp_path):
    out = tmp_path / "out"
    make(GOLDEN / "e2b", "q4", out, lambda done, whole: os.path.lexists(out) and pytest.fail("too early"))
    assert out.is_dir()


def damaged(folder, change):
    header, data = split(folder / "model.safetensors")
    change(header)
    join(folder / "model.safetensors", header, data)
    return weights.load(folder, config_of(folder), "auto", native)


@pytest.mark.parametrize("shape", [[7], [0, 18], [], [4, 17], [4, 36, 1]])
def test_blocks_of_a_wrong_shape(tmp_path, shape):
    make(GOLDEN / "e2b", "q4", tmp_path / "e2b")

    def change(header):
        name = next(name for name in header if "gate_proj" in name)
        size = int(np.prod(shape)) if shape else 1
        header[name] = {"dtype": "U8", "shape": shape, "data_offsets": [0, size]}
        for other in [other for other in header if other != name]:
            del header[other]

    with pytest.raises(WeightsError):
        damaged(tmp_path / "e2b", change)


def test_a_scale_that_is_no_number(tmp_path):
    folder = tmp_path / "e2b"
    make(GOLDEN / "e2b", "q8", folder)
    header, data = split(folder / "model.safetensors")
    at = header[next(name for name in header if "gate_proj" in name)]["data_offsets"][0]
    join(folder / "model.safetensors", header, data[:at] + b"\x00\x7c" + data[at + 2 :])
    for format in ("q8", "f32"):
        with pytest.raises(WeightsError, match="gate_proj"):
            weights.load(folder, config_of(folder), format, native)


def set_quantisation(folder, value):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": value}))


@pytest.mark.parametrize("change", [{"version": 2}, {"version": None}, {"embedding_dtype": "I8"}])
def test_another_version(tmp_path, change):
    make(GOLDEN / "e2b", "q4", tmp_path / "e2b")
    settings = json.loads((tmp_path / "e2b" / "config.json").read_text())["quantization_config"]
    set_quantisation(tmp_path / "e2b", {**settings, **change})
    with pytest.raises(WeightsError, match="Quantise the model again"):
        open_folder(tmp_path / "e2b")


@pytest.mark.parametrize("value", [{"quant_method": "gptq"}, {}, [], "q4", {"quant_method": ["foretoken"]}])
def test_other_quantised_files(tmp_path, value):
    folder = Path(copy_of("e2b", tmp_path))
    set_quantisation(folder, value)
    with pytest.raises((ConfigError, WeightsError)):
        configs.load_target_config(folder)
        open_folder(folder)
