"""The tiny golden models, loaded with one set of ops or another, and how closeness is measured."""

from functools import cache
from pathlib import Path

import numpy as np

from foretoken import config as configs
from foretoken import weights
from foretoken.cache import Cache, PagePool, segments
from foretoken.models.gemma4 import Gemma4
from foretoken.models.gemma4_assistant import Assistant
from foretoken.ops import native, reference

GOLDEN = Path(__file__).parent.parent / "golden"
TOLERANCE = 1e-4
F16_TOLERANCE = 4e-3  # the same rounding inside transformers moves these goldens by 2.7e-3 of the largest


class _F32Pages:
    """The native ops, but keys and values are stored and read by the twins, which take pages of any dtype."""

    def __getattr__(self, name):
        return getattr(reference if name in ("append_kv", "attention") else native, name)


OPS = {"native f16": native, "native": _F32Pages(), "twins": reference}
NAMES = ("e2b", "e4b", "12b", "26b", "31b")
ALONE = ("g3-text", "g3")  # targets without a drafter


@cache
def target_of(name, ops_name):
    config = configs.load_target_config(GOLDEN / name)
    return Gemma4(config, weights.load(GOLDEN / name, config, "f32", OPS[ops_name])[0], OPS[ops_name])


@cache
def pair(name, ops_name):
    target, config = target_of(name, ops_name), configs.load_drafter_config(GOLDEN / f"{name}-assistant")
    assert configs.pairing_problems(target.config, config) == []
    drafter_weights = weights.load(GOLDEN / f"{name}-assistant", config, "f32", OPS[ops_name])[0]
    return target, Assistant(config, drafter_weights, target, OPS[ops_name])


def new_cache(target, ops_name):
    """An empty cache with f16 pages, or f32 pages where the twins read them."""
    pool = PagePool(target.cache_layers, 64, 1, 64)
    if ops_name != "native f16":
        pool.keys = {layer: keys.astype(np.float32) for layer, keys in pool.keys.items()}
        pool.values = {layer: values.astype(np.float32) for layer, values in pool.values.items()}
    return Cache(pool)


def arrays(name, length):
    data = np.load(GOLDEN / f"{name}.npz")
    prompt = f"p{length}"
    return {key.removeprefix(prompt + "_"): data[key] for key in data.files if key.startswith(prompt)}


def run(target, cache_, ids):
    """Hidden rows (T, D) and logits (T, V) of all rows of one pass."""
    cache_.begin_pass(len(ids))
    rows = np.arange(len(ids), dtype=np.int32)
    hidden = target.forward(ids.astype(np.int32), segments([cache_], [len(ids)]), rows)
    cache_.end_pass()
    return hidden, target.logits(hidden)


def tolerance(ops_name):
    return F16_TOLERANCE if ops_name == "native f16" else TOLERANCE


def close(got, expected):
    finite = np.isfinite(expected)
    assert np.array_equal(finite, np.isfinite(got))
    return np.abs(got[finite] - expected[finite]).max() / np.abs(expected[finite]).max()
