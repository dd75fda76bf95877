"""Checkpoints of compressed-tensors, written here with plain NumPy: read as they are, or refused with a reason."""

import json

import numpy as np
import pytest
from checkpoints import GOLDEN, copy_of, save

from foretoken import config as configs
from foretoken import weights
from foretoken.errors import ConfigError, WeightsError
from foretoken.ops import native, reference
from foretoken.weights.compressed import open_folder
from foretoken.weights.safetensors import Checkpoint


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETOKEN_CACHE_DIR", str(tmp_path / "cache"))


def settings(bits=4, group=32, format="pack-quantized", **changes):
    """A quantization_config as compressed-tensors writes it."""
    own = {
        "num_bits": bits, "type": "int", "symmetric": True, "group_size": group, "dynamic": False, "actorder": None,
        "strategy": "group" if group else "channel", "block_structure": None, "observer": "minmax",
    }  # fmt: skip
    group_0 = {"targets": ["Linear"], "weights": own, "input_activations": None, "output_activations": None}
    whole = {
        "quant_method": "compressed-tensors", "format": format, "quantization_status": "compressed",
        "config_groups": {"group_0": group_0}, "ignore": ["lm_head"], "kv_cache_scheme": None,
    }  # fmt: skip
    for name, value in changes.items():
        (own if name in own else group_0 if name in group_0 else whole)[name] = value
    return whole


def bf16(values):
    """float32 cut to bf16, as uint16."""
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def floats(stored):
    if stored.dtype == np.uint16:
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)


def int32_words(codes, bits):
    """Codes (N, K) from 0 on, the first in the lowest bits of the first word."""
    per_word = 32 // bits
    words = codes.reshape(len(codes), -1, per_word).astype(np.uint64) << (np.arange(per_word, dtype=np.uint64) * bits)
    return words.sum(-1).astype(np.uint32).view(np.int32)


def quantised(folder, bits=4, group=32, scale_dtype="bf16", is_packed=True, change=lambda arrays: None, **changes):
    """Layers of a golden model in whole numbers with scales, the rest as it was; gives {tensor: float32 values}."""
    rng, files, arrays, values = np.random.default_rng(7), Checkpoint(folder), {}, {}
    for name, entry in files.entries.items():
        if entry.dtype == "I64":
            arrays[name] = files.read_ids(name)
            continue
        stored = bf16(files.read(name))
        if "layers." not in name or len(entry.shape) != 2 or entry.shape[1] % 32:
            arrays[name], values[name] = stored, floats(stored)
            continue
        base, (rows, width) = name.removesuffix("weight"), entry.shape
        codes = rng.integers(-(1 << bits - 1), 1 << bits - 1, entry.shape)
        groups = width // group if group else 1
        scale = rng.uniform(0.001, 0.01, (rows, groups)).astype(np.float32)
        scale = {"bf16": bf16, "f16": np.float16, "f32": np.float32}[scale_dtype](scale)
        values[name] = (codes * np.repeat(floats(scale), width // groups, axis=1)).astype(np.float32)
        if is_packed:
            arrays[base + "weight_packed"] = int32_words(codes + (1 << bits - 1), bits)
            arrays[base + "weight_shape"] = np.array(entry.shape, np.int64)
        else:
            arrays[name] = codes.astype(np.int8)
        arrays[base + "weight_scale"] = scale
    change(arrays)
    save(folder / "model.safetensors", arrays)
    describe(folder, settings(bits, group, "pack-quantized" if is_packed else "int-quantized", **changes))
    return values


def describe(folder, quantization):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": quantization}))


def load(folder, format="auto", ops=native):
    return weights.load(folder, configs.load_target_config(folder), format, ops)


def refused(folder, *words):
    with pytest.raises((WeightsError, ConfigError)) as caught:
        load(folder)
    for word in words:
        assert word in str(caught.value)


def layer_values(folder, ops=reference):
    """{part: values that the kernels multiply by} of the first layer, in format auto, and the format's name."""
    packed, info = load(folder, "auto", ops)
    layer = packed.layers[0]
    return {"o": ops.unpack(layer.o), "down": ops.unpack(layer.down), "gate_up": ops.unpack(layer.gate_up)}, info


def expected_values(values):
    own = {name.split("layers.0.")[1]: value for name, value in values.items() if "layers.0." in name}
    gate_up = np.concatenate([own["mlp.gate_proj.weight"], own["mlp.up_proj.weight"]])
    return {"o": own["self_attn.o_proj.weight"], "down": own["mlp.down_proj.weight"], "gate_up": gate_up}


@pytest.fixture
def folder(tmp_path):
    return copy_of("e2b", tmp_path)


@pytest.mark.parametrize("ops", [reference, native])
@pytest.mark.parametrize("scale_dtype", ["bf16", "f16"])
@pytest.mark.parametrize("group", [32, None])
def test_four_bits_are_taken_as_they_are(folder, group, scale_dtype, ops):
    expected = expected_values(quantised(folder, group=group, scale_dtype=scale_dtype))
    found, info = layer_values(folder, ops)
    assert info.format == "q4" and info.warnings == ()
    for name, values in expected.items():
        assert np.array_equal(found[name], values), name


@pytest.mark.parametrize("is_packed", [True, False])
@pytest.mark.parametrize("group", [32, None])
def test_eight_bits_are_taken_as_they_are_but_for_the_lowest(folder, group, is_packed):
    values = quantised(folder, bits=8, group=group, is_packed=is_packed)
    found, info = layer_values(folder)
    assert info.format == "q8"
    assert len(info.warnings) == 1 and "-128" in info.warnings[0]
    for name, exact in expected_values(values).items():
        is_other = found[name] != exact
        assert 0 < is_other.mean() < 0.02  # one code of 256
        assert np.allclose(found[name][is_other] / exact[is_other], 127 / 128, rtol=1e-6)


@pytest.mark.parametrize("bits", [4, 8])
def test_groups_of_several_blocks(folder, bits):
    def only_wide(arrays):
        """Rows of 64 as one group."""
        for name in [name for name in arrays if name.endswith("weight_scale") and arrays[name].shape[1] % 2 == 0]:
            arrays[name] = np.ascontiguousarray(arrays[name][:, ::2])

    quantised(folder, bits, change=only_wide)
    files = open_folder(folder)
    name = next(n for n, e in files.entries.items() if e.dtype in ("Q4_0", "Q8_0") and e.shape[1] % 64 == 0)
    stored = Checkpoint(folder)
    scales = np.repeat(stored.read(name + "_scale"), 64, axis=1)
    assert np.array_equal(files.read(name), np.rint(files.read(name) / scales).astype(np.int8) * scales)
    assert load(folder)[1].format == f"q{bits}"


def test_rows_are_the_rows_of_the_whole(folder):
    values = quantised(folder)
    files = open_folder(folder)
    name = next(name for name in values if name.endswith("gate_proj.weight"))
    assert np.array_equal(files.read(name), values[name])
    for rows in (slice(3, 9), np.array([5, 0, 5])):
        assert np.array_equal(files.read(name, rows), values[name][rows])
        assert len(files.blocks(name, rows, "q4")) == len(values[name][rows])


def test_another_format_is_made_from_the_exact_values(folder):
    values = quantised(folder, scale_dtype="f32")
    packed, info = load(folder, "f32", reference)
    assert np.array_equal(reference.unpack(packed.layers[0].o), expected_values(values)["o"])
    assert info.format == "f32"


def test_scales_of_32_bits_are_rounded_to_16(folder):
    expected = expected_values(quantised(folder, scale_dtype="f32"))
    found, info = layer_values(folder)
    assert info.format == "q4"
    assert len(info.warnings) == 1 and "rounded to 16 bits" in info.warnings[0]
    for name, values in expected.items():
        assert np.allclose(found[name], values, rtol=2**-11, atol=0), name


@pytest.mark.parametrize("scale", [1e6, 3e-8])
def test_scales_that_16_bits_cannot_hold(folder, scale):
    def change(arrays):
        arrays["model.layers.0.self_attn.o_proj.weight_scale"][:] = bf16(scale)

    quantised(folder, change=change)
    refused(folder, "o_proj", "16 bits", "bf16")
    assert load(folder, "bf16")[1].format == "bf16"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scales_that_are_no_numbers(folder, value):
    def change(arrays):
        arrays["model.layers.0.self_attn.o_proj.weight_scale"][0, 0] = bf16(value)

    quantised(folder, change=change)
    refused(folder, "o_proj")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"symmetric": False}, ["symmetric", "True"]),
        ({"num_bits": 3}, ["num_bits", "4 or 8"]),
        ({"type": "float"}, ["type", "float"]),
        ({"strategy": "block"}, ["strategy"]),
        ({"actorder": "group"}, ["actorder"]),
        ({"dynamic": True}, ["dynamic"]),
        ({"kv_cache_scheme": {"num_bits": 8}}, ["kv_cache_scheme"]),
        ({"transform_config": {"config_groups": {}}}, ["transform_config"]),
        ({"sparsity_config": {"format": "sparse-24-bitmask"}}, ["sparsity_config"]),
        ({"input_activations": {"num_bits": 8, "dynamic": False}}, ["input_activations"]),
        ({"config_groups": []}, ["config_groups"]),
        ({"config_groups": {"group_0": 5}}, ["config_groups"]),
        ({"config_groups": {"group_0": {"weights": None}}}, ["weights"]),
        ({"quant_method": "gemma"}, ["quant_method", "gemma"]),
    ],
)
def test_what_our_grids_have_no_place_for(folder, changes, words):
    quantised(folder, **changes)
    refused(folder, *words, "not quantised" if "quant_method" not in changes else "compressed-tensors")


def test_activations_are_said_to_be_ours(folder):
    values = quantised(folder, bits=8, group=None, is_packed=False, input_activations={"num_bits": 8, "dynamic": True})
    assert any("activations" in sentence for sentence in layer_values(folder)[1].warnings)
    assert values


O_PROJ = "model.layers.0.self_attn.o_proj.weight"


@pytest.mark.parametrize(
    ("suffix", "array", "word"),
    [
        ("_zero_point", np.zeros((4, 1), np.int32), "zero_point"),
        ("_g_idx", np.zeros(4, np.int32), "g_idx"),
        ("_scale", None, "weight_scale"),
        ("_scale", np.zeros((3, 1), np.float32), "shape [3, 1]"),
        ("_scale", np.zeros((2, 2, 2), np.float32), "shape [2, 2, 2]"),
        ("_scale", np.zeros((4, 1), np.int32), "floats"),
        ("_shape", None, "weight_shape"),
        ("_shape", np.array([1 << 40, 1 << 40]), "4 or 8 bits"),
        ("_shape", np.array([-1, 0]), "4 or 8 bits"),
        ("_shape", np.zeros(3, np.int64), "weight_shape"),
        ("_packed", np.zeros((4, 4), np.int64), "I32"),
        ("_packed", np.zeros(4, np.int32), "I32"),
        ("_packed", np.zeros((4, 0), np.int32), "4 or 8 bits"),
        ("", np.zeros((4, 4), np.float32), "twice"),
    ],
)
def test_tensors_that_do_not_fit_each_other(folder, suffix, array, word):
    def change(arrays):
        arrays.pop(O_PROJ + suffix, None)
        if array is not None:
            arrays[O_PROJ + suffix] = array

    quantised(folder, change=change)
    refused(folder, "o_proj", word)


def test_a_group_of_less_than_a_block(folder):
    def change(arrays):
        arrays[O_PROJ + "_scale"] = np.repeat(arrays[O_PROJ + "_scale"], 2, axis=1)

    quantised(folder, change=change)
    refused(folder, "o_proj", "32")


def test_parts_for_pictures_are_skipped(folder):
    def change(arrays):
        arrays["model.vision_tower.a.weight_packed"] = np.zeros((2, 4), np.int32)
        arrays["model.vision_tower.a.weight_shape"] = np.array([2, 32])
        arrays["model.vision_tower.a.weight_scale"] = np.ones((2, 1), np.float16)

    quantised(folder, change=change)
    assert load(folder)[1].format == "q4"


def test_the_scale_of_the_embedding_is_that_of_its_dtype(folder):
    quantised(folder)
    assert load(folder)[0].embed_scale == load(GOLDEN / "e2b")[0].embed_scale


def test_a_quantised_model_is_written_anew_without_loss(folder, tmp_path):
    from foretoken.weights.quantize import quantize

    quantised(folder)
    config = configs.load_target_config(folder)
    files = open_folder(folder)
    quantize(folder, files, weights.fitting_plan(files, config), "q4", tmp_path / "out", native)
    copy = open_folder(tmp_path / "out")
    assert np.array_equal(copy.read(O_PROJ), files.read(O_PROJ))
