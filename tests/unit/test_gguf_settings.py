"""Fields of GGUF files in the shape of config.json: what Gemma 3 files say, and every contradiction with a reason.

The five kinds of Gemma 4 are compared with the configs of their folders in tests/parity/test_gguf.py.
"""

from pathlib import Path

import gguf_files
import numpy as np
import pytest
from checkpoints import GOLDEN

from foretoken import weights
from foretoken.errors import ConfigError, WeightsError
from foretoken.gguf.container import Container, Entry, read_container
from foretoken.gguf.settings import drafter_settings, generation_settings, target_settings
from foretoken.ops import reference
from foretoken.source import open_source

PATH = Path("model.gguf")
GEMMA3 = {
    "context_length": 32768, "embedding_length": 640, "block_count": 18, "feed_forward_length": 2048,
    "attention.head_count": 4, "attention.layer_norm_rms_epsilon": 1e-6, "attention.key_length": 256,
    "attention.value_length": 256, "rope.freq_base": 1e6, "attention.sliding_window": 512, "attention.head_count_kv": 1,
}  # fmt: skip


def gemma3(**changes):
    """The fields of Gemma 3 270M's file (made by llama.cpp in 2025), changed."""
    own = {**GEMMA3, **{name.replace("__", "."): value for name, value in changes.items()}}
    fields = {"general.architecture": "gemma3", **{f"gemma3.{name}": value for name, value in own.items()}}
    return Container(PATH, fields, {"token_embd.weight": Entry("Q8_0", (262144, 640), PATH, 0)})


def test_gemma_3_270m():
    found = target_settings(gemma3())
    assert found == {
        "model_type": "gemma3_text", "vocab_size": 262144, "hidden_size": 640, "num_hidden_layers": 18,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "query_pre_attn_scalar": 256,
        "intermediate_size": 2048, "sliding_window": 512, "rms_norm_eps": 1e-6, "max_position_embeddings": 32768,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3,
        "final_logit_softcapping": None, "attn_logit_softcapping": None,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {"rope_type": "default", "rope_theta": 1e6},
        },
    }  # fmt: skip


def test_larger_gemma_3():
    """4B and up stretch the positions of full layers; 27B scales queries by the share of hidden width per head."""
    found = target_settings(gemma3(rope__scaling__type="linear", rope__scaling__factor=8.0))
    assert found["rope_parameters"]["full_attention"] == {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}
    large = gemma3(block_count=62, embedding_length=5376, attention__head_count=32, attention__key_length=128)
    assert target_settings(large)["query_pre_attn_scalar"] == 168
    pattern = np.array([True, False] * 9)
    kinds = target_settings(gemma3(attention__sliding_window_pattern=pattern))["layer_types"]
    assert kinds[:2] == ["sliding_attention", "full_attention"]
    assert target_settings(gemma3(attention__sliding_window_pattern=3))["layer_types"][2] == "full_attention"


@pytest.mark.parametrize("name", GEMMA3)
def test_no_field_may_be_missing(name):
    optional = ("attention.value_length", "rope.freq_base")
    container = gemma3()
    del container.fields[f"gemma3.{name}"]
    if name in optional:
        target_settings(container)
    else:
        with pytest.raises(ConfigError, match=rf"gemma3\.{name} of model\.gguf is missing"):
            target_settings(container)


@pytest.fixture
def changed(tmp_path):
    """The container of a golden model with fields changed (None takes one out) and tensors left out."""

    def changed(name, fields, omit=()):
        found = read_container(gguf_files.write(GOLDEN / name, tmp_path / f"{name}.gguf", omit=omit))
        arch = found.fields["general.architecture"]
        for key, value in fields.items():
            is_common = key.startswith(("general", "split", "tokenizer"))
            own = key if is_common else f"{arch}.{key}"
            found.fields.pop(own, None)
            if value is not None:
                found.fields[own] = value
        return found

    return changed


WRONG = [
    ({"block_count": 0}, "block_count"),
    ({"block_count": 10**6}, "block_count"),
    ({"block_count": "five"}, "block_count"),
    ({"block_count": None}, "block_count .* missing"),
    ({"attention.sliding_window_pattern": None}, "sliding_window_pattern"),
    ({"attention.sliding_window_pattern": np.array([True])}, "list of 5"),
    ({"attention.head_count_kv": np.array([1, 2, 1, 2, 1])}, "one number for all layers of a kind"),
    ({"attention.head_count_kv": np.array([1, 2])}, "list of 5"),
    ({"attention.value_length": 7}, "width of keys"),
    ({"attention.value_length_swa": 7}, "width of keys"),
    ({"attention.key_length": 64, "attention.value_length": 64}, "rope_freqs"),
    ({"feed_forward_length": np.array([1, 2, 3, 4, 5])}, "its double"),
    ({"general.architecture": "llama"}, "'llama', expected gemma4"),
    ({"general.architecture": 7}, "'7', expected gemma4"),
    ({"split.count": 3}, "one of 3 parts"),
]


@pytest.mark.parametrize("fields, words", WRONG, ids=[str(next(iter(fields))) for fields, _ in WRONG])
def test_contradictions_are_refused_with_a_reason(fields, words, changed):
    with pytest.raises(ConfigError, match=words):
        target_settings(changed("e2b", fields))


def test_no_embedding(changed):
    with pytest.raises(ConfigError, match="token_embd"):
        target_settings(changed("e2b", {}, omit=("token_embd.weight",)))


def test_rotary_divisors_that_we_do_not_know(tmp_path):
    path = gguf_files.write(GOLDEN / "e2b", tmp_path / "m.gguf")
    container = open_source(path).checkpoint()
    raw = bytearray(path.read_bytes())
    entry = read_container(path).entries["rope_freqs.weight"]
    raw[entry.offset : entry.offset + 4] = np.array([0.5], "<f4").tobytes()
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match="divisors"):
        open_source(path).target_config()
    assert "rope_freqs.weight" not in container.entries


def test_without_divisors_the_whole_head_is_rotated(changed):
    found = target_settings(changed("e2b", {}, omit=("rope_freqs.weight",)))
    assert found["rope_parameters"]["full_attention"]["partial_rotary_factor"] == 1.0


def test_a_drafter_needs_the_width_of_its_target(changed):
    with pytest.raises(ConfigError, match=r"embedding_length_out .* missing"):
        drafter_settings(changed("e2b-assistant", {"embedding_length_out": None}))


def test_ids_that_end_an_answer(changed):
    tokens = ["<pad>", "<eos>", "<bos>", "<turn|>"]
    fields = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.eos_token_id": 3, "tokenizer.ggml.eot_token_id": 9}
    assert target_settings(changed("e2b", fields))["eos_token_id"] == [1, 3, 9]
    fields = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.eos_token_id": 1}
    assert target_settings(changed("e2b", fields))["eos_token_id"] == [1]  # a base model: no turns
    fields["tokenizer.chat_template"] = "{{ messages }}"
    assert target_settings(changed("e2b", fields))["eos_token_id"] == [1, 3]
    several = {"tokenizer.ggml.eos_token_ids": np.array([1, 3], "<i4")}
    assert target_settings(changed("e2b", several))["eos_token_id"] == [1, 3]
    with pytest.raises(ConfigError, match="suppress_tokens"):
        generation_settings(changed("e2b", {"tokenizer.ggml.suppress_tokens": "7"}))


def test_a_tensor_that_nobody_knows_is_left_over(tmp_path):
    def change(writer):
        writer.add_tensor("blk.0.attn_sinks.weight", np.zeros(4, np.float32))
        writer.add_tensor("v.blk.0.attn_q.weight", np.zeros((4, 4), np.float32))  # another part: ignored

    source = open_source(gguf_files.write(GOLDEN / "e2b", tmp_path / "m.gguf", change=change))
    with pytest.raises(WeightsError, match=r"attn_sinks\.weight is left over") as caught:
        weights.load(source.checkpoint(), source.target_config(), "f32", reference)
    assert "v.blk" not in str(caught.value)
