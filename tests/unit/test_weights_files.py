"""Safetensors files from outside: what is read, and what is refused before memory is taken."""

import json
import os
import struct
import tracemalloc

import numpy as np
import pytest
from checkpoints import copy_of, join, save, split

from foretoken.errors import ConfigError, WeightsError
from foretoken.weights.safetensors import Checkpoint, read_header

DATA = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def model(tmp_path):
    """A folder with one small file."""
    ids = np.array([2, 0, 1], np.int64)
    save(tmp_path / "model.safetensors", {"a": DATA, "half": DATA.astype(np.float16), "ids": ids})
    return tmp_path


def the_file(model):
    return model / "model.safetensors"


def change(model, **entry):
    header, data = split(the_file(model))
    header["a"] |= entry
    join(the_file(model), header, data)


def refused(model, *words):
    with pytest.raises(WeightsError) as caught:
        Checkpoint(model)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700
    for word in words:
        assert word in message, message


def test_values_widen_exactly(tmp_path):
    values = np.array([1.0, -2.5, 3.140625, 65280.0, 2.0**-24, -0.0], np.float32)
    bf16 = (np.array([1.0, -2.5, 3.140625, 1e38], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    save(tmp_path / "model.safetensors", {"f32": values, "f16": values.astype(np.float16), "bf16": bf16})
    checkpoint = Checkpoint(tmp_path)
    for name in ("f32", "f16"):
        found = checkpoint.read(name)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found.view(np.uint32), values.view(np.uint32))
    found = checkpoint.read("bf16")
    np.testing.assert_array_equal(found.view(np.uint32), bf16.astype(np.uint32) << 16)
    assert [checkpoint.stored_dtype(name) for name in ("f32", "f16", "bf16")] == ["F32", "F16", "BF16"]


def test_rows_and_ids(model):
    checkpoint = Checkpoint(model)
    np.testing.assert_array_equal(checkpoint.read("a"), DATA)
    np.testing.assert_array_equal(checkpoint.read("a", slice(1, 3)), DATA[1:3])
    np.testing.assert_array_equal(checkpoint.read("half", np.array([3, 0])), DATA[[3, 0]])
    np.testing.assert_array_equal(checkpoint.read_ids("ids"), [2, 0, 1])
    checkpoint.read("a")[0, 0] = 9  # what is read is a copy, never the file
    np.testing.assert_array_equal(checkpoint.read("a"), DATA)


def test_a_tensor_at_an_odd_offset_is_read(tmp_path):
    raw = np.array([1.5, 2.5], np.float32).tobytes()
    header = {"x": {"dtype": "F32", "shape": [2], "data_offsets": [3, 11]}}
    join(tmp_path / "model.safetensors", json.dumps(header).encode() + b" ", b"???" + raw)
    np.testing.assert_array_equal(Checkpoint(tmp_path).read("x"), [1.5, 2.5])


@pytest.mark.parametrize("size", [0, 4, 8, 60])
def test_a_truncated_header(model, size):
    the_file(model).write_bytes(the_file(model).read_bytes()[:size])
    refused(model, "model.safetensors")


def test_truncated_data(model):
    the_file(model).write_bytes(the_file(model).read_bytes()[:-1])
    refused(model, "model.safetensors", "cut off")


@pytest.mark.parametrize("size", [1 << 63, (1 << 64) - 1, 1 << 34, 101 << 20])
def test_a_header_of_monstrous_size_takes_no_memory(model, size):
    the_file(model).write_bytes(struct.pack("<Q", size) + the_file(model).read_bytes()[8:])
    if size == 101 << 20:
        os.truncate(the_file(model), 200 << 20)  # a sparse file that really is so long
    tracemalloc.start()
    refused(model, "header has")
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ({"data_offsets": [0, 1 << 60]}, "range"),
        ({"data_offsets": [-8, 40]}, "range"),
        ({"data_offsets": [48, 0]}, "needs 48"),
        ({"data_offsets": [0, 44]}, "44 bytes"),
        ({"data_offsets": [1 << 40, (1 << 40) + 48]}, "cut off"),
        ({"data_offsets": [0.0, 48.0]}, "range"),
        ({"data_offsets": "all"}, "lacks"),
        ({"data_offsets": [0]}, "lacks"),
        ({"data_offsets": None}, "lacks"),
        ({"shape": [1 << 40, 1 << 40]}, "needs"),
        ({"shape": [4, 4]}, "needs 64"),
        ({"shape": [-4, -3]}, "range"),
        ({"shape": [True, 12]}, "range"),
        ({"shape": "big"}, "range"),
        ({"shape": {}}, "range"),
        ({"dtype": "PICKLE"}, "dtype"),
        ({"dtype": ["F32"]}, "dtype"),
        ({"dtype": None}, "dtype"),
        ({"data_offsets": [4, 52]}, "overlap"),
    ],
)
def test_a_hostile_entry(model, entry, word):
    change(model, **entry)
    refused(model, word)


@pytest.mark.parametrize("value", [None, 1, "x", [], {"dtype": "F32"}])
def test_an_entry_that_is_no_entry(model, value):
    header, data = split(the_file(model))
    join(the_file(model), header | {"a": value}, data)
    refused(model, "tensor a of")


@pytest.mark.parametrize("text", [b"[]", b"7", b"{", b"\xff\xfe", b"[" * 100_000, b"", b'{"a":' + b"9" * 5000 + b"}"])
def test_a_header_that_is_no_table(model, text):
    join(the_file(model), text, b"")
    refused(model, "model.safetensors")


def test_a_name_that_stands_twice(model):
    entry = '"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    join(the_file(model), f"{{{entry}, {entry}}}".encode(), b"\0" * 4)
    refused(model, "twice")


def test_a_name_with_control_characters_stays_on_one_line(model):
    header, data = split(the_file(model))
    join(the_file(model), header | {"evil\n\x1b[31mname": {"dtype": "?"}}, data)
    refused(model, "evil\\n")


def test_metadata_and_holes_are_no_fault(model):
    header, data = split(the_file(model))
    del header["half"]
    join(the_file(model), {"__metadata__": {"format": "pt"}} | header, data)
    assert set(read_header(the_file(model))) == {"a", "ids"}


def test_a_folder_without_weights(tmp_path):
    refused(tmp_path, "model.safetensors", "never pickles")
    refused(tmp_path / "nowhere", "nowhere", "not a folder")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    refused(tmp_path, "never pickles")


# Shards


def shards(folder):
    return folder / "model.safetensors.index.json"


def change_index(folder, changed):
    index = json.loads(shards(folder).read_text())
    index["weight_map"] |= changed
    shards(folder).write_text(json.dumps(index))


def test_shards_together_hold_what_the_index_says(tmp_path):
    folder = copy_of("e4b", tmp_path)
    checkpoint = Checkpoint(folder)
    assert set(checkpoint.entries) == set(json.loads(shards(folder).read_text())["weight_map"])
    assert len(checkpoint.paths) == 2


@pytest.mark.parametrize(
    "name",
    ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "x.bin", "a\\b.safetensors", ".safetensors"],
)
def test_a_shard_outside_the_folder(tmp_path, name):
    folder = copy_of("e4b", tmp_path)
    change_index(folder, {"x": name})
    refused(folder, "plain .safetensors name")


def test_a_missing_shard(tmp_path):
    folder = copy_of("e4b", tmp_path)
    (folder / "model-00002-of-00002.safetensors").unlink()
    refused(folder, "model-00002-of-00002.safetensors", "missing")


def test_a_tensor_that_is_not_in_its_shard(tmp_path):
    folder = copy_of("e4b", tmp_path)
    change_index(folder, {"model.ghost": "model-00001-of-00002.safetensors"})
    refused(folder, "model.ghost", "it is not")


def test_a_tensor_in_two_shards(tmp_path):
    folder = copy_of("e4b", tmp_path)
    save(folder / "third.safetensors", {"model.language_model.norm.weight": DATA})
    change_index(folder, {"model.language_model.norm.weight": "third.safetensors"})
    refused(folder, "model.language_model.norm.weight", "two shards")


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', '{"weight_map": [1]}', "{"]
)
def test_an_index_that_is_none(tmp_path, text):
    folder = copy_of("e4b", tmp_path)
    shards(folder).write_text(text)
    with pytest.raises((WeightsError, ConfigError), match="index"):
        Checkpoint(folder)


# Fingerprints


def settle(path, when_s=1_000_000_000):
    os.utime(path, (when_s, when_s))


def test_a_fingerprint_follows_the_bytes_and_is_remembered(model, monkeypatch):
    memory = model / "memory"
    memory.mkdir()
    settle(the_file(model))
    first = Checkpoint(model).fingerprint(memory)
    monkeypatch.setattr("foretoken.weights.checkpoint._sha256", lambda path: pytest.fail("hashed again"))
    assert Checkpoint(model).fingerprint(memory) == first
    monkeypatch.undo()
    header, data = split(the_file(model))
    join(the_file(model), header, b"\1" + data[1:])
    settle(the_file(model), 1_000_000_001)
    assert Checkpoint(model).fingerprint(memory) != first


def test_a_file_that_just_changed_is_not_remembered(model):
    Checkpoint(model).fingerprint(model)
    assert not (model / "fingerprints.json").exists()


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '{"a": 1}', '{"KEY": "not a hash"}'])
def test_a_damaged_memory_only_costs_time(model, text):
    settle(the_file(model))
    first = Checkpoint(model).fingerprint(model / "nowhere")
    stat = the_file(model).stat()
    key = f"{the_file(model).resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
    (model / "fingerprints.json").write_text(text.replace("KEY", key))
    assert Checkpoint(model).fingerprint(model) == first
