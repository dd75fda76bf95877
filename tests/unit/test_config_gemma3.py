"""config.json of Gemma 3: released files that leave out defaults, both spellings, hostile values."""

import copy
import json

import numpy as np
import pytest
from checkpoints import GOLDEN

from foretoken import config as configs
from foretoken.errors import ConfigError

SLIDING, FULL = "sliding_attention", "full_attention"
SMALL = {  # 270M and 1B are text models that say nearly everything
    "model_type": "gemma3_text", "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18,
    "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "sliding_window": 512, "vocab_size": 262144,
    "max_position_embeddings": 32768, "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "rope_scaling": None,
    "query_pre_attn_scalar": 256, "layer_types": ([SLIDING] * 5 + [FULL]) * 3, "_sliding_window_pattern": 6,
    "use_bidirectional_attention": False, "attn_logit_softcapping": None, "final_logit_softcapping": None,
}  # fmt: skip
LARGE = {  # 4B: an outer config that leaves defaults of the class out
    "model_type": "gemma3", "eos_token_id": [1, 106], "image_token_index": 262144, "mm_tokens_per_image": 256,
    "boi_token_index": 255999, "eoi_token_index": 256000, "vision_config": {"hidden_size": 1152}, "text_config": {
        "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
    },
}  # fmt: skip


def inv_freq(theta, head_len, factor=1.0):
    return (theta ** (-2 * np.arange(head_len // 2, dtype=np.float64) / head_len) / factor).astype(np.float32)


def golden(name):
    return json.loads((GOLDEN / name / "config.json").read_text())


def test_a_text_model_as_released():
    config = configs.target_config(SMALL)
    assert config.model_type == "gemma3_text" and not config.has_other_parts and config.unknown_fields == ()
    assert config.donor == {"sliding": 16, "full": 17} and config.first_shared == 18 == len(config.cache_layers)
    assert config.per_layer_len == 0 and config.softcap is None and config.eps == 1e-6
    assert config.query_scale == 0.0625 and config.norm_offset == 1.0
    assert {(layer.head_len, layer.num_heads, layer.num_kv_heads) for layer in config.layers} == {(256, 4, 1)}
    assert {layer.window for layer in config.layers} == {512, None}
    assert not any(layer.has_value_norm or layer.has_scalar or layer.is_shared for layer in config.layers)
    np.testing.assert_allclose(config.rope["sliding"], inv_freq(1e4, 256), rtol=1e-6)
    np.testing.assert_allclose(config.rope["full"], inv_freq(1e6, 256), rtol=1e-6)


def test_an_outer_config_as_released():
    config = configs.target_config(LARGE)
    assert config.model_type == "gemma3" and config.has_other_parts and config.unknown_fields == ()
    assert config.vocab_len == 262208 and config.max_positions == 131072 and config.eos_ids == (1, 106)
    assert {(layer.head_len, layer.num_heads, layer.num_kv_heads) for layer in config.layers} == {(256, 8, 4)}
    assert [i for i, layer in enumerate(config.layers) if layer.kind == "full"] == [5, 11, 17, 23, 29]
    assert config.donor == {"sliding": 33, "full": 29}, "the last layer need not be full"
    np.testing.assert_allclose(config.rope["sliding"], inv_freq(1e4, 256), rtol=1e-6)
    np.testing.assert_allclose(config.rope["full"], inv_freq(1e6, 256, factor=8), rtol=1e-6)


def test_gemma_4_has_none_of_these_constants():
    config = configs.target_config(golden("e2b"))
    assert (config.query_scale, config.norm_offset) == (1.0, 0.0)
    assert all(layer.has_value_norm and layer.has_scalar for layer in config.layers)


def test_a_query_scale_that_is_no_power_of_two():
    assert configs.target_config(SMALL | {"query_pre_attn_scalar": 168}).query_scale == pytest.approx(168**-0.5)


def test_the_pattern_where_kinds_are_not_named():
    data = {name: value for name, value in SMALL.items() if name != "layer_types"}
    assert configs.target_config(data).layers == configs.target_config(SMALL).layers
    thirds = configs.target_config(data | {"sliding_window_pattern": 3})
    assert [i for i, layer in enumerate(thirds.layers) if layer.kind == "full"] == [2, 5, 8, 11, 14, 17]


def test_the_newer_spelling_of_rotary_parameters():
    data = {name: value for name, value in SMALL.items() if not name.startswith("rope")}
    silent = configs.target_config(data)
    newer = data | {"rope_parameters": {
        FULL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5}, SLIDING: {"rope_type": "default"},
    }}  # fmt: skip
    np.testing.assert_allclose(configs.target_config(newer).rope["full"], inv_freq(5e5, 256, 8), rtol=1e-6)
    np.testing.assert_array_equal(configs.target_config(newer).rope["sliding"], silent.rope["sliding"])
    older = data | {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 8.0}}
    np.testing.assert_array_equal(configs.target_config(older).rope["full"], configs.target_config(newer).rope["full"])
    assert configs.target_config(older | newer).layers == silent.layers, "both may speak where they agree"
    with pytest.raises(ConfigError, match=r"rope_theta 400000\.0 in full_attention"):
        configs.target_config(newer | {"rope_theta": 4e5})
    with pytest.raises(ConfigError, match=r"factor 4\.0 in full_attention"):
        configs.target_config(newer | {"rope_scaling": {"rope_type": "linear", "factor": 4.0}})


def test_unknown_fields_are_named():
    data = copy.deepcopy(LARGE) | {"new_outer": 1}
    data["text_config"]["new_inner"] = 2
    assert configs.target_config(data).unknown_fields == ("new_outer", "text_config.new_inner")


HOSTILE = [
    ("hidden_size", None), ("hidden_size", 10**30), ("num_hidden_layers", 10**6), ("intermediate_size", "x"),
    ("num_key_value_heads", 3), ("num_attention_heads", 0), ("num_key_value_heads", True), ("head_dim", 33),
    ("head_dim", 0), ("vocab_size", 1 << 19), ("sliding_window", None), ("sliding_window", 0),
    ("layer_types", [FULL]), ("layer_types", ["diagonal_attention"] * 18), ("query_pre_attn_scalar", 0),
    ("query_pre_attn_scalar", "256"), ("query_pre_attn_scalar", float("nan")), ("final_logit_softcapping", 0),
    ("attn_logit_softcapping", 50.0), ("use_bidirectional_attention", True), ("hidden_activation", "silu"),
    ("attention_bias", True), ("tie_word_embeddings", False), ("quantization_config", {"bits": 4}),
    ("rope_theta", 0), ("rope_theta", "big"), ("rope_local_base_freq", -1), ("rope_scaling", 8),
    ("rope_scaling", {"rope_type": "yarn", "factor": 8.0}), ("rope_scaling", {"rope_type": "linear"}),
    ("rope_scaling", {"rope_type": "linear", "factor": 0.5}), ("rope_parameters", []),
    ("rope_parameters", {"rope_type": "default"}), ("rope_parameters", {FULL: 7}), ("model_type", "gemma3_vision"),
    ("rms_norm_eps", 0), ("max_position_embeddings", 0), ("eos_token_id", "end"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), HOSTILE, ids=[f"{f}={str(v)[:24]}" for f, v in HOSTILE])
def test_a_bad_value_is_refused_by_name(field, value):
    with pytest.raises(ConfigError) as caught:
        configs.target_config(SMALL | {field: value})
    message = str(caught.value)
    part = next(iter(value), "") if isinstance(value, dict) else ""
    assert field in message or "head" in message or "factor" in message or (part and part in message)
    assert len(message) < 500 and "\n" not in message


def test_an_outer_config_refuses_what_its_class_ignores():
    data = copy.deepcopy(LARGE)
    data["text_config"]["final_logit_softcapping"] = 30.0
    with pytest.raises(ConfigError, match=r"text_config\.final_logit_softcapping"):
        configs.target_config(data)
    with pytest.raises(ConfigError, match="text part of gemma3"):
        configs.target_config(LARGE | {"text_config": SMALL | {"model_type": "gemma4_text"}})
    with pytest.raises(ConfigError, match="text_config"):
        configs.target_config({"model_type": "gemma3"})


def test_an_assistant_fits_a_target_of_gemma_3():
    """It reads hidden rows and the keys and values of the last layer of each kind."""
    target = configs.target_config(golden("g3"))
    text = golden("31b-assistant")["text_config"] | {
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_global_key_value_heads": None,
        "attention_k_eq_v": False, "head_dim": 16, "global_head_dim": 16, "sliding_window": 16, "vocab_size": 128,
        "rope_parameters": {
            FULL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            SLIDING: {"rope_type": "default", "rope_theta": 1e4},
        },
    }  # fmt: skip
    drafter = golden("31b-assistant") | {"backbone_hidden_size": 64, "text_config": text}
    assert configs.pairing_problems(target, configs.drafter_config(drafter)) == []
    text["rope_parameters"][FULL]["factor"] = 4.0
    [problem] = configs.pairing_problems(target, configs.drafter_config(drafter))
    assert "rotary frequencies of full" in problem
