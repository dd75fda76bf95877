"""Drafters that know a part of the vocabulary: `head_vocab_size` and `head_token_ids`, read, checked and mapped."""

import json

import numpy as np
import pytest
from checkpoints import GOLDEN, copy_of, save

from foretoken import config as configs
from foretoken import weights
from foretoken.cache import Cache, PagePool, read_only_segments
from foretoken.errors import ConfigError, WeightsError
from foretoken.models.gemma4 import Gemma4
from foretoken.models.gemma4_assistant import Assistant
from foretoken.ops import native, reference
from foretoken.weights.safetensors import Checkpoint

HEAD, CLUSTERS = 192, 12
IDS = "head_token_ids"


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETOKEN_CACHE_DIR", str(tmp_path / "cache"))


def some_ids():
    return np.sort(np.random.default_rng(3).choice(256, HEAD, replace=False))


def short_head(tmp_path, clusters=CLUSTERS, ids=None, **changes):
    """The golden drafter of 256 tokens, cut down to some of them."""
    folder = copy_of("e2b-assistant", tmp_path)
    files, ids = Checkpoint(folder), some_ids() if ids is None else ids
    arrays = {
        name: files.read_ids(name) if entry.dtype == "I64" else files.read(name).reshape(entry.shape)
        for name, entry in files.entries.items()
    }
    arrays["model.embed_tokens.weight"] = arrays["model.embed_tokens.weight"][:HEAD]
    arrays[IDS] = ids.astype(np.int64)
    if clusters:
        arrays["masked_embedding.token_ordering"] = np.random.default_rng(4).permutation(HEAD)
        arrays["masked_embedding.centroids.weight"] = arrays["masked_embedding.centroids.weight"][:clusters]
    else:
        del arrays["masked_embedding.token_ordering"], arrays["masked_embedding.centroids.weight"]
    save(folder / "model.safetensors", {n: np.ascontiguousarray(a) for n, a in arrays.items()})
    data = json.loads((folder / "config.json").read_text())
    data |= {"head_vocab_size": HEAD, "use_ordered_embeddings": clusters > 0, "num_centroids": clusters or 32}
    (folder / "config.json").write_text(json.dumps(data | changes))
    return folder


def assistant_of(folder, ops):
    target_config = configs.load_target_config(GOLDEN / "e2b")
    target = Gemma4(target_config, weights.load(GOLDEN / "e2b", target_config, "f32", ops)[0], ops)
    config = configs.load_drafter_config(folder)
    assert configs.pairing_problems(target_config, config) == []
    return target, Assistant(config, weights.load(folder, config, "f32", ops)[0], target, ops)


@pytest.mark.parametrize("clusters", [0, CLUSTERS])
@pytest.mark.parametrize("ops", [native, reference])
def test_candidates_are_tokens_of_the_list_with_the_scores_of_their_rows(tmp_path, clusters, ops):
    folder = short_head(tmp_path, clusters)
    target, assistant = assistant_of(folder, ops)
    cache = Cache(PagePool(target.cache_layers, 64, 1, 64))
    cache.begin_pass(4)
    cache.end_pass()
    hidden = np.random.default_rng(0).normal(size=(1, 64)).astype(np.float32)
    (found,), _ = assistant.step(np.array([5], np.int32), hidden, read_only_segments([cache]))
    files, ids = Checkpoint(folder), some_ids()
    assert np.isin(found.ids, ids).all() and len(set(found.ids.tolist())) == len(found.ids)
    assert len(found.ids) == (HEAD if not clusters else 4 * HEAD // CLUSTERS)
    table = files.read("model.embed_tokens.weight")
    rows = table[np.searchsorted(ids, found.ids)]  # every logit is one row of the table times the same vector
    z = np.linalg.lstsq(rows, found.logits, rcond=None)[0]
    assert np.abs(rows @ z - found.logits).max() < 1e-3 * np.abs(found.logits).max()
    wrong = table[np.searchsorted(ids, np.roll(found.ids, 1))]
    assert np.abs(wrong @ np.linalg.lstsq(wrong, found.logits, rcond=None)[0] - found.logits).max() > 1e-2


def test_recorded_steps_give_what_plain_ones_give(tmp_path):
    """A dense short head hands out its list of ids, which a program may not overwrite."""
    target, assistant = assistant_of(short_head(tmp_path, 0), native)
    cache = Cache(PagePool(target.cache_layers, 64, 1, 64))
    cache.begin_pass(4)
    cache.end_pass()
    hidden = np.random.default_rng(0).normal(size=(1, 64)).astype(np.float32)
    inputs = np.array([5], np.int32), hidden, read_only_segments([cache])
    (plain,), _ = assistant.step(*inputs)
    for _ in range(3):
        with assistant.stepped(*inputs) as ((found,), _):
            np.testing.assert_array_equal(found.ids, some_ids())
            np.testing.assert_array_equal(found.logits, plain.logits)


@pytest.mark.parametrize("value", [0, -1, 257, "192", True])
def test_a_size_that_is_none(tmp_path, value):
    with pytest.raises(ConfigError, match="head_vocab_size"):
        configs.load_drafter_config(short_head(tmp_path, head_vocab_size=value))


def test_clusters_divide_the_head_not_the_vocabulary(tmp_path):
    with pytest.raises(ConfigError, match=r"num_centroids .* \(192\)"):
        configs.load_drafter_config(short_head(tmp_path, num_centroids=80))


def test_absent_means_all():
    config = configs.load_drafter_config(GOLDEN / "e2b-assistant")
    assert config.head_vocab_len == config.vocab_len == 256


@pytest.mark.parametrize(
    "ids",
    [np.arange(HEAD) + 65, np.arange(HEAD) - 1, np.zeros(HEAD), np.arange(HEAD)[::-1]],
    ids=["too large", "negative", "repeated", "descending"],
)
def test_a_list_of_tokens_that_is_none(tmp_path, ids):
    folder = short_head(tmp_path, ids=ids)
    with pytest.raises(WeightsError, match=f"{IDS} does not ascend"):
        weights.load(folder, configs.load_drafter_config(folder), "f32", reference)


def test_a_list_of_another_length(tmp_path):
    folder = short_head(tmp_path, ids=np.arange(HEAD + 1))
    with pytest.raises(WeightsError, match=rf"{IDS} has shape \[193\], expected \[192\]"):
        weights.load(folder, configs.load_drafter_config(folder), "f32", reference)


def test_a_list_without_a_size_is_left_over(tmp_path):
    folder = short_head(tmp_path, head_vocab_size=None, use_ordered_embeddings=False)
    with pytest.raises(WeightsError, match=f"{IDS} is left over"):
        weights.load(folder, configs.load_drafter_config(folder), "f32", reference)
