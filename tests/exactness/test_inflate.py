"""An inflated pair is the small pair at another size: the same tokens, and as many of them a round."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import foretoken

ROOT = Path(__file__).parents[2]
PROMPTS = ["def add(a, b):\n    return", "In the beginning"]


@pytest.fixture(scope="module")
def inflate():
    spec = importlib.util.spec_from_file_location("inflate", ROOT / "bench/inflate.py")
    module = sys.modules["inflate"] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_same_text_and_acceptance(inflate, tmp_path, monkeypatch):
    """In f32 with 512 in place of 384 (s is no power of two), longer heads, more heads, layers and padding ids."""
    monkeypatch.setenv("FORETOKEN_CACHE_DIR", str(tmp_path / "cache"))
    shape = replace(inflate.MIDDLE, vocab=6144, num_heads=8)
    inflate.inflate(inflate.ASSETS, shape, tmp_path, "F32")
    small = foretoken.load(drafter=inflate.ASSETS / "drafter", format="f32", drafter_format="f32")
    folders = tmp_path / "target", tmp_path / "drafter"
    large = foretoken.load(folders[0], drafter=folders[1], format="f32", drafter_format="f32")
    for prompt in PROMPTS:
        options = {"max_tokens": 24, "temperature": 0.0, "horizon": 4}
        expected, got = small.generate(prompt, **options), large.generate(prompt, **options)
        assert got.tokens == expected.tokens
        assert got.stats.accepted == expected.stats.accepted > 0


def test_released_shapes_take_every_layer(inflate):
    """Donors land on donors, and every layer of the pair on one of its own sort."""
    small = inflate.target_config(json.loads((inflate.ASSETS / "target/config.json").read_text()))
    for name, donors in (("e2b", {"sliding": 13, "full": 14}), ("e4b", {"sliding": 22, "full": 23})):
        large = inflate.target_config(inflate.target_json(inflate.SHAPES[name]))
        places = inflate.layer_places(small, large)
        assert large.donor == donors
        assert [places[small.donor[kind]] for kind in donors] == list(donors.values())
        assert len(set(places)) == len(places)
        for place, layer in zip(places, small.layers, strict=True):
            assert (large.layers[place].kind, large.layers[place].is_shared) == (layer.kind, layer.is_shared)
