"""The golden models against transformers itself, on fresh random prompts, where torch is installed."""

import importlib.util

import numpy as np
import pytest
from golden_models import GOLDEN, TOLERANCE, close, new_cache, pair, run

torch = pytest.importorskip("torch", reason="torch is not installed; the committed goldens are compared instead")
pytest.importorskip("transformers", minversion="5.24")

pytestmark = pytest.mark.torch


def reference_models(name):
    """transformers' target and drafter of a golden pair, in f32, and the module that makes goldens."""
    spec = importlib.util.spec_from_file_location("make_goldens", GOLDEN / "make_goldens.py")
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    shape = {"e2b": module.E2B, "e4b": module.E4B}[name]
    kind = {"e2b": module.Gemma4ForCausalLM, "e4b": module.Gemma4ForConditionalGeneration}[name]
    drafter = module.load(module.Gemma4AssistantForCausalLM, GOLDEN / f"{name}-assistant")
    return module, shape, module.load(kind, GOLDEN / name), drafter


@pytest.mark.parametrize("name", ["e2b", "e4b"])
@pytest.mark.parametrize("length", [5, 33, 60])
def test_target_on_a_fresh_prompt(name, length):
    module, shape, theirs, drafter = reference_models(name)
    with torch.no_grad():
        golden = module.prompt_goldens(shape, theirs, drafter, length, seed=length)
    golden = {key.removeprefix(f"p{length}_"): value for key, value in golden.items()}
    target = pair(name, "native")[0]
    hidden, logits = run(target, new_cache(target, "native"), golden["ids"])
    assert close(hidden, golden["hidden"]) < TOLERANCE
    assert close(logits, golden["logits"]) < TOLERANCE


def test_committed_goldens_are_what_transformers_gives():
    module, shape, theirs, drafter = reference_models("e2b")
    stored = np.load(GOLDEN / "e2b.npz")
    with torch.no_grad():
        fresh = module.prompt_goldens(shape, theirs, drafter, 45, shape.prompt_seeds[1])
    for key, value in fresh.items():
        assert close(value, stored[key]) < TOLERANCE, key
