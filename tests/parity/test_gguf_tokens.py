"""Tokenizers of small GGUF files, ours and transformers' for the same file; tests/gguf_tokens.py takes large ones."""

import gguf
import gguf_files
import pytest
import token_lines

from foretoken import api
from foretoken.source import open_source

pytest.importorskip("torch", reason="torch is not installed; tests/unit compares with the folder's tokenizer instead")
transformers = pytest.importorskip("transformers", minversion="5.24")

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("arch, model", [("gemma4", "gemma4"), ("gemma3", "llama")])
def test_the_ids_of_transformers(arch, model, tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", arch)
    gguf_files.add_tokenizer(writer, api.ASSETS / "target", model)
    writer.add_block_count(1)
    writer.add_head_count(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    source = open_source(tmp_path / "m.gguf")
    ours, num_tokens = source.tokenizer(), 0
    for line in token_lines.lines(source.pieces(), 2000):
        expected = theirs(line, add_special_tokens=False)["input_ids"]
        assert ours.encode(line, add_bos=False) == expected, line
        num_tokens += len(expected)
    assert num_tokens > 10_000
