"""GGUF files of the tiny golden models against the Hugging Face folders that they were made from.

F32 files: the same packed bytes, so the same logits and drafts, bit for bit; both spellings of the drafter. Quantised
files: what each tensor becomes, and that Q4_0, Q5_0 and Q8_0 lose nothing on the way.
"""

import dataclasses
import json

import gguf_files
import numpy as np
import pytest
from checkpoints import copy_of
from gguf import GGMLQuantizationType as Type
from golden_models import GOLDEN, NAMES, new_cache, run
from golden_models import pair as folder_pair

from foretoken import config as configs
from foretoken import weights
from foretoken.cache import read_only_segments
from foretoken.gguf.checkpoint import GgufCheckpoint
from foretoken.gguf.container import read_container
from foretoken.models.gemma4 import Gemma4
from foretoken.models.gemma4_assistant import Assistant
from foretoken.ops import Packed, native
from foretoken.source import open_source
from foretoken.weights.formats import settled
from foretoken.weights.gemma4 import plan

IDS = np.array([2, *range(5, 40)])


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETOKEN_CACHE_DIR", str(tmp_path / "cache"))


def pair(target_path, drafter_path, format="f32"):
    target_source, drafter_source = open_source(target_path), open_source(drafter_path)
    target_config, drafter_config = target_source.target_config(), drafter_source.drafter_config()
    assert configs.pairing_problems(target_config, drafter_config) == []
    packed = weights.load(target_source.checkpoint(), target_config, format, native)[0]
    target = Gemma4(target_config, packed, native)
    packed = weights.load(drafter_source.checkpoint(), drafter_config, format, native)[0]
    return target, Assistant(drafter_config, packed, target, native)


def drafts(target, assistant, ids, count=4):
    """(hidden, logits) of all rows, and (ids, logits, hidden) of each draft step from the last row."""
    cache = new_cache(target, "native f16")
    hidden, logits = run(target, cache, ids)
    segment, row, token, steps = read_only_segments([cache]), hidden[-1:], int(np.argmax(logits[-1])), []
    for _ in range(count):
        (found,), row = assistant.step(np.array([token], np.int32), row, segment)
        candidates = np.arange(len(found.logits)) if found.ids is None else found.ids
        token = int(candidates[np.argmax(found.logits)])
        steps.append((token, candidates.copy(), found.logits.copy(), row.copy()))
        row = row.copy()
    return hidden, logits, steps


def same(one, other):
    assert np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1])
    for ours, theirs in zip(one[2], other[2], strict=True):
        assert ours[0] == theirs[0]
        assert all(np.array_equal(a, b) for a, b in zip(ours[1:], theirs[1:], strict=True))


@pytest.mark.parametrize("is_fork", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_same_logits_and_drafts_as_the_folder(name, is_fork, tmp_path):
    target = gguf_files.write(GOLDEN / name, tmp_path / "t.gguf")
    drafter = gguf_files.write(GOLDEN / f"{name}-assistant", tmp_path / "d.gguf", fork=is_fork)
    same(drafts(*pair(target, drafter), IDS), drafts(*folder_pair(name, "native f16"), IDS))


@pytest.mark.parametrize("name", NAMES)
def test_same_config_as_the_folder(name, tmp_path):
    source = open_source(gguf_files.write(GOLDEN / name, tmp_path / "t.gguf"))
    ours, theirs = source.target_config(), configs.load_target_config(GOLDEN / name)
    alone = {"model_type": ours.model_type, "has_other_parts": False, "eos_ids": ours.eos_ids}
    assert dataclasses.replace(theirs, **alone) == ours
    assert all(np.array_equal(ours.rope[kind], theirs.rope[kind]) for kind in theirs.rope)
    source = open_source(gguf_files.write(GOLDEN / f"{name}-assistant", tmp_path / "d.gguf"))
    ours, theirs = source.drafter_config(), configs.load_drafter_config(GOLDEN / f"{name}-assistant")
    assert dataclasses.replace(theirs, model_type=ours.model_type) == ours
    assert ours.unknown_fields == ()


def test_gemma_3_as_the_folder(tmp_path):
    """Every part the same, norms with the 1 that their file has already. A file cannot tell of queries scaled by
    anything but the width of a head, so the folder is made to say so."""
    folder = copy_of("g3-text", tmp_path)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"query_pre_attn_scalar": settings["head_dim"]}))
    source = open_source(gguf_files.write_gemma3(folder, tmp_path / "m.gguf"))
    ours, theirs = source.target_config(), configs.load_target_config(folder)
    assert dataclasses.replace(theirs, eos_ids=ours.eos_ids) == ours
    targets = []
    for files, config in ((source.checkpoint(), ours), (folder, theirs)):
        targets.append(Gemma4(config, weights.load(files, config, "f32", native)[0], native))
    results = [run(target, new_cache(target, "native f16"), IDS) for target in targets]
    assert all(np.array_equal(one, other) for one, other in zip(*results, strict=True))
    assert targets[0].weights.embed_scale == 8.0


def test_without_centroids_the_head_is_dense(tmp_path):
    """What the converter of llama.cpp writes: it drops them."""
    target = gguf_files.write(GOLDEN / "e2b", tmp_path / "t.gguf")
    omit = ("masked_embd_centroids.weight", "masked_embd_ordering")
    drafter = gguf_files.write(GOLDEN / "e2b-assistant", tmp_path / "d.gguf", omit=omit)
    target, assistant = pair(target, drafter)
    assert assistant.weights.centroids is None and assistant.weights.token_ids is None
    dense, clustered = drafts(target, assistant, IDS)[2], drafts(*folder_pair("e2b", "native f16"), IDS)[2]
    assert len(dense[0][2]) == 256 and len(clustered[0][1]) < 256
    assert np.array_equal(dense[0][2][clustered[0][1]], clustered[0][2])  # the same rows, the same logits


def quantised(kind):
    """Matrices in a type of blocks of 32, where rows have whole blocks."""
    return lambda name, shape: kind if shape[-1] % 32 == 0 else Type.F32


def parts_of(path, format):
    """(part, made, decoded values) of every packed part of a target."""
    files = GgufCheckpoint(read_container(path))
    config = open_source(path).target_config()
    for part in settled(plan(config), format, files)[1]:
        if part.is_packed:
            shapes = zip(part.tensors, part.row_shapes, strict=True)
            yield part, np.concatenate([files.read(tensor).reshape(shape) for tensor, shape in shapes])


def made_of(path, format):
    """Everything packed of a target, by the sorted bytes of what it unpacks to."""
    source = open_source(path)
    loaded = weights.load(source.checkpoint(), source.target_config(), format, native)[0]
    stack = [*vars(loaded).values()]
    while stack:
        one = stack.pop()
        if isinstance(one, Packed):
            yield one
        elif isinstance(one, tuple):
            stack += one
        elif dataclasses.is_dataclass(one):
            stack += vars(one).values()


@pytest.mark.parametrize("kind, format", [(Type.Q4_0, "q4"), (Type.Q8_0, "q8"), (Type.Q5_0, "q8")])
@pytest.mark.parametrize("name", ["e2b", "26b"])
def test_what_needs_no_rounding_is_taken_as_it_is(name, kind, format, tmp_path):
    path = gguf_files.write(GOLDEN / name, tmp_path / "t.gguf", quantised(kind))
    expected = [values for part, values in parts_of(path, "auto") if part.size[1] % 32 == 0 and part.format == format]
    found = [native.unpack(one) for one in made_of(path, "auto") if one.k % 32 == 0 and one.format == format]
    assert len(expected) == len(found) > 10
    key = lambda values: (values.shape, values.tobytes())  # noqa: E731
    for ours, theirs in zip(sorted(found, key=key), sorted(expected, key=key), strict=True):
        assert np.array_equal(ours, theirs)


def test_q4_0_in_q8_is_the_same_too(tmp_path):
    """So a part of mixed types keeps all that its Q4_0 tensors hold."""
    path = gguf_files.write(GOLDEN / "31b", tmp_path / "t.gguf", quantised(Type.Q4_0))
    expected = {values.tobytes() for part, values in parts_of(path, "q8") if part.size[1] % 32 == 0}
    found = {native.unpack(one).tobytes() for one in made_of(path, "q8") if one.k % 32 == 0}
    assert found == expected


def test_a_part_of_mixed_types(tmp_path):
    """q and k in Q4_0, v in Q5_1 as in files with few bits: q8, where q and k are the same and v is rounded."""
    mixed = lambda name, shape: Type.Q5_1 if "attn_v" in name else quantised(Type.Q4_0)(name, shape)  # noqa: E731
    path = gguf_files.write(GOLDEN / "31b", tmp_path / "t.gguf", mixed)
    source, files = open_source(path), GgufCheckpoint(read_container(path))
    config = source.target_config()
    packed, info = weights.load(source.checkpoint(), config, "auto", native)
    assert info.format == "q4"
    layer, prefix = packed.layers[0], "model.layers.0.self_attn."
    assert (layer.qkv.format, layer.o.format) == ("q8", "q4")
    found, at = native.unpack(layer.qkv), 0
    for name in ("q", "k", "v"):
        values = files.read(f"{prefix}{name}_proj.weight")
        own = found[at : at + len(values)]
        if name == "v":
            assert np.array_equal(own, native.unpack(native.pack(values, "q8", "rows")))
            assert not np.array_equal(own, values)
        else:
            assert np.array_equal(own, values)
        at += len(values)
    assert at == len(found)


def test_types_settle_formats(tmp_path):
    """auto: q4 for parts of Q4_0 alone, q8 for all others; what is asked for is done."""
    for kind, expected in ((Type.Q4_0, "q4"), (Type.Q4_1, "q8"), (Type.Q5_1, "q8"), (Type.F16, "q8")):
        path = gguf_files.write(GOLDEN / "31b", tmp_path / f"{kind.name}.gguf", quantised(kind))
        files, planned = GgufCheckpoint(read_container(path)), plan(open_source(path).target_config())
        name, parts = settled(planned, "auto", files)
        assert name == expected
        assert {p.format for p in parts if p.is_packed and p.size[1] % 32 == 0} == {expected}
        assert settled(planned, "bf16", files)[0] == "bf16"


def test_gate_and_up_of_experts_in_two_tensors(tmp_path):
    """An older spelling of the experts: the parts are put together again."""
    whole = gguf_files.write(GOLDEN / "26b", tmp_path / "t.gguf", quantised(Type.Q4_0))
    joined = GgufCheckpoint(read_container(whole))
    names = [name for name in read_container(whole).entries if "ffn_gate_up_exps" in name]

    def split(writer):
        for name in names:
            layer = name.split(".")[1]
            gate_up = joined.read(f"model.layers.{layer}.experts.gate_up_proj")
            gate, up = np.split(gate_up, 2, axis=1)
            for kind, half in (("gate", gate), ("up", up)):
                gguf_files.add_tensor(
                    writer, f"blk.{layer}.ffn_{kind}_exps.weight", np.ascontiguousarray(half), Type.Q8_0
                )

    path = gguf_files.write(GOLDEN / "26b", tmp_path / "s.gguf", quantised(Type.Q4_0), omit=names, change=split)
    files = GgufCheckpoint(read_container(path))
    name = "model.layers.1.experts.gate_up_proj"
    entry = files.entries[name]
    assert entry.shape == joined.entries[name].shape
    got, expected = files.read(name), joined.read(name)
    assert np.abs(got - expected).max() <= np.abs(expected).max() / 254 * 1.01
    flat = got.reshape(-1, got.shape[-1])
    assert np.array_equal(files.read(name, slice(7, 90)), flat[7:90])
    rows = np.array([250, 3, 17])
    assert np.array_equal(files.read(name, rows), flat[rows])
    config = open_source(path).target_config()
    assert weights.load(files, config, "f32", native)[1].format == "f32"


@pytest.mark.parametrize("kind, rounded", [(Type.F32, False), (Type.BF16, True), (Type.F16, True), (Type.Q8_0, True)])
def test_the_scale_of_the_embedding(kind, rounded, tmp_path):
    """√64 is the same in every dtype; so a model of width 1536 in name only (numerics.md: GGUF counts as bf16)."""
    path = gguf_files.write(GOLDEN / "31b", tmp_path / "t.gguf", quantised(kind))
    dtype = GgufCheckpoint(read_container(path)).stored_dtype("model.embed_tokens.weight")
    assert weights.embed_scale(1536, dtype) == (39.25 if rounded else np.float32(1536**0.5))
