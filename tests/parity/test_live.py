"""The golden models against transformers itself, on fresh random prompts, where torch is installed."""

import importlib

import numpy as np
import pytest
from golden_models import ALONE, GOLDEN, NAMES, TOLERANCE, close, new_cache, run, target_of

torch = pytest.importorskip("torch", reason="torch is not installed; the committed goldens are compared instead")
pytest.importorskip("transformers", minversion="5.24")

pytestmark = pytest.mark.torch


@pytest.fixture
def maker(monkeypatch):
    """The module that makes goldens."""
    monkeypatch.syspath_prepend(str(GOLDEN))
    return importlib.import_module("make_goldens")


@pytest.fixture
def gemma3(maker):
    return importlib.import_module("make_gemma3")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [5, 33, 60])
def test_target_on_a_fresh_prompt(name, length, maker):
    with torch.no_grad():
        golden = maker.prompt_goldens(maker.SHAPES[name], *maker.load_pair(GOLDEN, name), length, seed=length)
    golden = {key.removeprefix(f"p{length}_"): value for key, value in golden.items()}
    same_rows(name, golden)


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("length", [5, 33, 60])
def test_gemma3_on_a_fresh_prompt(name, length, gemma3):
    with torch.no_grad():
        golden = gemma3.prompt_goldens(gemma3.load(gemma3.GOLDENS[name].model, GOLDEN / name), length, seed=length)
    same_rows(name, {key.removeprefix(f"p{length}_"): value for key, value in golden.items()})


def same_rows(name, golden):
    target = target_of(name, "native")
    hidden, logits = run(target, new_cache(target, "native"), golden["ids"])
    assert close(hidden, golden["hidden"]) < TOLERANCE
    assert close(logits, golden["logits"]) < TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_committed_goldens_are_what_transformers_gives(name, maker):
    stored, shape = np.load(GOLDEN / f"{name}.npz"), maker.SHAPES[name]
    with torch.no_grad():
        fresh = maker.prompt_goldens(shape, *maker.load_pair(GOLDEN, name), 45, shape.prompt_seeds[1])
    for key, value in fresh.items():
        assert close(value, stored[key]) < TOLERANCE, key


@pytest.mark.parametrize("name", ALONE)
def test_committed_goldens_of_gemma3_are_what_transformers_gives(name, gemma3):
    stored, golden = np.load(GOLDEN / f"{name}.npz"), gemma3.GOLDENS[name]
    with torch.no_grad():
        fresh = gemma3.prompt_goldens(gemma3.load(golden.model, GOLDEN / name), 45, golden.seed + 45)
    for key, value in fresh.items():
        assert close(value, stored[key]) < TOLERANCE, key
