"""Tokenizers made from GGUF vocabularies give the ids of the tokenizer.json that the vocabulary came from."""

from itertools import pairwise

import gemma_tokenizer
import gguf
import gguf_files
import pytest
import token_lines

from foretoken import api
from foretoken.errors import WeightsError
from foretoken.gguf import vocabulary
from foretoken.source import open_source
from foretoken.tokenizer import Tokenizer

FOLDERS = {"toy": None, "embedded": api.ASSETS / "target"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {"toy": gemma_tokenizer.write(tmp_path_factory.mktemp("toy")), "embedded": api.ASSETS / "target"}


def write(folder, path, model="gemma4", change=None):
    writer = gguf.GGUFWriter(path, "gemma4" if model == "gemma4" else "gemma3")
    if folder is not None:
        gguf_files.add_tokenizer(writer, folder, model)
    if change:
        change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def pieces_of(tokenizer):
    return [tokenizer.piece(index) for index in range(tokenizer.vocab_len)]


@pytest.mark.parametrize("name", ["toy", "embedded"])
def test_the_ids_of_the_folder(name, folders, tmp_path):
    source, theirs = open_source(write(folders[name], tmp_path / "m.gguf")), Tokenizer.from_folder(folders[name])
    ours = source.tokenizer()
    assert (ours.bos_id, ours.vocab_len, ours.control_ids) == (theirs.bos_id, theirs.vocab_len, theirs.control_ids)
    assert source.pieces() == pieces_of(theirs)
    for line in token_lines.lines(pieces_of(theirs), 1200):
        ids = theirs.encode(line)
        assert ours.encode(line) == ids
        assert ours.decode(ids) == theirs.decode(ids)


def slow_ids(text, pieces):
    """SentencePiece's own rule: again and again join the two neighbours that make the piece of the lowest id."""
    ids = {piece: index for index, piece in enumerate(pieces)}
    symbols = list(text.replace(" ", "▁"))
    while True:
        joined = [(ids[a + b], at) for at, (a, b) in enumerate(pairwise(symbols)) if a + b in ids]
        if not joined:
            break
        at = min(joined)[1]
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    return [i for s in symbols for i in ([ids[s]] if s in ids else [ids[f"<0x{b:02X}>"] for b in s.encode()])]


def test_a_vocabulary_with_scores_and_no_merges(folders, tmp_path):
    """Pieces in an order in which a later one is often the better start, so that the order matters."""
    source = open_source(write(folders["embedded"], tmp_path / "m.gguf", "llama"))
    tokenizer, pieces = source.tokenizer(), source.pieces()

    special = [pieces[i] for i in tokenizer.control_ids]
    tried = 0
    for line in token_lines.SENTENCES:
        if not any(name in line for name in special) and "<" not in line and "\n" not in line:
            assert tokenizer.encode(line, add_bos=False) == slow_ids(line, pieces), line
            tried += 1
    assert tried > 40


def test_runs_of_spaces_are_found_by_merging(folders, tmp_path):
    """They are stored as spaces and user-defined; literal ▁ beside spaces is one run with them."""

    def kinds(piece, added):
        is_run = piece[1:] and set(piece) == {"▁"}
        return gguf.TokenType.USER_DEFINED if is_run else real(piece, added)

    real = gguf_files.piece_type
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf_files, "piece_type", kinds)
        source = open_source(write(folders["toy"], tmp_path / "m.gguf", "llama"))
    tokenizer, pieces = source.tokenizer(), source.pieces()
    assert "▁▁" in pieces and " " not in "".join(pieces)
    assert tokenizer.encode(" ▁▁ ", add_bos=False) == [pieces.index("▁▁")] * 2
    assert tokenizer.decode(tokenizer.encode("   a  b")) == "   a  b"


def test_visible_control_tokens_stay_control_tokens(folders, tmp_path):
    """Converters type the names of channels and tools user-defined, so that chat parsers see them."""

    def kinds(piece, added):
        return gguf.TokenType.USER_DEFINED if piece in ("<|turn>", "<turn|>") else real(piece, added)

    real = gguf_files.piece_type
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf_files, "piece_type", kinds)
        tokenizer = open_source(write(folders["toy"], tmp_path / "m.gguf")).tokenizer()
    assert tokenizer.id_of("<|turn>") is not None
    assert tokenizer.decode(tokenizer.encode("<|turn>hello")) == "hello"


def test_the_template_and_its_tokens(folders, tmp_path):
    source = open_source(write(folders["toy"], tmp_path / "m.gguf"))
    prompt = source.chat_template().render([{"role": "user", "content": " hello "}])
    assert prompt == "<bos><|turn>user\nhello<turn|>\n<|turn>model\n"
    bare = lambda writer: writer.kv_data[0].pop("tokenizer.chat_template")  # noqa: E731
    assert open_source(write(folders["toy"], tmp_path / "n.gguf", change=bare)).chat_template() is None


def replaced(key, value=None):
    """A change that leaves a field out, or gives it another value."""

    def change(writer):
        field = writer.kv_data[0].pop(key)
        if value is not None:
            writer.add_key_value(key, value(field.value) if callable(value) else value, field.type, field.sub_type)

    return change


T = "tokenizer.ggml."


def without_a_byte(writer):
    replaced(T + "unknown_token_id")(writer)
    replaced(T + "tokens", lambda v: [t.replace("<0xF0>", "<0xG0>") for t in v])(writer)


WRONG = {
    "no tokenizer": (None, None, "has no tokenizer"),
    "no tokens": (replaced(T + "tokens"), "gemma4", "has no tokenizer"),
    "no merges": (replaced(T + "merges"), "gemma4", "no tokenizer.ggml.merges"),
    "another kind": (replaced(T + "model", "gpt2"), "gemma4", "kind 'gpt2'"),
    "no types": (replaced(T + "token_type"), "gemma4", "token_type"),
    "too few types": (replaced(T + "token_type", lambda v: v[:-1]), "gemma4", "token_type"),
    "a token twice": (replaced(T + "tokens", lambda v: [*v[:-1], v[0]]), "gemma4", "twice"),
    "an endless token": (replaced(T + "tokens", lambda v: [*v[:-1], "x" * 5000]), "gemma4", "256 characters"),
    "a merge of three": (replaced(T + "merges", lambda v: [*v, "a b c"]), "gemma4", "pairs"),
    "a merge of nothing": (replaced(T + "merges", lambda v: [*v, "a"]), "gemma4", "pairs"),
    "a merge of a stranger": (replaced(T + "merges", lambda v: [*v, "☃ ☃"]), "gemma4", "merges"),
    "characters without a token": (without_a_byte, "gemma4", "text would be lost"),
    "no start token": (replaced(T + "tokens", lambda v: [t.replace("<bos>", "<bot>") for t in v]), "gemma4", "<bos>"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_vocabulary_is_refused_with_a_reason(name, folders, tmp_path):
    change, model, words = WRONG[name]
    path = write(folders["toy"] if model else None, tmp_path / "m.gguf", model or "gemma4", change)
    with pytest.raises(WeightsError, match=words):
        open_source(path).tokenizer()


def test_a_token_of_spaces_beside_merges_stays_one(folders, tmp_path):
    """Only vocabularies without merges store ▁▁ as spaces; elsewhere both may be there."""
    change = replaced(T + "tokens", lambda v: [t.replace("<mask>", "  ") for t in v])
    source = open_source(write(folders["toy"], tmp_path / "m.gguf", change=change))
    assert source.tokenizer().piece(4) == source.pieces()[4] == "  "


def test_a_vocabulary_that_merges_in_too_many_ways_is_refused():
    pieces = ["a" * i + "b" * j for i in range(60) for j in range(60) if i + j]
    with pytest.raises(WeightsError, match="merged in more than 16 ways"):
        vocabulary._merges({}, "llama", pieces, "m.gguf")
