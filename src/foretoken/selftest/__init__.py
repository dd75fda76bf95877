"""Compares plain and drafted decoding on this machine: same tokens, whatever the horizon, threads, chunking, drafter,
temperature and instruction set (design promise P1). One different token is a fault of Foretoken, never of the user.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from foretoken.api import Model, Request
from foretoken.drafters.protocol import Draft, Drafter
from foretoken.horizon import MAX_HORIZON
from foretoken.ops import native
from foretoken.sampling import Sampling

CHUNKS = (1, 7, 512)
THREADS = (1, 2)
TEMPERATURES = (0.0, 1.0)
ORDER_SEED = 7
CASE_TOKENS = 100  # tokens compared per case; enough rounds for every kind of roll-back
SLOW_SHARE = 0.15  # share of cases on instruction sets other than the best: they are slower, and must be few


@dataclass(frozen=True)
class Case:
    """One way of decoding that must give the tokens of plain decoding."""

    horizon: int
    threads: int
    chunk: int
    temperature: float
    isa: str
    drafter: str  # "mtp", or "wrong": guesses that mostly disagree, so that every kind of roll-back happens
    prompt: int
    compared: int = 0
    different: int = 0


class WrongDrafter:
    """Guesses right by luck only: tokens by a fixed rule from the position."""

    name = "wrong"

    def __init__(self, vocab_len: int) -> None:
        self._vocab_len = vocab_len

    def propose(self, states: Sequence[Any], limits: Sequence[int]) -> list[Draft]:
        """`limits[i]` tokens that have nothing to do with the text of `states[i]`."""
        return [self._guess(len(state.tokens), limit) for state, limit in zip(states, limits, strict=True)]

    def _guess(self, start: int, limit: int) -> Draft:
        tokens = [position * 2654435761 % self._vocab_len for position in range(start, start + limit)]
        return Draft(tokens, np.zeros(limit, dtype=np.float32))


class _Runner:
    """Decodes one case, and remembers plain answers: one thread, the whole prompt at once, no drafts."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.drafters: dict[str, Drafter | None] = {
            "mtp": model.drafter,
            "wrong": WrongDrafter(model.target.config.vocab_len),
        }
        self.prompts = _prompts(model)
        self._plain: dict[tuple[int, float], list[int]] = {}

    def tokens(self, case: Case, count: int) -> list[int]:
        """The first `count` tokens of the case's answer; stop ids are written through."""
        native.set_isa(case.isa)
        native.set_threads(case.threads)
        sampling = Sampling(temperature=case.temperature, seed=11 + case.prompt)
        drafter = self.drafters[case.drafter]
        request = Request(self.prompts[case.prompt], sampling, count, case.horizon, ignore_eos=True)
        stream = self.model.start(request, case.chunk, drafter)
        for _ in stream:
            pass
        return stream.result.tokens

    def plain(self, case: Case, count: int, isa: str) -> list[int]:
        key = (case.prompt, case.temperature)
        if key not in self._plain:
            self._plain[key] = self.tokens(replace(case, horizon=0, threads=1, chunk=512, isa=isa), count)
        return self._plain[key]


def run(model: Model, tokens: int, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Compare at least `tokens` tokens over cases that are the same every time.

    returns  compared, different, cases (one dict per case), plain (how the reference answers were made)
    """
    isas = native.isas()
    was = native.isa(), native.threads()
    runner = _Runner(model)
    num_cases = max(MAX_HORIZON + 1, -(-tokens // CASE_TOKENS))
    cases = _cases(isas, len(runner.prompts), model.drafter is not None, num_cases)
    count = -(-tokens // num_cases)
    done, rows = 0, []
    try:
        for case in cases:
            expected = runner.plain(case, count, isas[-1])
            got = runner.tokens(case, len(expected))
            different = sum(a != b for a, b in zip(expected, got, strict=False)) + abs(len(expected) - len(got))
            rows.append(replace(case, compared=len(expected), different=different))
            done += len(expected)
            if progress is not None:
                progress(min(done, tokens), tokens)
    finally:
        native.set_isa(was[0])
        native.set_threads(was[1])
    return {
        "compared": sum(row.compared for row in rows),
        "different": sum(row.different for row in rows),
        "cases": [asdict(row) for row in rows],
        "plain": {"horizon": 0, "threads": 1, "chunk": 512, "isa": isas[-1]},
    }


def _cases(isas: Sequence[str], num_prompts: int, has_drafter: bool, count: int) -> list[Case]:
    """`count` cases by a fixed seed: every horizon in turn, everything else drawn."""
    draw = random.Random(ORDER_SEED)
    names = ("mtp", "mtp", "wrong") if has_drafter else ("wrong",)
    cases = []
    for i in range(count):
        is_slow = len(isas) > 1 and draw.random() < SLOW_SHARE
        case = Case(
            horizon=i % (MAX_HORIZON + 1),
            threads=draw.choice(THREADS),
            chunk=draw.choice(CHUNKS),
            temperature=draw.choice(TEMPERATURES),
            isa=draw.choice(isas[:-1]) if is_slow else isas[-1],
            drafter=draw.choice(names),
            prompt=draw.randrange(num_prompts),
        )
        cases.append(case)
    return cases


def _prompts(model: Model) -> list[list[int]]:
    """A short one, one that a drafter likes, and one longer than a sliding window (cut to half the context)."""
    texts = [
        "In the beginning",
        "def add(a, b):\n    return a + b\n\n\ndef add_all(values):\n    total = 0\n",
        "The list goes on: " + " ".join(f"item {i} is number {i * i}," for i in range(200)),
    ]
    longest = max((layer.window or 0) for layer in model.target.config.layers) + 40
    limit = min(longest, model.context_len // 2)
    return [model.tokenizer.encode(text, add_bos=True)[:limit] for text in texts]
