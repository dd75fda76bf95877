import json
import random
import time

import gemma_tokenizer
import pytest
from tokenizers import decoders

from foretoken import tokenizer as tokenizer_module
from foretoken.errors import InputError, WeightsError
from foretoken.tokenizer import TextStream, Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer.from_folder(gemma_tokenizer.write(tmp_path_factory.mktemp("model")))


def byte_ids(tokenizer, data: bytes) -> list[int]:
    return [tokenizer._backend.token_to_id(f"<0x{b:02X}>") for b in data]


def pieces_of(tokenizer, ids, stop=()):
    stream = TextStream(tokenizer, stop)
    return [*(stream.push(i) for i in ids), stream.finish()], stream


@pytest.mark.parametrize("text", ["hello world", " two  spaces ", "日本é🙂\n", "▁ literal", "tab\tand \x00 nul", ""])
def test_text_survives_encoding_and_decoding(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids[0] == tokenizer.bos_id
    assert tokenizer.decode(ids) == text.replace("▁", " ")
    assert tokenizer.encode(text, add_bos=False) == ids[1:]


def test_control_tokens_in_a_prompt_are_recognised_and_left_out_of_text(tokenizer):
    ids = tokenizer.encode("<bos><|turn>hello<turn|>", add_bos=False)
    assert len(ids) == 4
    assert tokenizer.decode(ids) == "hello"


def test_ids_without_text_decode_to_nothing(tokenizer):
    assert tokenizer.decode([tokenizer.vocab_len + 7, -1]) == ""


def test_lone_surrogate_is_an_input_error(tokenizer):
    with pytest.raises(InputError):
        tokenizer.encode("a\udcff")


def test_invalid_bytes_are_shown_inside_and_dropped_at_the_end(tokenizer):
    inside = byte_ids(tokenizer, b"a\xff\xe2\x82b\xe2\x82")
    assert tokenizer.decode(inside) == "a\ufffd\ufffd\ufffdb"
    assert tokenizer.decode(byte_ids(tokenizer, b"a\xff\xfe")) == "a"
    assert tokenizer.decode(byte_ids(tokenizer, "a\ufffd".encode())) == "a\ufffd"


def test_a_character_is_never_split(tokenizer):
    ids = byte_ids(tokenizer, "🙂".encode())
    pieces, _ = pieces_of(tokenizer, ids)
    assert pieces == ["", "", "", "🙂", ""]


def test_stream_pieces_join_to_the_whole_for_random_ids(tokenizer):
    rng = random.Random(1)
    some_bytes = byte_ids(tokenizer, "é日🙂\ufffd".encode() + b"\xff\x80\xe2")
    for _ in range(3000):
        pool = some_bytes if rng.random() < 0.5 else range(tokenizer.vocab_len + 3)
        ids = rng.choices(pool, k=rng.randrange(12))
        pieces, _ = pieces_of(tokenizer, ids)
        assert "".join(pieces) == tokenizer.decode(ids)


def first_stop(text, stops):
    """Slow twin: grow the text a character at a time until a stop string is complete."""
    for size in range(1, len(text) + 1):
        done = [s for s in stops if text[:size].endswith(s)]
        if done:
            return text[: size - max(map(len, done))]
    return None


def test_stop_strings_cut_like_a_search_through_the_whole_text(tokenizer):
    rng = random.Random(2)
    num_stopped = 0
    for _ in range(4000):
        ids = byte_ids(tokenizer, bytes(rng.choices(b"ab\xc3\xa9", k=rng.randrange(14))))
        ids = [rng.choice([*tokenizer.encode("hello", False), i]) if rng.random() < 0.1 else i for i in ids]
        stops = ["".join(rng.choices("abé", k=rng.randrange(1, 5))) for _ in range(rng.randrange(1, 4))]
        pieces, stream = pieces_of(tokenizer, ids, stops)
        expected = first_stop(tokenizer.decode(ids), stops)
        num_stopped += expected is not None
        assert stream.stopped == (expected is not None)
        assert "".join(pieces) == (tokenizer.decode(ids) if expected is None else expected)
        if stream.stopped:
            assert first_stop(tokenizer.decode(ids[: stream.num_tokens]), stops) is not None
            assert first_stop(tokenizer.decode(ids[: stream.num_tokens - 1]), stops) is None
    assert num_stopped > 500


def test_text_that_may_begin_a_stop_string_waits(tokenizer):
    stream = TextStream(tokenizer, ["lo stop"])
    ids = tokenizer.encode("hello", add_bos=False)
    assert stream.feed(ids) == "hel"
    assert stream.feed(tokenizer.encode(" world", add_bos=False)) == "lo world"
    assert stream.feed(tokenizer.encode("hello", add_bos=False)) == "hel"
    assert stream.finish() == "lo"


def test_nothing_follows_a_stop_string(tokenizer):
    stream = TextStream(tokenizer, ["ll"])
    assert stream.feed(tokenizer.encode("hello world", add_bos=False)) == "he"
    assert stream.stopped
    assert stream.num_tokens == 1
    assert stream.push(5) == stream.finish() == ""


def test_a_long_answer_costs_the_same_per_token(tokenizer):
    word = tokenizer.encode(" world", add_bos=False)

    def seconds(count):
        stream = TextStream(tokenizer, ["never comes"])
        started = time.perf_counter()
        stream.feed(word * count)
        return time.perf_counter() - started

    seconds(1000)
    assert seconds(40_000) < 40 * max(seconds(4_000), 1e-3)  # quadratic work would take 100 times as long


def test_missing_and_damaged_files_are_weights_errors(tmp_path):
    with pytest.raises(WeightsError, match="missing"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model": ')
    with pytest.raises(WeightsError, match="cannot be read"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize("part", ["{}", "[]"])
def test_a_file_of_countless_small_parts_is_refused_before_it_is_parsed(tmp_path, part, monkeypatch):
    monkeypatch.setattr(tokenizer_module, "MAX_OBJECTS", 1000)
    monkeypatch.setattr(tokenizer_module, "MAX_LISTS", 1000)
    (tmp_path / "tokenizer.json").write_text("[" + ",".join([part] * 1001) + "]")
    with pytest.raises(WeightsError, match="too many parts"):
        Tokenizer.from_folder(tmp_path)


def test_a_foreign_tokenizer_is_refused(tmp_path):
    backend = gemma_tokenizer.build()
    backend.decoder = decoders.Fuse()
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(WeightsError, match="another way"):
        Tokenizer.from_folder(tmp_path)


def test_a_tokenizer_without_start_token_is_refused(tmp_path):
    from tokenizers import Tokenizer as Backend
    from tokenizers import models

    Backend(models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(WeightsError, match="<bos>"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": {"type": "BPE", "dropout": 0.5, "vocab": {}, "merges": []}}, "dropout"),
        ({"model": {"type": "WordLevel", "vocab": {}, "unk_token": "<unk>"}}, "byte-pair"),
        ({"model": None}, "byte-pair"),
        ({"pre_tokenizer": {"type": "FixedLength", "length": 0}}, "FixedLength"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}, "Precompiled"),
        ({"normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaa"}}, "longer"),
        ({"normalizer": {"type": "Replace", "pattern": {"Regex": "a?"}, "content": "b"}}, "longer"),
        ({"decoder": {"type": "Sequence", "decoders": [{"type": "CTC"}]}}, "CTC"),
        (
            {
                "pre_tokenizer": {
                    "type": "Split",
                    "pattern": {"Regex": "(a|a|aa)+$Q"},
                    "behavior": "Isolated",
                    "invert": False,
                }
            },
            "plain text",
        ),
        ({"model": {"type": "BPE", "vocab": {"a": 4_000_000_000}, "merges": []}}, "token ids"),
        ({"model": {"type": "BPE", "vocab": {"a": "0"}, "merges": []}}, "token ids"),
        (
            {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "continuing_subword_prefix": "##"}},
            "parts of words",
        ),
    ],
)
def test_parts_that_a_gemma_tokenizer_has_not_are_refused(tmp_path, change, words):
    data = json.loads(gemma_tokenizer.build().to_str()) | change
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(WeightsError, match=words):
        Tokenizer.from_folder(tmp_path)
