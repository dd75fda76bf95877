"""Model folders to packed weights: what fits, every mismatch at once, damaged values."""

from dataclasses import replace

import numpy as np
import pytest
from checkpoints import GOLDEN, PACKABLE, copy_of, join, overwrite, save, split

from foretoken import config as configs
from foretoken import weights
from foretoken.errors import WeightsError
from foretoken.ops import reference
from foretoken.weights import pack
from foretoken.weights.formats import settled
from foretoken.weights.gemma4 import embed_scale, plan
from foretoken.weights.safetensors import Checkpoint

NAN_BF16, INFINITE_BF16 = b"\xc0\x7f", b"\x80\x7f"
FILE = "model.safetensors"


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETOKEN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def config_of(folder):
    is_drafter = folder.name.endswith("assistant")
    return configs.load_drafter_config(folder) if is_drafter else configs.load_target_config(folder)


def load(folder, format="f32", progress=None):
    return weights.load(folder, config_of(folder), format, reference, progress)


def refused(folder, *words, format="f32"):
    with pytest.raises(WeightsError) as caught:
        load(folder, format)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    return message


def change_header(folder, change):
    """`change` gets the header of the folder's one file and alters it."""
    header, data = split(folder / FILE)
    change(header)
    join(folder / FILE, header, data)


# What is loaded


def test_target():
    folder = GOLDEN / "e2b"
    config, files = config_of(folder), Checkpoint(folder)
    found, info = load(folder)
    np.testing.assert_array_equal(reference.unpack(found.embed), files.read("model.embed_tokens.weight"))
    assert (found.embed.n, found.embed.k) == (256, 64)
    assert found.per_layer_table.layout == "rows" and found.embed.layout == "panels"
    np.testing.assert_array_equal(found.norm, files.read("model.norm.weight"))
    assert found.embed_scale == 8.0
    assert len(found.layers) == len(config.layers)
    assert info.parameters == sum(np.prod(e.shape) for e in files.entries.values())
    assert info.warnings == () and not info.is_from_cache


def test_fused_rows_lie_in_the_order_of_their_names():
    folder = GOLDEN / "e2b"
    files, layers = Checkpoint(folder), load(folder)[0].layers
    parts = [files.read(f"model.layers.0.self_attn.{name}_proj.weight") for name in "qkv"]
    np.testing.assert_array_equal(reference.unpack(layers[0].qkv), np.concatenate(parts))
    parts = [files.read(f"model.layers.3.mlp.{name}_proj.weight") for name in ("gate", "up")]
    np.testing.assert_array_equal(reference.unpack(layers[3].gate_up), np.concatenate(parts))
    assert layers[0].k_norm.shape == (16,) and layers[2].q_norm.shape == (32,)
    assert layers[1].layer_scalar == files.read("model.layers.1.layer_scalar")[0]


def test_shared_layers_have_queries_only_though_the_file_has_more():
    folder = GOLDEN / "e4b"
    config, found = config_of(folder), load(folder)[0]
    for layer, own in zip(config.layers, found.layers, strict=True):
        kv_len = 0 if layer.is_shared else 2 * layer.num_kv_heads * layer.head_len
        assert own.qkv.n == layer.num_heads * layer.head_len + kv_len
        assert (own.k_norm is None) == layer.is_shared
    names = Checkpoint(folder).entries
    assert any("vision_tower" in name for name in names)
    assert any("layers.6.self_attn.k_proj" in name for name in names)


def test_drafter_head_in_cluster_order():
    folder = GOLDEN / "e2b-assistant"
    files, found = Checkpoint(folder), load(folder)[0]
    ids = files.read_ids("masked_embedding.token_ordering")
    assert found.token_ids.dtype == np.int32
    np.testing.assert_array_equal(found.token_ids, ids)
    np.testing.assert_array_equal(reference.unpack(found.head), files.read("model.embed_tokens.weight")[ids])
    assert found.centroids.n == 32
    assert found.layers[0].per_layer_gate is None


def test_keys_used_as_values_have_no_rows_of_values():
    folder = GOLDEN / "12b"
    config, found, files = config_of(folder), load(folder)[0], Checkpoint(folder)
    for layer, own in zip(config.layers, found.layers, strict=True):
        kv_len = layer.num_kv_heads * layer.head_len
        assert own.qkv.n == layer.num_heads * layer.head_len + (1 if layer.k_eq_v else 2) * kv_len
    assert not [name for name in files.entries if "layers.2.self_attn.v_proj" in name]
    assert any("vision_embedder" in name for name in files.entries)
    assert found.per_layer_table is None and found.layers[0].experts is None


def test_experts_are_stacked_by_rows_and_their_router_stays_f32():
    folder = GOLDEN / "26b"
    files, prefix = Checkpoint(folder), "model.language_model.layers.1."
    experts = load(folder)[0].layers[1].experts
    assert (experts.gate_up.n, experts.gate_up.k) == (8 * 32, 64) and (experts.down.n, experts.down.k) == (8 * 64, 16)
    for name, part in (("gate_up_proj", experts.gate_up), ("down_proj", experts.down)):
        stored = files.read(f"{prefix}experts.{name}")
        np.testing.assert_array_equal(reference.unpack(part), stored.reshape(-1, stored.shape[-1]))
    np.testing.assert_array_equal(experts.router_norm, files.read(f"{prefix}router.scale") / 8)
    np.testing.assert_array_equal(experts.scale, files.read(f"{prefix}router.per_expert_scale"))
    np.testing.assert_array_equal(experts.post_mlp_norm, files.read(f"{prefix}post_feedforward_layernorm_1.weight"))
    np.testing.assert_array_equal(experts.post_norm, files.read(f"{prefix}post_feedforward_layernorm_2.weight"))
    np.testing.assert_array_equal(experts.norm, files.read(f"{prefix}pre_feedforward_layernorm_2.weight"))
    small = load(folder, "q8")[0].layers[1]
    assert (small.experts.router.format, small.experts.down.format, small.qkv.format) == ("f32", "q8", "q8")


def test_dense_drafter_head():
    found = load(GOLDEN / "e4b-assistant")[0]
    assert found.token_ids is None and found.centroids is None
    expected = Checkpoint(GOLDEN / "e4b-assistant").read("model.embed_tokens.weight")
    np.testing.assert_array_equal(reference.unpack(found.head), expected)


@pytest.mark.parametrize(
    ("width", "bf16"), [(1536, 39.25), (2560, 50.5), (2816, 53.0), (3840, 62.0), (5376, 73.5), (384, 19.625)]
)
def test_embedding_scale_is_rounded_as_stored(width, bf16):
    assert embed_scale(width, "BF16") == bf16
    assert embed_scale(width, "F32") == float(np.float32(width**0.5))
    assert embed_scale(width, "F16") == float(np.float16(width**0.5))


@pytest.mark.parametrize("format", PACKABLE)
@pytest.mark.parametrize("name", ["e2b", "e4b", "e2b-assistant", "12b", "26b"])
def test_pieces_join_without_a_seam(name, format, monkeypatch):
    folder = GOLDEN / name
    config, files = config_of(folder), Checkpoint(folder)
    monkeypatch.setattr(pack, "PIECE_VALUES", 1)  # 16 rows a piece
    packer = pack.Packer(files, reference, lambda count: None)
    for part in settled(plan(config), format, files)[1]:
        if not part.is_packed:
            continue
        tensors = [files.read(tensor) for tensor in part.tensors]
        rows = np.concatenate([tensor.reshape(-1, tensor.shape[-1]) for tensor in tensors])
        rows = rows[files.read_ids(part.order)] if part.order else rows
        whole, made = reference.pack(rows, part.format, part.layout), packer.make(part)
        np.testing.assert_array_equal(made.data, whole.data, err_msg=part.name)
        np.testing.assert_array_equal(np.concatenate(list(packer.pieces(part))), whole.data, err_msg=part.name)
        assert (made.n, made.k) == (whole.n, whole.k)


def test_progress_ends_at_the_total():
    seen = []
    load(GOLDEN / "e2b-assistant", progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert (
        seen[-1][0]
        == seen[-1][1]
        == sum(
            Checkpoint(GOLDEN / "e2b-assistant").stored_bytes(n) for n in Checkpoint(GOLDEN / "e2b-assistant").entries
        )
    )


def test_unknown_config_fields_are_said_once(tmp_path):
    folder = copy_of("e2b", tmp_path)
    path = folder / "config.json"
    path.write_text(path.read_text().replace("{", '{"shiny_new_field": 1,', 1))
    [warning] = load(folder)[1].warnings
    assert "shiny_new_field" in warning


# What does not fit


def test_every_mismatch_is_listed_at_once_before_anything_is_read(tmp_path, monkeypatch):
    folder = copy_of("e2b", tmp_path)

    def change(header):
        header["model.layers.0.mlp.gate_proj.weight"]["shape"].reverse()
        header["model.surprise"] = header.pop("model.norm.weight")
        header["model.layers.1.layer_scalar"] |= {"dtype": "I16"}
        del header["model.layers.2.mlp.up_proj.weight"]

    change_header(folder, change)
    monkeypatch.setattr(Checkpoint, "read", lambda *_: pytest.fail("read too early"))
    refused(
        folder,
        "model.layers.0.mlp.gate_proj.weight has shape [64, 96], expected [96, 64]",
        "model.norm.weight is missing",
        "model.surprise is left over",
        "model.layers.1.layer_scalar has dtype I16, expected F32 or BF16 or F16",
        "model.layers.2.mlp.up_proj.weight is missing",
    )


def test_every_mismatch_of_experts_is_listed(tmp_path):
    folder, prefix = copy_of("26b", tmp_path), "model.language_model.layers.0."

    def change(header):
        header[prefix + "experts.down_proj"]["shape"] = [8, 16, 64]
        header[prefix + "experts.gate_up_proj.weight"] = header.pop(prefix + "experts.gate_up_proj")
        del header[prefix + "router.scale"]
        header["model.language_model.layers.2.self_attn.v_proj.weight"] = alias(header)

    change_header(folder, change)
    refused(
        folder,
        f"{prefix}experts.down_proj has shape [8, 16, 64], expected [8, 64, 16]",
        f"{prefix}experts.gate_up_proj is missing",
        f"{prefix}experts.gate_up_proj.weight is left over",
        f"{prefix}router.scale is missing",
        "model.language_model.layers.2.self_attn.v_proj.weight is left over",
    )


def test_an_expert_fills_whole_panels(tmp_path):
    folder = copy_of("26b", tmp_path)
    config = config_of(folder)
    config = replace(config, layers=tuple(replace(layer, expert_len=12) for layer in config.layers))

    def change(header):
        for name, entry in header.items():
            if "experts." in name:
                entry["shape"] = [8, 24, 64] if "gate_up" in name else [8, 64, 12]
                entry["data_offsets"][1] = entry["data_offsets"][0] + 2 * int(np.prod(entry["shape"]))

    change_header(folder, change)
    assert "layers.0.experts.gate_up_proj has 24 rows per expert, expected a multiple of 16" in refused_with(
        folder, config
    )


def test_a_wrong_shape_is_said_with_both(tmp_path):
    folder = copy_of("e2b", tmp_path)
    change_header(folder, lambda header: header["model.norm.weight"].update(shape=[2, 32]))
    refused(folder, "model.norm.weight has shape [2, 32], expected [64]")


def test_an_endless_list_is_cut(tmp_path):
    message = refused_with(GOLDEN / "e4b", config_of(GOLDEN / "e2b"))
    assert "more" in message and len(message) < 8000


def refused_with(folder, config):
    with pytest.raises(WeightsError) as caught:
        weights.load(folder, config, "f32", reference)
    return str(caught.value)


def test_files_of_another_model(tmp_path):
    assert "is missing" in refused_with(GOLDEN / "e2b-assistant", config_of(GOLDEN / "e2b"))
    assert "has shape" in refused_with(GOLDEN / "e4b-assistant", config_of(GOLDEN / "e2b-assistant"))


def test_a_clustered_head_without_its_clusters(tmp_path):
    folder = copy_of("e2b-assistant", tmp_path)
    change_header(folder, lambda header: [header.pop(name) for name in list(header) if "masked" in name])
    refused(folder, "masked_embedding.centroids.weight is missing", "masked_embedding.token_ordering is missing")


def test_a_repeated_tied_head_is_skipped(tmp_path):
    folder = copy_of("e2b", tmp_path)
    change_header(folder, lambda header: header.update({"lm_head.weight": alias(header)}))
    load(folder)


def alias(header):
    """An empty tensor: a place in the file that no other tensor claims."""
    end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    return {"dtype": "BF16", "shape": [0, 64], "data_offsets": [end, end]}


@pytest.mark.parametrize("value", [NAN_BF16, INFINITE_BF16], ids=["nan", "infinite"])
@pytest.mark.parametrize(
    "tensor",
    [
        "model.layers.0.self_attn.o_proj.weight",
        "model.layers.1.mlp.up_proj.weight",
        "model.embed_tokens_per_layer.weight",
        "model.layers.2.input_layernorm.weight",
        "model.layers.0.layer_scalar",
    ],
)
@pytest.mark.parametrize("format", ["f32", "q8"])
def test_a_value_that_is_no_number_is_named(tmp_path, tensor, value, format, cache_dir):
    folder = copy_of("e2b", tmp_path)
    overwrite(folder / FILE, tensor, value)
    refused(folder, tensor, "NaN or infinite", format=format)
    assert not [path for path in cache_dir.rglob("*") if path.name != "fingerprints.json"], "nothing half-written"


def test_a_value_that_q8_cannot_hold_is_named(tmp_path):
    folder = copy_of("e2b", tmp_path)
    overwrite(folder / FILE, "model.layers.1.mlp.down_proj.weight", b"\x7f\x7e")  # 8e37
    refused(folder, "model.layers.1.mlp.down_proj.weight", format="q8")
    load(folder, "f32")


@pytest.mark.parametrize("value", [-1, 256, 1 << 40, 7])
def test_token_ordering_must_be_a_permutation(tmp_path, value):
    folder = copy_of("e2b-assistant", tmp_path)
    tensor = "masked_embedding.token_ordering"
    at = int(np.flatnonzero(Checkpoint(folder).read_ids(tensor) != 7)[0])
    overwrite(folder / FILE, tensor, np.array([value], np.int64).tobytes(), index=at)
    refused(folder, tensor, "not a permutation")


def test_a_file_that_shrinks_while_it_is_loaded(tmp_path):
    folder = copy_of("e2b", tmp_path)
    files = Checkpoint(folder)
    save(folder / FILE, {"x": np.zeros(1, np.float32)})
    with pytest.raises(WeightsError, match="changed while"):
        files.read("model.embed_tokens_per_layer.weight")
