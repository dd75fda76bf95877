"""What is learned belongs to the weights that it was learned of, wherever they lie and whatever they are called."""

import gc
import os
import shutil
import sys

import pytest

import foretoken
from foretoken.api import ASSETS
from foretoken.horizon.chance import Weights
from foretoken.stats import TEXT_ITSELF


def files_after(folder, monkeypatch, model, drafter):
    """Names of the files that are kept once a model has written something and is gone."""
    monkeypatch.setenv("FORETOKEN_CACHE_DIR", str(folder))
    loaded = foretoken.load(model, drafter=drafter)
    assert loaded.generate("def add(a, b):", max_tokens=12, ignore_eos=True).stats.rounds
    del loaded
    gc.collect()
    return {path.name for path in folder.glob("horizon-*.json")}


@pytest.mark.parametrize("part", ["target", "drafter"])
def test_a_copy_is_known_and_other_weights_are_not(part, tmp_path, monkeypatch):
    cache, places = tmp_path / "cache", {"target": ASSETS / "target", "drafter": ASSETS / "drafter"}
    cache.mkdir()
    first = files_after(cache, monkeypatch, places["target"], places["drafter"])
    assert len(first) == 1
    places[part] = shutil.copytree(places[part], tmp_path / "copy" / part)
    assert files_after(cache, monkeypatch, places["target"], places["drafter"]) == first
    weights = places[part] / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2] ^= 1  # one bit of the last number
    weights.write_bytes(data)
    assert len(files_after(cache, monkeypatch, places["target"], places["drafter"])) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="other systems want names in UTF-8")
def test_a_folder_whose_name_is_no_text(tmp_path, monkeypatch):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/mod\xff")
    shutil.copytree(ASSETS / "target", folder)
    cache = tmp_path / "cache"
    cache.mkdir()
    assert len(files_after(cache, monkeypatch, folder, "suffix")) == 1


def test_models_begin_alike_whatever_they_are_called():
    assert Weights("code").values == Weights("mtp").values != Weights(TEXT_ITSELF).values
