"""Packed weights on disk: kept once, read back alike, and never worth more than packing them again."""

import errno
import os
import pickle
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import fields, is_dataclass

import numpy as np
import pytest
from checkpoints import GOLDEN, PACKABLE, copy_of, overwrite

from foretoken import config as configs
from foretoken import files, weights
from foretoken.errors import WeightsError
from foretoken.ops import reference
from foretoken.weights import gemma4, pack, store

FOLDER = GOLDEN / "e2b"
CONFIG = configs.load_target_config(FOLDER)


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETOKEN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load(format="q8", folder=FOLDER):
    return weights.load(folder, CONFIG, format, reference)


def kept(cache_dir):
    """The only packed file."""
    [path] = cache_dir.glob("*.packed")
    return path


def temporary(cache_dir):
    return [path for path in cache_dir.iterdir() if path.suffix == ".tmp"]


def assert_same(one, other):
    if is_dataclass(one):
        for field in fields(one):
            assert_same(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, tuple):
        for mine, yours in zip(one, other, strict=True):
            assert_same(mine, yours)
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    else:
        assert one == other


@pytest.fixture(params=["in memory", "mapped"])
def table(request, monkeypatch):
    """Whether the per-layer table is read into memory, as a small one is, or mapped from the file."""
    if request.param == "mapped":
        monkeypatch.setattr(gemma4, "MAPPED_VALUES", 1)
    return request.param


@pytest.mark.parametrize("name", ["e2b", "e4b", "26b", "e2b-assistant", "12b-assistant"])
@pytest.mark.parametrize("format", PACKABLE)
def test_the_second_start_reads_what_the_first_made(name, format, table, monkeypatch):
    folder = GOLDEN / name
    is_drafter = name.endswith("assistant")
    config = configs.load_drafter_config(folder) if is_drafter else configs.load_target_config(folder)
    first, info = weights.load(folder, config, format, reference)
    monkeypatch.setattr(pack.Packer, "_pack", lambda *_: pytest.fail("packed again"))
    second, again = weights.load(folder, config, format, reference)
    assert (info.is_from_cache, again.is_from_cache) == (False, True)
    assert info.warnings == again.warnings == ()
    assert (info.parameters, info.packed_bytes) == (again.parameters, again.packed_bytes)
    assert_same(first, second)


def test_packed_bytes_are_aligned(table):
    load()
    found = load()[0]
    matrices = [found.embed, found.per_layer_table, found.layers[0].qkv, found.layers[4].down]
    assert all(matrix.data.ctypes.data % 64 == 0 for matrix in matrices)
    assert found.per_layer_table.data.flags.writeable == (table == "in memory")


@pytest.mark.skipif(sys.platform != "linux", reason="a hint that only Linux takes")
def test_a_mapped_table_does_not_stay_in_the_cache_of_the_system(monkeypatch):
    monkeypatch.setattr(gemma4, "MAPPED_VALUES", 1)
    forgotten = []
    monkeypatch.setattr(store.os, "posix_fadvise", lambda fd, at, count, advice: forgotten.append((at, count, advice)))
    table = load()[0].per_layer_table.data.nbytes
    assert [(count, advice) for _, count, advice in forgotten] == [(table, os.POSIX_FADV_DONTNEED)], "after writing it"
    load()
    assert len(forgotten) > 1 and len(set(forgotten)) == 1, "and after checking its chunks, here one"


def test_another_format_version_or_file_is_another_key(tmp_path, monkeypatch):
    load("q8")
    assert not load("f32")[1].is_from_cache
    monkeypatch.setattr(weights, "NUMERICS_VERSION", 999)
    assert not load("q8")[1].is_from_cache
    monkeypatch.undo()
    folder = copy_of("e2b", tmp_path)
    overwrite(folder / "model.safetensors", "model.norm.weight", b"\0\x40")
    monkeypatch.setenv("FORETOKEN_CACHE_DIR", str(tmp_path / "cache"))
    found, info = load("q8", folder)
    assert not info.is_from_cache and found.norm[0] == 2.0


def test_a_copy_of_the_files_elsewhere_is_the_same_model(tmp_path):
    load()
    assert load(folder=copy_of("e2b", tmp_path))[1].is_from_cache


@pytest.mark.parametrize("where", ["magic", "head", "payload", "late payload", "table", "header", "last"])
def test_a_flipped_bit_anywhere_is_found(cache_dir, where, table):
    good = deepcopy(load()[0])
    path = kept(cache_dir)
    raw = bytearray(path.read_bytes())
    start = int.from_bytes(raw[8:16], "little")  # of the header, which ends the file
    places = {
        "magic": 0,
        "head": 9,
        "payload": 64,
        "late payload": start // 2,
        "table": start - 80,
        "header": start + 5,
    }
    raw[places.get(where, len(raw) - 1)] ^= 1
    path.write_bytes(raw)
    found, info = load()
    assert not info.is_from_cache
    assert len(info.warnings) == 1 and "made anew" in info.warnings[0]
    assert_same(good, found)
    assert load()[1].is_from_cache, "the damaged file was replaced"


@pytest.mark.parametrize("share", [0, 0.0001, 0.01, 0.5, 0.999])
def test_a_cut_file_is_made_anew(cache_dir, share, table):
    good = deepcopy(load()[0])
    path = kept(cache_dir)
    os.truncate(path, int(path.stat().st_size * share))
    found, info = load()
    assert not info.is_from_cache and len(info.warnings) == 1
    assert_same(good, found)


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize("content", [b"x" * 5000, pickle.dumps(Bomb()), b"FTPACK\0\2" + b"\xff" * 500])
def test_a_foreign_file_is_made_anew(cache_dir, content):
    load()
    kept(cache_dir).write_bytes(content)
    info = load()[1]
    assert not info.is_from_cache and len(info.warnings) == 1
    assert load()[1].is_from_cache


def test_a_file_of_another_key_is_not_taken(cache_dir):
    load("f32")
    [other] = cache_dir.glob("*.packed")
    content = other.read_bytes()
    other.unlink()
    load("q8")
    kept(cache_dir).write_bytes(content)
    info = load("q8")[1]
    assert not info.is_from_cache and "another model" in info.warnings[0]


# A disk that is full or cannot be written


class FullDisk:
    """A file that takes `room` bytes and then no more."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


def goes_on_without(cache_dir, *words):
    """Loads as well as with a cache, says once why nothing is kept, leaves nothing behind."""
    found, info = load()
    assert not info.is_from_cache
    assert len(info.warnings) == 1
    for word in (*words, str(cache_dir)):
        assert word in info.warnings[0]
    assert not cache_dir.is_dir() or not [path for path in cache_dir.iterdir() if path.name != "fingerprints.json"]
    return found


@pytest.mark.parametrize("share", [0, 0.3, 0.9, 0.999])
def test_a_full_disk(cache_dir, monkeypatch, share, table):
    good = load()[0]
    room = int(kept(cache_dir).stat().st_size * share)
    kept(cache_dir).unlink()
    real = os.fdopen
    monkeypatch.setattr(store.os, "fdopen", lambda fd, mode: FullDisk(real(fd, mode), room))
    assert_same(good, goes_on_without(cache_dir, "No space left"))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_at_the_end(cache_dir, monkeypatch, call, table):
    good = load()[0]
    kept(cache_dir).unlink()

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(store.os, call, fail)
    assert_same(good, goes_on_without(cache_dir, "Input/output error"))


def test_a_read_only_folder(cache_dir, monkeypatch):
    good = load()[0]
    kept(cache_dir).unlink()

    def fail(*_, **__):  # not by permissions: tests may run as root
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(store.tempfile, "mkstemp", fail)
    assert_same(good, goes_on_without(cache_dir, "Permission denied"))


def test_a_read_only_folder_that_holds_the_file_is_used(cache_dir, monkeypatch):
    load()
    monkeypatch.setattr(store.tempfile, "mkstemp", lambda *_, **__: pytest.fail("written"))
    monkeypatch.setattr(weights.checkpoint.time, "time_ns", lambda: 0)  # no fingerprint is to be remembered
    assert load()[1].is_from_cache


def test_a_file_where_the_folder_should_be(cache_dir):
    cache_dir.write_text("not a folder")
    goes_on_without(cache_dir)
    assert cache_dir.read_text() == "not a folder"


def test_a_folder_below_a_file(cache_dir, monkeypatch):
    cache_dir.write_text("not a folder")
    monkeypatch.setenv("FORETOKEN_CACHE_DIR", str(cache_dir / "below"))
    goes_on_without(cache_dir / "below")


def test_without_the_variable_the_users_folder_is_taken(tmp_path, monkeypatch):
    monkeypatch.delenv("FORETOKEN_CACHE_DIR")
    monkeypatch.setattr(weights.platformdirs, "user_cache_dir", lambda name: str(tmp_path / name))
    load()
    assert kept(tmp_path / "foretoken")


# Several at once, and what a crash leaves


def test_many_writers_at_once(cache_dir, table):
    with ThreadPoolExecutor(4) as pool:
        found = [result for result, _ in pool.map(lambda _: load(), range(8))]
    for other in found[1:]:
        assert_same(found[0], other)
    assert not temporary(cache_dir)
    assert load()[1].is_from_cache


def test_what_a_crash_left_is_removed_after_a_day(cache_dir):
    cache_dir.mkdir()
    old, new = cache_dir / f"{files.TEMPORARY}old.tmp", cache_dir / f"{files.TEMPORARY}new.tmp"
    for path in (old, new, cache_dir / "something.tmp"):
        path.write_text("half")
    os.utime(old, (time.time() - 2 * files.STALE_S,) * 2)
    load()
    assert sorted(path.name for path in temporary(cache_dir)) == [new.name, "something.tmp"]


def test_large_tables_are_checked_by_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "CHUNK_BYTES", 64)
    path = tmp_path / "x.packed"
    table = np.arange(6400, dtype=np.uint16).view(np.uint8)
    with store.Writer(path, "key") as writer:
        writer.add("a", [np.ones(100, np.uint8)], is_mapped=False)
        writer.add("table", [table[:1000], table[1000:]], is_mapped=True)
        assert np.array_equal(writer.finish()["table"], table)
    assert writer.error is None
    reads = []
    real = zlib.crc32
    monkeypatch.setattr(store.zlib, "crc32", lambda data: reads.append(len(data)) or real(data))
    found = store.restore(path, "key")
    assert np.array_equal(found["table"], table) and np.array_equal(found["a"], np.ones(100, np.uint8))
    assert len(reads) <= 2 + store.MAX_TABLE_CHUNKS_CHECKED + 1
    assert store.restore(tmp_path / "nowhere", "key") is None


def test_a_pipe_in_the_place_of_a_packed_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.packed")
    with pytest.raises(WeightsError, match="no file"):
        store.restore(tmp_path / "a.packed", "key")
