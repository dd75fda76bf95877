"""Damaged GGUF files all the way: whatever a file says, it is loaded or refused with one of our errors."""

import gemma_tokenizer
import gguf_files
import numpy as np
import pytest
from checkpoints import GOLDEN
from gguf import GGMLQuantizationType as Type

from foretoken import source as sources
from foretoken import weights
from foretoken.errors import ForetokenError
from foretoken.gguf.container import Container, read_container
from foretoken.ops import native
from foretoken.source import open_source

ODD = [
    *(True, False, 0, -1, 62, (1 << 64) - 1, -(1 << 63), 1e308, float("inf"), float("nan")),
    *("", "none", "\x1b\n" * 99, "{{ 'x' * 10**9 }}", [], [""] * 3, ["<eos>"] * 400),
    *map(np.array, ([], [1], [1, 2], [True] * 3, [0.5, float("nan")], [-1, 1 << 40], [1] * 600)),
]
WORDS = (0, 1, 1 << 31, 1 << 32, 1 << 62, (1 << 64) - 1)
STRIKING = (0, 1, 2, 0x7F, 0x80, 0xFF)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETOKEN_CACHE_DIR", str(tmp_path / "cache"))


def load(path, is_drafter):
    source = open_source(path)
    config = source.drafter_config() if is_drafter else source.target_config()
    source.generation_defaults((1,))
    source.chat_template()
    source.tokenizer()
    weights.load(source.checkpoint(), config, "auto", native)


def damaged(raw, rng, places):
    """A copy with one to four bytes changed, or eight in a row, as lengths and offsets are."""
    copy = bytearray(raw)
    if rng.random() < 0.3:
        at = int(rng.choice(places))
        copy[at : at + 8] = WORDS[rng.integers(len(WORDS))].to_bytes(8, "little")
        return copy
    for at in rng.choice(places, rng.integers(1, 5)):
        copy[at] = rng.choice(STRIKING) if rng.random() < 0.5 else rng.integers(256)
    return copy


@pytest.mark.parametrize(
    "name, part", [("e2b", "fields"), ("26b", "tensors"), ("e2b-assistant", "fields"), ("31b", "data")]
)
def test_damaged_files(name, part, tmp_path):
    """Bytes changed among the fields before the vocabulary, in the table of tensors, or in the weights."""
    tokenizer = gemma_tokenizer.write(tmp_path / "tokenizer")
    kind = lambda name, shape: Type.Q8_0 if shape[-1] % 32 == 0 else Type.F32  # noqa: E731
    path = gguf_files.write(GOLDEN / name, tmp_path / "m.gguf", kind, tokenizer=tokenizer)
    raw, is_drafter = path.read_bytes(), "assistant" in name
    start = min(entry.offset for entry in read_container(path).entries.values())
    vocabulary, table = raw.index(b"tokenizer.ggml.tokens"), raw.rindex(b"blk.", 0, start)
    first = raw.index(b"\x00token_embd.weight") if b"\x00token_embd.weight" in raw else table - 2000
    places = {"fields": range(vocabulary), "tensors": range(first, start), "data": range(start, len(raw))}[part]
    rng, outcomes = np.random.default_rng(11), []
    for _ in range(60):
        path.write_bytes(damaged(raw, rng, np.arange(places.start, places.stop)))
        try:
            load(path, is_drafter)
            outcomes.append("loaded")
        except ForetokenError as error:
            assert str(path) in str(error) or len(str(error)) > 20
            outcomes.append("refused")
    assert outcomes.count("refused") > 5


@pytest.mark.parametrize("name", ["e2b", "26b", "e2b-assistant", "g3-text"])
def test_odd_values(name, tmp_path):
    """Each field of a file, and those that only some files have, with a value of every other kind."""
    tokenizer = gemma_tokenizer.write(tmp_path / "tokenizer")
    path, is_drafter = tmp_path / "m.gguf", "assistant" in name
    write = gguf_files.write_gemma3 if name.startswith("g3") else gguf_files.write
    write(GOLDEN / name, path, tokenizer=tokenizer)
    sound = read_container(path)
    optional = ("rope.scaling.type", "rope.scaling.factor", "attn_logit_softcapping", "expert_count", "centroid_top_k")
    optional = [f"{sound.architecture}.{field}" for field in optional]
    optional += [
        "split.count",
        "general.sampling.temp",
        "tokenizer.ggml.suppress_tokens",
        "tokenizer.ggml.eot_token_id",
    ]
    outcomes = []
    for field in dict.fromkeys([*sound.fields, *optional, "tokenizer.chat_template"]):
        for value in ODD:
            source = sources.GgufFile(path)
            source._container = Container(path, {**sound.fields, field: value}, sound.entries)
            try:
                check_fields(source, is_drafter)
                outcomes.append("taken")
            except ForetokenError:
                outcomes.append("refused")
    assert outcomes.count("refused") > 200


def check_fields(source, is_drafter):
    _ = source.is_target
    config = source.drafter_config() if is_drafter else source.target_config()
    source.generation_defaults((1,))
    source.pieces()
    source.chat_template()
    source.tokenizer().encode("<eos> a\n")
    weights.fitting_plan(source.checkpoint(), config)
