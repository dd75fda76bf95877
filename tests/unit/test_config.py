"""config.json to dataclasses: both spellings, every contradiction, hostile values."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
from checkpoints import GOLDEN

from foretoken import config as configs
from foretoken.errors import ConfigError

NAMES = ("e2b", "e4b", "12b", "26b", "31b")


def golden(name):
    return json.loads((GOLDEN / name / "config.json").read_text())


def text_of(data):
    return data.get("text_config", data)


def other_spelling(data):
    """The same model as transformers 5.24 spells it, from the released spelling; or the other way round."""
    data = copy.deepcopy(data)
    text = text_of(data)
    full = [index for index, kind in enumerate(text["layer_types"]) if kind == "full_attention"]
    if "per_layer_config" in text:
        listed = text.pop("per_layer_config")[str(full[0])]
        text["global_head_dim"] = listed["head_dim"]
        text["num_global_key_value_heads"] = listed.get("num_key_value_heads")
    else:
        listed = {"head_dim": text["global_head_dim"]}
        if text["num_global_key_value_heads"] is not None:
            listed["num_key_value_heads"] = text["num_global_key_value_heads"]
        text["per_layer_config"] = {str(index): listed for index in full}
        del text["global_head_dim"], text["num_global_key_value_heads"]
    return data


def read(data):
    is_drafter = "backbone_hidden_size" in data
    return configs.drafter_config(data) if is_drafter else configs.target_config(data)


def released(num_layers, period, shared, **sizes):
    """A config of released size; layer `period`, 2 · `period` … are full."""
    return {
        "model_type": "gemma4_text", "num_hidden_layers": num_layers, "num_attention_heads": 8, "head_dim": 256,
        "global_head_dim": 512, "sliding_window": 512, "num_kv_shared_layers": shared, "vocab_size": 262144,
        "hidden_size_per_layer_input": 256, "vocab_size_per_layer_input": 262144, "max_position_embeddings": 131072,
        "final_logit_softcapping": 30.0, "hidden_activation": "gelu_pytorch_tanh",
        "layer_types": ["sliding_attention" if (i + 1) % period else "full_attention" for i in range(num_layers)],
        **sizes,
    }  # fmt: skip


E2B = released(35, 5, 20, hidden_size=1536, intermediate_size=6144, num_key_value_heads=1, use_double_wide_mlp=True)
E4B = released(42, 6, 18, hidden_size=2560, intermediate_size=10240, num_key_value_heads=2)


def test_e2b_as_released():
    config = configs.target_config(E2B)
    assert config.donor == {"sliding": 13, "full": 14}
    assert config.cache_layers == tuple(range(15)) and config.first_shared == 15
    assert {layer.mlp_len for layer in config.layers[:15]} == {6144}
    assert {layer.mlp_len for layer in config.layers[15:]} == {12288}
    assert [layer.kv_source for layer in config.layers[13:20]] == [13, 14, 13, 13, 13, 13, 14]
    assert config.layers[4].head_len == 512 and config.layers[4].window is None
    assert config.layers[0].head_len == 256 and config.layers[0].window == 512
    assert config.softcap == 30.0 and config.eps == 1e-6 and config.eos_ids == (1, 106)
    assert len(config.rope["sliding"]) == 128 and len(config.rope["full"]) == 64
    assert config.unknown_fields == ()


def test_e4b_as_released():
    config = configs.target_config(E4B)
    assert config.donor == {"sliding": 22, "full": 23}
    assert len(config.cache_layers) == 24
    assert {layer.mlp_len for layer in config.layers} == {10240}
    assert {layer.num_kv_heads for layer in config.layers} == {2}


def large(model_type, num_layers, **sizes):
    """12B, 26B-A4B or 31B as released: five sliding layers to one full, no shared ones, keys used as values."""
    text = released(num_layers, 6, 0, attention_k_eq_v=True, sliding_window=1024, model_type=model_type, **sizes)
    if model_type == "gemma4_unified_text":
        del text["hidden_size_per_layer_input"], text["vocab_size_per_layer_input"]
    else:
        text["hidden_size_per_layer_input"] = 0
    return text


G12B = large("gemma4_unified_text", 48, hidden_size=3840, intermediate_size=15360, num_attention_heads=16,
             num_key_value_heads=8, num_global_key_value_heads=1)  # fmt: skip
G26B = large("gemma4_text", 30, hidden_size=2816, intermediate_size=2112, num_attention_heads=16, num_key_value_heads=8,
             num_global_key_value_heads=2, enable_moe_block=True, num_experts=128, top_k_experts=8,
             moe_intermediate_size=704)  # fmt: skip
G31B = large("gemma4_text", 60, hidden_size=5376, intermediate_size=21504, num_attention_heads=32,
             num_key_value_heads=16, num_global_key_value_heads=4)  # fmt: skip


@pytest.mark.parametrize(
    ("data", "donor", "sliding_heads", "full_heads"),
    [(G12B, {"sliding": 46, "full": 47}, 8, 1), (G26B, {"sliding": 28, "full": 29}, 8, 2),
     (G31B, {"sliding": 58, "full": 59}, 16, 4)],
    ids=["12b", "26b", "31b"],
)  # fmt: skip
def test_large_models_as_released(data, donor, sliding_heads, full_heads):
    config = configs.target_config(data)
    assert config.donor == donor and config.first_shared == len(config.layers) == len(config.cache_layers)
    assert config.per_layer_len == 0 and config.unknown_fields == ()
    sliding, full = config.layers[0], config.layers[5]
    assert (sliding.kind, sliding.head_len, sliding.num_kv_heads, sliding.k_eq_v) == (
        "sliding",
        256,
        sliding_heads,
        False,
    )
    assert (full.kind, full.head_len, full.num_kv_heads, full.k_eq_v) == ("full", 512, full_heads, True)
    assert [layer.kv_source for layer in config.layers] == list(range(len(config.layers)))


def test_experts():
    layer = configs.target_config(G26B).layers[3]
    assert (layer.num_experts, layer.top_experts, layer.expert_len, layer.mlp_len) == (128, 8, 704, 2112)
    off = configs.target_config(G26B | {"enable_moe_block": False})
    assert {layer.num_experts for layer in off.layers} == {0}, "sizes alone mean nothing"
    assert off.unknown_fields == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_experts", None), ("num_experts", 0), ("num_experts", 1 << 20), ("num_experts", 4), ("top_k_experts", None),
     ("top_k_experts", 129), ("top_k_experts", 0), ("moe_intermediate_size", None), ("moe_intermediate_size", "704"),
     ("enable_moe_block", "yes"), ("attention_k_eq_v", 1), ("num_global_key_value_heads", 3),
     ("num_global_key_value_heads", "two"), ("num_global_key_value_heads", 0)],
)  # fmt: skip
def test_a_bad_expert_or_head_field_is_refused_by_name(field, value):
    named = {"num_experts": "top_k_experts"}.get(field, field) if value == 4 else field
    named = "num_attention_heads" if value == 3 else named
    with pytest.raises(ConfigError, match=named):
        configs.target_config(G26B | {field: value})


def test_own_heads_of_full_layers_need_keys_used_as_values():
    with pytest.raises(
        ConfigError, match=r"num_global_key_value_heads .* is 2, expected null or 8 without attention_k"
    ):
        configs.target_config(G26B | {"attention_k_eq_v": False})
    same = configs.target_config(G26B | {"attention_k_eq_v": False, "num_global_key_value_heads": 8})
    assert {layer.num_kv_heads for layer in same.layers} == {8}
    silent = configs.target_config(G26B | {"num_global_key_value_heads": None})
    assert {layer.num_kv_heads for layer in silent.layers} == {8}


def test_spellings_that_differ_in_heads():
    data = golden("31b")
    data["per_layer_config"] = {"3": {"head_dim": 16, "num_key_value_heads": 2}}
    assert read(data) == read(golden("31b"))
    data["per_layer_config"]["3"]["num_key_value_heads"] = 4
    with pytest.raises(
        ConfigError, match=r"layer 3 has key/value heads 4 by per_layer_config, 2 by num_global_key_value_heads"
    ):
        read(data)


@pytest.mark.parametrize(
    ("field", "value"),
    [("hidden_size_per_layer_input", 256), ("enable_moe_block", True), ("model_type", "gemma4_text"),
     ("model_type", "gemma4_unified")],
)  # fmt: skip
def test_a_unified_model_has_no_such_part(field, value):
    data = golden("12b")
    data["text_config"][field] = value
    with pytest.raises(ConfigError, match=field):
        read(data)


def test_unified_models():
    outer = read(golden("12b"))
    assert outer.model_type == "gemma4_unified" and outer.has_other_parts and outer.per_layer_len == 0
    alone = read(golden("12b")["text_config"])
    assert alone.layers == outer.layers and not alone.has_other_parts
    drafter = read(golden("12b-assistant"))
    assert drafter.model_type == "gemma4_unified_assistant"
    assert drafter.num_kv_heads == {"sliding": 2, "full": 1}
    assert (drafter.num_clusters, golden("12b-assistant")["num_centroids"]) == (0, 2048), "declared, not there"
    with pytest.raises(ConfigError, match="gemma4_unified"):
        configs.drafter_config(golden("12b"))


@pytest.mark.parametrize("name", [*NAMES, *(f"{name}-assistant" for name in NAMES)])
def test_both_spellings_say_the_same(name):
    one, other = read(golden(name)), read(other_spelling(golden(name)))
    assert one == other
    assert one.unknown_fields == other.unknown_fields == ()
    for kind in one.rope:
        np.testing.assert_array_equal(one.rope[kind], other.rope[kind])


def test_both_spellings_in_one_file():
    both = golden("e2b") | {"per_layer_config": other_spelling(golden("e2b"))["per_layer_config"]}
    assert read(both) == read(golden("e2b"))
    both["per_layer_config"]["2"] = {"head_dim": 64}
    with pytest.raises(ConfigError, match=r"layer 2 has head width 64 by per_layer_config, 32 by global_head_dim"):
        read(both)


def test_nothing_is_implied_beside_per_layer_config():
    data = other_spelling(golden("e2b"))
    del data["per_layer_config"]["4"]
    with pytest.raises(ConfigError, match=r"full layers have head widths \[16, 32\]"):
        read(data)


def test_text_part_of_an_outer_config():
    outer = golden("e4b")
    assert outer["model_type"] == "gemma4"
    config = configs.target_config(outer | {"vision_config": {"anything": [1]}, "eos_token_id": [1, 106]})
    assert config.model_type == "gemma4" and config.eos_ids == (1, 106)
    assert config.layers == configs.target_config(outer["text_config"]).layers


def test_drafter():
    config = read(golden("e2b-assistant"))
    assert (config.num_clusters, config.top_clusters) == (32, 4)
    assert config.backbone_len == 64 and config.num_draft_tokens == 6
    assert all(layer.is_shared and layer.kv_source == -1 for layer in config.layers)
    dense = read(golden("e4b-assistant"))
    assert (dense.num_clusters, dense.top_clusters) == (0, 0), "a declared number of centroids means nothing alone"
    assert dense.num_kv_heads == {"sliding": 2, "full": 2}
    assert configs.drafter_config(golden("e2b-assistant"), {"num_assistant_tokens": 3}).num_draft_tokens == 3


def test_rotary_frequencies_follow_the_closed_form():
    for kind, theta, head_len in (("sliding", 1e4, 256), ("full", 1e6, 512)):
        found = configs.target_config(E2B).rope[kind]
        exact = theta ** (-2 * np.arange(len(found), dtype=np.float64) / head_len)
        assert found.dtype == np.float32
        assert np.all(np.abs(found - exact) <= np.spacing(found) * 0.5000001)


def test_rotary_defaults_hold_only_without_any_parameters():
    silent = configs.target_config({k: v for k, v in golden("e2b").items() if k != "rope_parameters"})
    np.testing.assert_array_equal(silent.rope["full"], read(golden("e2b")).rope["full"])
    data = golden("e2b")
    del data["rope_parameters"]["full_attention"]["partial_rotary_factor"]  # the reference then rotates every pair
    assert len(read(data).rope["full"]) == 16


def test_a_full_layer_ends_every_sixth_where_layer_types_are_silent():
    data = {k: v for k, v in E4B.items() if k != "layer_types"}
    assert configs.target_config(data).layers == configs.target_config(E4B).layers


def test_unknown_fields_are_named_and_not_guessed():
    outer = golden("e4b") | {"new_outer": 1}
    outer["text_config"]["new_inner"] = {"a": 1}
    assert configs.target_config(outer).unknown_fields == ("new_outer", "text_config.new_inner")


HOSTILE = [
    ("hidden_size", 0), ("hidden_size", -4), ("hidden_size", True), ("hidden_size", 1.5), ("hidden_size", "64"),
    ("hidden_size", 10**30), ("hidden_size", None), ("num_hidden_layers", 10**6), ("num_hidden_layers", 4),
    ("num_attention_heads", "eight"), ("num_key_value_heads", 3), ("num_key_value_heads", 0),
    ("sliding_window", 0), ("vocab_size", 1 << 40), ("vocab_size_per_layer_input", 100),
    ("hidden_size_per_layer_input", -1), ("num_kv_shared_layers", 5), ("num_kv_shared_layers", 4),
    ("layer_types", ["sliding_attention", "diagonal_attention"]), ("layer_types", "full_attention"),
    ("layer_types", ["full_attention"] * 4 + ["sliding_attention"]), ("layer_types", [["x"]] * 5),
    ("hidden_activation", "swish_of_the_future"), ("attention_bias", True), ("attention_bias", 1),
    ("model_type", "gemma9"), ("model_type", ["gemma4_text"]), ("model_type", None),
    ("rms_norm_eps", 0), ("rms_norm_eps", float("nan")), ("rms_norm_eps", "small"),
    ("final_logit_softcapping", 0), ("final_logit_softcapping", float("inf")), ("use_double_wide_mlp", "yes"),
    ("tie_word_embeddings", False), ("use_bidirectional_attention", "all"), ("global_head_dim", 33),
    ("quantization_config", {"quant_method": "gemma"}), ("eos_token_id", [1, "x"]), ("eos_token_id", -1),
    ("rope_parameters", []), ("rope_parameters", {"full_attention": {"rope_type": "yarn", "rope_theta": 1e6}}),
    ("per_layer_config", [1]), ("per_layer_config", {"7": {"head_dim": 32}}), ("per_layer_config", {"2": 32}),
    ("per_layer_config", {"2": {"intermediate_size": 32}}), ("per_layer_config", {"2": {"head_dim": -2}}),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), HOSTILE, ids=[f"{f}={str(v)[:24]}" for f, v in HOSTILE])
def test_a_bad_value_is_refused_by_name(field, value):
    with pytest.raises(ConfigError) as caught:
        configs.target_config(golden("e2b") | {field: value})
    message = str(caught.value)
    assert field in message or "layer" in message or "head" in message
    assert len(message) < 500 and "\n" not in message


@pytest.mark.parametrize("kind", ["sliding_attention", "full_attention"])
@pytest.mark.parametrize(
    "change",
    [{"rope_type": "yarn"}, {"rope_theta": 0}, {"rope_theta": None}, {"factor": -1}, {"partial_rotary_factor": 1e-9},
     {"partial_rotary_factor": 2}, {"beta_fast": 32}],
)  # fmt: skip
def test_a_bad_rotary_parameter_is_refused(kind, change):
    data = golden("e2b")
    data["rope_parameters"][kind] |= change
    with pytest.raises(ConfigError, match=next(iter(change))):
        read(data)


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_centroids", 7), ("num_centroids", 0), ("centroid_intermediate_top_k", 33), ("backbone_hidden_size", None),
     ("use_ordered_embeddings", "yes"), ("text_config", None), ("text_config", []), ("model_type", "gemma4_text")],
)  # fmt: skip
def test_a_bad_drafter_is_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=field):
        configs.drafter_config(golden("e2b-assistant") | {field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("hidden_size_per_layer_input", 8), ("use_double_wide_mlp", True), ("enable_moe_block", True),
     ("final_logit_softcapping", 30.0), ("num_kv_shared_layers", 3)],
)  # fmt: skip
def test_a_drafter_has_no_such_parts(field, value):
    data = golden("e2b-assistant")
    data["text_config"][field] = value
    with pytest.raises(ConfigError, match=field):
        configs.drafter_config(data)


def test_a_target_is_no_drafter_and_a_drafter_no_target():
    with pytest.raises(ConfigError, match="gemma4_assistant"):
        configs.drafter_config(golden("e2b"))
    with pytest.raises(ConfigError, match="gemma4_text"):
        configs.target_config(golden("e2b-assistant"))


def test_a_fitting_pair_has_no_problems():
    for name in NAMES:
        assert configs.pairing_problems(read(golden(name)), read(golden(f"{name}-assistant"))) == []


def test_every_reason_why_a_pair_does_not_fit_is_listed_with_both_values():
    target, drafter = read(golden("e2b")), read(golden("e4b-assistant"))
    problems = configs.pairing_problems(target, replace(drafter, backbone_len=96))
    for words in (
        ("backbone_hidden_size", "96", "64"),
        ("vocab_size", "192", "256"),
        ("sliding_window", "12", "16"),
        ("heads of full", "2", "1"),
        ("heads of sliding", "2", "1"),
        ("width of full", "24", "32"),
        ("width of sliding", "8", "16"),
    ):
        assert any(all(word in problem for word in words) for problem in problems), (words, problems)


def test_a_drafter_of_other_global_heads_does_not_fit():
    data = golden("31b-assistant")
    data["text_config"]["num_global_key_value_heads"] = 4
    [problem] = configs.pairing_problems(read(golden("31b")), read(data))
    assert problem == "its key/value heads of full layers are 4, the target has 2"


def test_other_rotary_frequencies_do_not_fit():
    data = golden("e2b-assistant")
    data["text_config"]["rope_parameters"]["full_attention"]["rope_theta"] = 1e5
    assert "rotary frequencies of full" in configs.pairing_problems(read(golden("e2b")), read(data))[0]


def test_a_target_without_a_layer_of_that_kind_does_not_fit():
    target = configs.target_config(golden("e2b"))
    [problem] = configs.pairing_problems(replace(target, donor={"full": 2}), read(golden("e2b-assistant")))
    assert "sliding" in problem


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, configs.GenerationDefaults((1, 106), 0.0, 0, 1.0, ())),
        ({"temperature": 0.7}, configs.GenerationDefaults()),
        ({"do_sample": False, "temperature": 1.0, "eos_token_id": 1}, configs.GenerationDefaults((1,))),
        (
            {"do_sample": True, "temperature": 1.0, "top_k": 64, "top_p": 0.95, "eos_token_id": [1, 106, 50],
             "suppress_tokens": [258883, 258882]},
            configs.GenerationDefaults((1, 106, 50), 1.0, 64, 0.95, (258883, 258882)),
        ),
    ],
)  # fmt: skip
def test_generation_defaults(data, expected):
    assert configs.generation_defaults(data) == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [("eos_token_id", ["a"]), ("eos_token_id", True), ("top_k", -1), ("top_p", 0), ("top_p", 2), ("do_sample", 1),
     ("temperature", -1), ("temperature", "hot"), ("suppress_tokens", {"a": 1})],
)  # fmt: skip
def test_bad_generation_defaults_are_refused(field, value):
    with pytest.raises(ConfigError, match=field):
        configs.generation_defaults({"do_sample": True} | {field: value})


def test_a_missing_generation_config_is_no_error(tmp_path):
    assert configs.load_generation_defaults(tmp_path) == configs.GenerationDefaults()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "7", '{"a": 1', '{"a": 1, "a": 2}', "[" * 100_000, '{"a": ' + "9" * 5000 + "}", b"\xff\xfe{}"],
    ids=["empty", "list", "number", "half", "twice", "deep", "long-number", "not-utf8"],
)
def test_a_config_that_is_no_object(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=r"config\.json"):
        configs.load_target_config(tmp_path)


def test_a_config_of_monstrous_size_is_not_read(tmp_path):
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(1 << 34)
    with pytest.raises(ConfigError, match="bytes"):
        configs.load_target_config(tmp_path)


def test_a_missing_config(tmp_path):
    with pytest.raises(ConfigError, match="missing"):
        configs.load_target_config(tmp_path)
