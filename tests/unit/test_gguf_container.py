"""GGUF containers, sound and hostile. The bytes are put together here by hand, so that each can be wrong."""

import struct

import gguf
import numpy as np
import pytest
from claims import refusals

from foretoken.errors import WeightsError
from foretoken.gguf import container
from foretoken.gguf.container import read_container

U8, U32, I32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 5, 6, 7, 8, 9, 10


def text(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def field(key, kind, raw):
    return text(key) + struct.pack("<I", kind) + raw


def array(kind, count, raw):
    return struct.pack("<IQ", kind, count) + raw


def info(name="a", sizes=(32,), kind=0, offset=0):
    """A tensor as the header names it; sizes fastest first."""
    head = text(name) + struct.pack("<I", len(sizes)) + b"".join(struct.pack("<Q", size) for size in sizes)
    return head + struct.pack("<IQ", kind, offset)


def build(fields=(), infos=(), data=b"", version=3, magic=b"GGUF", counts=None, alignment=32):
    num_tensors, num_fields = counts or (len(infos), len(fields))
    head = magic + struct.pack("<IQQ", version, num_tensors, num_fields) + b"".join(fields) + b"".join(infos)
    return head + b"\0" * (-len(head) % alignment) + data


@pytest.fixture
def read(tmp_path):
    def read(raw):
        path = tmp_path / "model.gguf"
        path.write_bytes(raw)
        return read_container(path)

    return read


def test_everything_that_a_header_can_hold(read):
    fields = [
        field("a.u8", U8, b"\7"),
        field("a.i32", I32, struct.pack("<i", -5)),
        field("a.f32", F32, struct.pack("<f", 1e-6)),
        field("a.u64", U64, struct.pack("<Q", 1 << 40)),
        field("a.bool", BOOL, b"\1"),
        field("a.text", STRING, text("größer")),
        field("a.texts", ARRAY, array(STRING, 3, text("a") + text("") + text("日本"))),
        field("a.truths", ARRAY, array(BOOL, 2, b"\0\1")),
        field("a.numbers", ARRAY, array(I32, 2, struct.pack("<2i", -1, 2))),
        field("general.alignment", U32, struct.pack("<I", 64)),
    ]
    infos = [info("first", (4, 3), 0, 64), info("second", (32, 2), 2, 0)]
    found = read(build(fields, infos, b"\1" * 36 + b"\0" * 28 + np.arange(12, dtype="<f4").tobytes(), alignment=64))
    values = found.fields
    assert values["a.u8"] == 7 and values["a.i32"] == -5 and values["a.u64"] == 1 << 40
    assert values["a.f32"] == 1e-6  # not 9.999999974752427e-07
    assert values["a.bool"] is True and values["a.text"] == "größer" and values["a.texts"] == ["a", "", "日本"]
    assert values["a.truths"].tolist() == [False, True] and values["a.numbers"].tolist() == [-1, 2]
    first, second = found.entries["first"], found.entries["second"]
    assert (first.dtype, first.shape, first.num_bytes, first.itemsize) == ("F32", (3, 4), 48, 4)
    assert (second.dtype, second.shape, second.num_bytes, second.itemsize) == ("Q4_0", (2, 32), 36, 18 / 32)
    assert first.offset - second.offset == 64 and second.offset % 64 == 0


def test_a_file_of_the_package_is_read_as_the_package_reads_it(tmp_path):
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "gemma4")
    writer.add_token_list([f"token {i}" for i in range(1000)])
    writer.add_token_scores([float(i) / 3 for i in range(1000)])
    writer.add_rope_freq_base(1e6)
    rng = np.random.default_rng(0)
    arrays = {f"t{i}": rng.normal(size=(i + 1, 32)).astype(np.float32) for i in range(9)}
    for name, values in arrays.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ours, theirs = read_container(path), gguf.GGUFReader(path)
    assert ours.fields["tokenizer.ggml.tokens"] == theirs.fields["tokenizer.ggml.tokens"].contents()
    assert ours.fields["tokenizer.ggml.scores"].tolist() == theirs.fields["tokenizer.ggml.scores"].contents()
    for tensor in theirs.tensors:
        entry = ours.entries[tensor.name]
        assert entry.offset == tensor.data_offset and entry.shape == tuple(reversed(tensor.shape.tolist()))
        assert entry.num_bytes == tensor.n_bytes


ZEROS = b"\0" * 128
WRONG = {
    "empty": (b"", "ends within|goes on"),
    "another magic": (build(magic=b"GGML"), "no GGUF"),
    "version 1": (build(version=1), "version 1"),
    "big-endian": (build(version=3 << 24), "big-endian"),
    "countless tensors": (build(counts=(1 << 60, 0)), "more than any model"),
    "countless fields": (build(counts=(0, 1 << 60)), "more than any model"),
    "more fields than there are": (build(counts=(0, 9)), "goes on|ends"),
    "a key twice": (build([field("a", U8, b"\1")] * 2), "a twice"),
    "a field of unknown type": (build([field("a", 77, b"")]), "unknown type 77"),
    "an array of arrays": (build([field("a", ARRAY, array(ARRAY, 1, ZEROS))]), "array of type 9"),
    "a text that never ends": (build([field("a", STRING, struct.pack("<Q", 1 << 62))]), "a text of"),
    "a text beyond the file": (build([field("a", STRING, struct.pack("<Q", 5000))]), "goes on"),
    "an endless array": (build([field("a", ARRAY, array(U8, 1 << 62, b""))]), "items"),
    "an array beyond the file": (build([field("a", ARRAY, array(U64, 1 << 20, ZEROS))]), "goes on"),
    "texts beyond the file": (build([field("a", ARRAY, array(STRING, 1 << 20, ZEROS))]), "goes on"),
    "bytes that are no text": (build([field("a", STRING, text(b"\xff\xfe"))]), "UTF-8"),
    "a key that is no text": (build([field(b"\xff", U8, b"\1")]), "UTF-8"),
    "alignment 0": (build([field("general.alignment", U32, struct.pack("<I", 0))]), "power of two"),
    "alignment 48": (build([field("general.alignment", U32, struct.pack("<I", 48))]), "power of two"),
    "alignment of a gigabyte": (build([field("general.alignment", U32, struct.pack("<I", 1 << 30))]), "power of two"),
    "alignment in words": (build([field("general.alignment", STRING, text("32"))]), "power of two"),
    "a tensor twice": (build([], [info("a"), info("a", offset=128)], ZEROS * 2), "a twice"),
    "two in one place": (build([], [info("a"), info("b", offset=96)], ZEROS * 2), "in the place of a"),
    "beyond the end": (build([], [info("a", offset=32)], ZEROS), "the file ends at"),
    "far beyond the end": (build([], [info("a", offset=1 << 63)], ZEROS), "the file ends at"),
    "not aligned": (build([], [info("a", (8,), offset=8)], ZEROS), "multiple of 32"),
    "no dimension": (build([], [info("a", ())], ZEROS), "0 dimensions"),
    "nine dimensions": (build([], [info("a", (1,) * 9)], ZEROS), "9 dimensions"),
    "a dimension of 0": (build([], [info("a", (32, 0))], ZEROS), "shape"),
    "sizes whose product overflows": (build([], [info("a", (1 << 40, 1 << 40))], ZEROS), "the file ends at"),
    "a size that overflows": (build([], [info("a", (1 << 63,))], ZEROS), "shape"),
    "half a block": (build([], [info("a", (16, 2), 2)], ZEROS), "rows of 32"),
    "a type that we do not read": (build([], [info("a", (256,), 20)], ZEROS * 2), "IQ4_NL.*expected one of F32"),
    "a type that nobody knows": (build([], [info("a", (256,), 4000)], ZEROS * 8), "number 4000"),
    "a name that never ends": (build([], [struct.pack("<Q", 1 << 50)]), "a text of"),
}


@pytest.mark.parametrize("name", WRONG)
def test_hostile_headers_are_refused_with_a_reason(name, read):
    raw, words = WRONG[name]
    with pytest.raises(WeightsError, match=words):
        read(raw)


def sound():
    """A small file with a bit of everything."""
    fields = [
        field("general.architecture", STRING, text("gemma4")),
        field("a.texts", ARRAY, array(STRING, 3, text("a") + text("b") + text("c"))),
        field("a.numbers", ARRAY, array(I32, 4, b"\1" * 16)),
        field("a.number", U32, struct.pack("<I", 7)),
    ]
    infos = [info("first", (32, 2), 2, 0), info("second", (8, 2), 0, 64)]
    return build(fields, infos, b"\1" * 128)


def test_every_truncation_is_refused(read):
    raw = sound()
    read(raw)
    for length in range(len(raw)):
        with pytest.raises(WeightsError):
            read(raw[:length])


def test_mutated_files_are_read_or_refused_and_never_more(read):
    """Bytes of the header changed at random: what comes is a container inside the file, or a WeightsError."""
    raw, rng, refused = sound(), np.random.default_rng(5), 0
    for _ in range(600):
        damaged = bytearray(raw)
        for at in rng.integers(0, len(raw) - 128, rng.integers(1, 4)):
            damaged[at] = rng.choice([0, 1, 255, rng.integers(256)])
        try:
            found = read(bytes(damaged))
        except WeightsError:
            refused += 1
        else:
            assert all(entry.offset + entry.num_bytes <= len(raw) for entry in found.entries.values())
    assert 100 < refused < 600


def test_memory_is_not_taken_for_what_a_file_only_claims(tmp_path):
    """In a process of its own with little memory to take: each claim of gigabytes is refused before it is believed."""
    for index, name in enumerate(("an endless array", "a text that never ends", "texts beyond the file")):
        (tmp_path / f"{index}.gguf").write_bytes(WRONG[name][0])
    count, taken = refusals(tmp_path, ".gguf", "foretoken.gguf.container:read_container")
    assert count == 3
    assert taken < 16 << 10  # KiB


def test_the_header_as_a_whole_is_bounded(read, monkeypatch):
    monkeypatch.setattr(container, "MAX_HEADER_BYTES", 200)
    monkeypatch.setattr(container, "READ_BYTES", 16)
    with pytest.raises(WeightsError, match="more than 200 bytes"):
        read(build([field("a", STRING, text("x" * 190))], data=ZEROS * 4))


def test_a_pipe_or_a_folder_is_no_file(tmp_path):
    with pytest.raises(WeightsError, match="no file"):
        read_container(tmp_path)
    with pytest.raises(WeightsError, match="no file"):
        read_container(tmp_path / "missing.gguf")
