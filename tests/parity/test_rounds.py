"""The large kinds of model in real rounds: drafted text equals plain text, over windows, horizons and prompt chunks."""

import numpy as np
import pytest
from golden_models import OPS, pair
from toy import OracleDrafter

from foretoken import engine
from foretoken.cache import Cache
from foretoken.drafters.mtp import MtpDrafter
from foretoken.horizon import FixedHorizon
from foretoken.ops import native
from foretoken.sampling import Sampler, Sampling

PROMPT = [2, *range(5, 40)]
LENGTH = 90  # more than five windows, and past a page border


def write(name, horizon=0, drafter=None, chunk=64, temperature=0.0):
    target = pair(name, "native f16")[0]
    runner = engine.Engine(target, chunk)
    sequence = engine.Sequence(
        PROMPT,
        cache=Cache(runner.pool(LENGTH + 20)),
        sampler=Sampler(Sampling(temperature=temperature, seed=3), native, len(PROMPT)),
        drafter=drafter,
        horizon=FixedHorizon(horizon),
        end=LENGTH,
    )
    while not sequence.is_full:
        runner.step([sequence])
    return sequence


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", ["12b", "26b", "31b"])
def test_drafted_text_is_the_plain_text(name, temperature):
    plain = write(name, temperature=temperature)
    rng = np.random.default_rng(1)
    drafters = (
        MtpDrafter(pair(name, "native f16")[1]),
        OracleDrafter(plain.tokens, lambda position: rng.random() < 0.8),
    )
    for drafter in drafters:
        for horizon, chunk in ((1, 64), (4, 5), (16, 1)):
            found = write(name, horizon, drafter, chunk, temperature)
            assert found.tokens == plain.tokens, (drafter.name, horizon, chunk)
            assert found.stats.drafted > 0


def test_rows_of_experts_do_not_depend_on_their_neighbours():
    """The row rule where rows are grouped by expert: one pass of all rows, and one pass each."""
    target = pair("26b", "native f16")[0]
    rng = np.random.default_rng(2)
    x = rng.standard_normal((17, 64)).astype(np.float32)
    w, layer = target.weights.layers[1].experts, target.config.layers[1]
    ops = OPS["native f16"]
    scores = rng.standard_normal((17, layer.num_experts)).astype(np.float32)
    ids, weights = ops.route(scores, w.scale, layer.top_experts)
    whole = np.empty_like(x)
    ops.experts(x, ids, weights, w.gate_up, w.down, layer.num_experts, whole)
    for row in range(17):
        own, one = slice(row, row + 1), np.empty((1, 64), np.float32)
        again = ops.route(scores[own], w.scale, layer.top_experts)
        ops.experts(x[own], *again, w.gate_up, w.down, layer.num_experts, one)
        assert np.array_equal(one[0], whole[row])
