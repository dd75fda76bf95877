"""The drafter in torch and in the runtime are one: same logits, same hidden rows, over every kind of target."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from golden_models import GOLDEN, new_cache, pair, target_of  # noqa: E402

from foretoken import config as configs  # noqa: E402
from foretoken import weights  # noqa: E402
from foretoken.cache import read_only_segments, segments  # noqa: E402
from foretoken.distill import folder, model, shape, start  # noqa: E402
from foretoken.models.gemma4_assistant import Assistant  # noqa: E402
from foretoken.ops import native  # noqa: E402

pytestmark = pytest.mark.torch
OPS, LENGTH, STEPS = "native f16", 40, 3


def read_text(target, length):
    """A cache of `length` random tokens, hidden rows of all of them, and the next token."""
    rng = np.random.default_rng(length)
    ids = rng.integers(0, target.config.vocab_len, length + 1).astype(np.int32)
    cache = new_cache(target, OPS)
    cache.begin_pass(length)
    hidden = target.forward(ids[:-1], segments([cache], [length]), np.arange(length, dtype=np.int32))
    cache.end_pass()
    return cache, hidden, ids[-1:]


def torch_steps(w, config, target, cache, hidden, token, tokens):
    """What torch makes of the same: candidate scores (dense, by head row) and hidden rows of each step."""
    bonus = torch.tensor([[cache.length]])
    stored = {}
    for kind in {layer.kind for layer in config.layers}:
        donor = target.config.donor[kind]
        window = target.config.layers[donor].window
        first = max(cache.length - window, 0) if window else 0
        pair_ = [np.zeros((cache.length, *x.shape[1:]), np.float32) for x in cache.read(donor, first, cache.length)]
        for whole, own in zip(pair_, cache.read(donor, first, cache.length), strict=True):
            whole[first:] = own
        stored[kind] = tuple(torch.from_numpy(x).transpose(0, 1)[None] for x in pair_)
    rotated, seen = model.rotations(config, bonus), model.masks(config, bonus, cache.length)
    row, found = torch.from_numpy(hidden)[None, None], []
    for fed in [token, *tokens]:
        embedded = torch.from_numpy(target.embed(np.array([fed], np.int32)))[None]
        z, row = model.step(w, config, embedded, row, rotated, seen, stored)
        found.append((z[0] @ w[model.TABLE].T, model.guesses(w, config, z[0]), row[0, 0]))
    return found


def check_same(w, config, target, assistant):
    cache, hidden, token = read_text(target, LENGTH)
    fed, row, ours, tokens = token, hidden[-1:].copy(), [], []
    for _ in range(STEPS):
        (candidates,), row = assistant.step(fed, row, read_only_segments([cache]))
        best = int(candidates.logits.argmax())
        fed = np.array([best if candidates.ids is None else candidates.ids[best]], np.int32)
        ours.append((candidates, int(fed[0]), row[0]))
        tokens.append(int(fed[0]))
    ids = folder.ids_of(w, config.vocab_len)
    theirs = torch_steps(w, config, target, cache, hidden[-1], int(token[0]), tokens[:-1])
    for (candidates, token_, row_), (scores, guess, torch_row) in zip(ours, theirs, strict=True):
        own = np.arange(config.vocab_len) if candidates.ids is None else candidates.ids
        scores = dict(zip(ids.tolist(), scores[0].tolist(), strict=True))
        expected = np.array([scores[token] for token in own.tolist()])
        scale = np.abs(expected).max()
        assert np.abs(candidates.logits - expected).max() < 1e-4 * scale
        assert np.abs(row_ - torch_row.numpy()).max() < 1e-4 * np.abs(row_).max()
        assert ids[guess[0]] == token_


@pytest.mark.parametrize("name", ["e2b", "26b", "31b"])
def test_a_given_drafter(name):
    target, assistant = pair(name, OPS)
    check_same(start.given(GOLDEN / f"{name}-assistant"), assistant.config, target, assistant)


@pytest.mark.parametrize("sizes", [{}, {"head_vocab": 96, "clusters": 12}, {"head_vocab": 96, "clusters": 0}])
@pytest.mark.parametrize("name", ["e2b", "26b", "g3"])
def test_a_new_drafter_as_it_is_written(name, sizes, tmp_path, monkeypatch):
    monkeypatch.setenv("FORETOKEN_CACHE_DIR", str(tmp_path / "cache"))
    target = target_of(name, OPS)
    data = shape.config_data(target.config, shape.Sizes(hidden=32, layers=2, mlp=32, **sizes))
    config = shape.checked(target.config, data)
    w = random_weights(config, len(name))
    folder.write(tmp_path, data, {}, w)
    assert json.loads((tmp_path / "config.json").read_text()) == data
    read = configs.load_drafter_config(tmp_path)
    assistant = Assistant(read, weights.load(tmp_path, read, "f32", native)[0], target, native)
    check_same(start.given(tmp_path), config, target, assistant)


def random_weights(config, seed):
    """Rounded to bf16, so that writing loses nothing."""
    generator = torch.Generator().manual_seed(seed)

    def some(*size):
        return torch.randn(size, generator=generator).bfloat16().float()

    width, head = config.hidden_len, config.head_vocab_len
    w = {
        model.TABLE: some(head, width),
        "model.norm.weight": some(width),
        "pre_projection.weight": some(width, 2 * config.backbone_len),
        "post_projection.weight": some(config.backbone_len, width),
    }
    for i, layer in enumerate(config.layers):
        p, q_len = f"model.layers.{i}.", layer.num_heads * layer.head_len
        for name, size in (
            ("self_attn.q_proj", (q_len, width)),
            ("self_attn.o_proj", (width, q_len)),
            ("self_attn.q_norm", (layer.head_len,)),
            ("mlp.gate_proj", (layer.mlp_len, width)),
            ("mlp.up_proj", (layer.mlp_len, width)),
            ("mlp.down_proj", (width, layer.mlp_len)),
            ("input_layernorm", (width,)),
            ("post_attention_layernorm", (width,)),
            ("pre_feedforward_layernorm", (width,)),
            ("post_feedforward_layernorm", (width,)),
        ):
            w[f"{p}{name}.weight"] = some(*size)
        w[p + "layer_scalar"] = some(1)
    if config.num_clusters:
        w[model.ORDERING] = torch.randperm(head, generator=generator)
        w[model.CENTROIDS] = some(config.num_clusters, width)
    if head < config.vocab_len:
        w[model.HEAD_IDS] = torch.randperm(config.vocab_len, generator=generator)[:head].sort().values
    return w
