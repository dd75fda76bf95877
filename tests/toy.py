"""A toy target and drafters with a real cache and no weights: the whole round can be tested in seconds.

The toy target writes each token id into the pages and reads the visible ones back, so its logits depend on exactly
what attention would see: a page dropped too early, a rejected row left behind or a wrong window changes the text.
"""

import zlib
from contextlib import contextmanager

import numpy as np

from foretoken import engine
from foretoken.cache import PAGE, Cache, CacheLayer
from foretoken.drafters.protocol import Draft
from foretoken.horizon import FixedHorizon
from foretoken.ops import native
from foretoken.sampling import Sampler, Sampling

VOCAB = 12
WINDOW = 24
FULL, SLIDING = 1, 0
PROMPT = [1, 5, 2, 7, 7, 3]
LENGTH = 150  # more than six windows, and past two page borders


class ToyTarget:
    """Logits of a row = a table entry chosen by the tokens it sees: all of them, and those of the window."""

    def __init__(self, vocab=VOCAB, sharpness=2.0):
        self.vocab = vocab
        self.sharpness = sharpness
        self.cache_layers = [CacheLayer(SLIDING, "sliding", 1, 1, WINDOW), CacheLayer(FULL, "full", 1, 1, None)]

    def forward(self, ids, segments, keep):
        pool = segments.pool
        for layer, kind in ((SLIDING, "sliding"), (FULL, "full")):
            view = segments.views[kind]
            for row, token in enumerate(ids):
                segment, position = view.row_segment[row], view.positions[row]
                page = view.tables[segment, position // PAGE]
                pool.keys[layer][page, 0, position % PAGE // 16, 0, position % 16] = token
        rows = [
            self.row(self._seen(segments, "sliding", SLIDING, r), self._seen(segments, "full", FULL, r)) for r in keep
        ]
        return np.array(rows, dtype=np.float32).reshape(len(keep), self.vocab)

    @contextmanager
    def scored(self, ids, segments, keep):
        rows = self.forward(ids, segments, keep)
        yield rows, rows

    def row(self, near, far):
        """(V,) logits from the tokens in the window and the tokens in all, newest last."""
        key = zlib.crc32(np.array([*near, -1, *far[:3], far[-1]], dtype=np.int32).tobytes())
        return np.random.default_rng(key).normal(size=self.vocab).astype(np.float32) * self.sharpness

    @staticmethod
    def _seen(segments, kind, layer, row):
        view, keys = segments.views[kind], segments.pool.keys[layer]
        table = view.tables[view.row_segment[row]]
        seen = []
        for position in range(view.begin[row], view.end[row]):
            page = table[position // PAGE]
            assert page >= 0, f"position {position} of the {kind} layer was dropped but is visible"
            seen.append(int(keys[page, 0, position % PAGE // 16, 0, position % 16]))
        return seen


class OracleDrafter:
    """Knows the plain answer and is wrong exactly where `pattern` says so: pattern(position) -> agrees."""

    name = "oracle"

    def __init__(self, answer, pattern):
        self.answer = answer  # prompt and plain answer together
        self.pattern = pattern

    def propose(self, states, limits):
        return [self.guess(len(state.tokens), limit) for state, limit in zip(states, limits, strict=True)]

    def guess(self, start, limit):
        tokens = []
        for position in range(start, start + limit):
            right = self.answer[position] if position < len(self.answer) else 0
            tokens.append(right if self.pattern(position) else (right + 1) % VOCAB)
        return Draft(tokens, [1.0] * limit)


def sequence(runner, pool, prompt=PROMPT, horizon=0, drafter=None, end=LENGTH, temperature=0.0, seed=3, **penalties):
    return engine.Sequence(
        prompt,
        cache=Cache(pool),
        sampler=Sampler(Sampling(temperature=temperature, seed=seed, **penalties), native, len(prompt)),
        drafter=drafter,
        horizon=FixedHorizon(horizon),
        end=end,
    )


def write(chunk=512, target=None, **options):
    runner = engine.Engine(target or ToyTarget(), chunk)
    s = sequence(runner, runner.pool(LENGTH + 20), **options)
    while not s.is_full:
        runner.step([s])
    return s
