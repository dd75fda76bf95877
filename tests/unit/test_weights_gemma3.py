"""Tensors of Gemma 3: what files leave out of norms, the query scale, both spellings of names, parts for pictures."""

import json

import numpy as np
import pytest
from checkpoints import GOLDEN, copy_of, join, split

from foretoken import config as configs
from foretoken import weights
from foretoken.errors import WeightsError
from foretoken.ops import reference
from foretoken.weights.safetensors import Checkpoint

FILE = "model.safetensors"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETOKEN_CACHE_DIR", str(tmp_path / "cache"))


def load(folder, format="f32"):
    return weights.load(folder, configs.load_target_config(folder), format, reference)[0]


def renamed(folder, change):
    """The same file with other names of tensors."""
    header, data = split(folder / FILE)
    join(folder / FILE, {change(name): entry for name, entry in header.items()}, data)
    return folder


def test_one_is_added_to_every_norm_and_the_query_scale_to_that_of_queries():
    files, found = Checkpoint(GOLDEN / "g3-text"), load(GOLDEN / "g3-text")
    one, layer = np.float32(1), found.layers[1]
    stored = {name.removeprefix("model.layers.1."): files.read(name) for name in files.entries if "layers.1." in name}
    np.testing.assert_array_equal(found.norm, one + files.read("model.norm.weight"))
    np.testing.assert_array_equal(layer.input_norm, one + stored["input_layernorm.weight"])
    np.testing.assert_array_equal(layer.post_attention_norm, one + stored["post_attention_layernorm.weight"])
    np.testing.assert_array_equal(layer.pre_feedforward_norm, one + stored["pre_feedforward_layernorm.weight"])
    np.testing.assert_array_equal(layer.post_feedforward_norm, one + stored["post_feedforward_layernorm.weight"])
    np.testing.assert_array_equal(layer.k_norm, one + stored["self_attn.k_norm.weight"])
    expected = (1 + stored["self_attn.q_norm.weight"].astype(np.float64)) * 24**-0.5
    np.testing.assert_allclose(layer.q_norm, expected, rtol=2e-7)
    assert layer.q_norm.dtype == layer.k_norm.dtype == np.float32
    assert layer.layer_scalar == 1.0 and layer.per_layer_gate is None and layer.experts is None


def test_a_scale_that_is_a_power_of_two_changes_no_rounding():
    files, found = Checkpoint(GOLDEN / "g3"), load(GOLDEN / "g3")
    stored = files.read("language_model.model.layers.0.self_attn.q_norm.weight")
    np.testing.assert_array_equal(found.layers[0].q_norm * np.float32(16), np.float32(1) + stored)


def test_files_whose_norms_are_complete_are_taken_as_they_are(monkeypatch):
    """As another container may have them; the packed weights that are kept are the same."""
    plain = load(GOLDEN / "g3-text")
    monkeypatch.setattr(Checkpoint, "norms_are_complete", True)
    found = load(GOLDEN / "g3-text")
    np.testing.assert_array_equal(found.norm + np.float32(1), plain.norm)
    np.testing.assert_array_equal(found.layers[0].k_norm + np.float32(1), plain.layers[0].k_norm)
    assert np.abs(found.layers[0].q_norm).max() < np.abs(plain.layers[0].q_norm).max()


def test_both_spellings_of_an_outer_model(tmp_path):
    """Released files begin with language_model.model, transformers' own names with model.language_model."""
    assert any(name.startswith("language_model.model.layers.") for name in Checkpoint(GOLDEN / "g3").entries)

    def change(name):
        if name.startswith("language_model.model."):
            return name.replace("language_model.model.", "model.language_model.", 1)
        return name if name.startswith("__") else f"model.{name}"

    folder = renamed(copy_of("g3", tmp_path), change)
    assert any(name.startswith("model.vision_tower.") for name in Checkpoint(folder).entries)
    one, other = load(GOLDEN / "g3"), load(folder)
    np.testing.assert_array_equal(one.embed.data, other.embed.data)
    np.testing.assert_array_equal(one.layers[3].qkv.data, other.layers[3].qkv.data)


def test_parts_for_pictures_and_a_repeated_head_are_skipped_and_nothing_else(tmp_path):
    names = Checkpoint(GOLDEN / "g3").entries
    assert any("vision_tower" in name for name in names) and any("multi_modal_projector" in name for name in names)
    folder = copy_of("g3", tmp_path)
    tower = "vision_tower.post_layernorm.bias"
    load(renamed(folder, lambda name: "language_model.lm_head.weight" if name == tower else name))
    renamed(
        folder, lambda name: "language_model.model.layers.0.layer_scalar" if name.endswith("lm_head.weight") else name
    )
    with pytest.raises(WeightsError, match=r"layers\.0\.layer_scalar is left over"):
        load(folder)


def test_a_text_config_over_files_of_an_outer_model(tmp_path):
    folder = copy_of("g3", tmp_path)
    outer = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(outer["text_config"]))
    with pytest.raises(WeightsError, match=r"model\.embed_tokens\.weight is missing"):
        load(folder)
