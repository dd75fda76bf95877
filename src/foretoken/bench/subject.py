"""What is measured: a target with its drafter, loaded from a folder or built in a shape, and sequences over it.

Needs no tokenizer: prompts are token ids, answers are counted and never shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foretoken import engine
from foretoken.api import Model
from foretoken.bench.matrices import matrices
from foretoken.cache import Cache, PagePool
from foretoken.drafters.choice import Choice
from foretoken.drafters.mtp import MtpDrafter
from foretoken.drafters.protocol import Draft, Drafter
from foretoken.errors import DraftError, InputError
from foretoken.horizon import MAX_HORIZON, FixedHorizon
from foretoken.models.gemma4 import Gemma4
from foretoken.ops import PAGE
from foretoken.sampling import Sampler, Sampling
from foretoken.weights.gemma4 import plan

GREEDY = Sampling(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, seed=0)
CHUNK = 512  # prompt rows a pass, the default of `foretoken.load`
MAX_ROWS = MAX_HORIZON + 1
MOST_READ = 2048  # tokens of context that are really read
ROOM = 2 * MAX_ROWS  # tokens that a round may add before it is undone


@dataclass(frozen=True)
class Subject:
    """A pair under measurement.

    parameters    of the target, as files would store them
    packed_bytes  of target and drafter in memory, without a mapped table
    table_bytes   of the target's mapped per-layer table; 0 where there is none
    """

    name: str
    format: str
    target: Gemma4
    drafter: Drafter | None
    parameters: int
    packed_bytes: int
    table_bytes: int

    def prompt(self, length: int, seed: int = 0) -> list[int]:
        """So many random token ids."""
        rng = np.random.default_rng(seed)
        return [int(token) for token in rng.integers(0, self.target.config.vocab_len, length)]

    def check_context(self, what: str, asked: int, beside: int) -> None:
        """Raise InputError where the model has no room for what was asked, an option's value, and `beside` tokens."""
        check_context(self.name, self.target.config.max_positions, what, asked, beside)

    def sequence(self, prompt: Sequence[int], pool: PagePool, horizon: int = 0, new_tokens: int = 1) -> engine.Sequence:
        """A greedy sequence that has read nothing yet."""
        return engine.Sequence(
            prompt,
            cache=Cache(pool),
            sampler=Sampler(GREEDY, self.target.ops, len(prompt)),
            drafter=self.drafter,
            horizon=FixedHorizon(horizon),
            end=len(prompt) + new_tokens,
        )


class Rounds:
    """One sequence after `context` random tokens, playing single rounds again and again from the same place.

    Everything goes through the engine's own step, so what is timed is what decoding pays. Of a long context only the
    end is read; before it the cache holds noise, which costs the same to attend to.
    """

    def __init__(self, subject: Subject, context: int) -> None:
        subject.check_context("context", context, ROOM)
        self._runner = engine.Engine(subject.target, CHUNK)
        pool = self._runner.pool(context + ROOM)
        self.sequence = subject.sequence(subject.prompt(context), pool, new_tokens=ROOM)
        if context > MOST_READ:
            _fill(self.sequence.cache, context - CHUNK)
        while self.sequence.is_reading:
            self._step()
        self._drafter = subject.drafter
        self._forced = _Forced(subject.prompt(MAX_ROWS, seed=1))
        self._start = len(self.sequence.tokens), self.sequence.cache.length, self.sequence.hidden

    def verify(self, rows: int) -> float:
        """Seconds of the target's pass in a round of so many rows, with the logits of them all."""
        if not 1 <= rows <= MAX_ROWS:
            raise InputError(f"{rows} rows a pass, expected 1 to {MAX_ROWS}.")
        return self._play(self._forced, rows - 1)[1]

    def draft(self, count: int) -> float:
        """Seconds in which the subject's drafter guesses `count` tokens, right after a pass that verified as many."""
        self._play(self._drafter, count)
        return self._play(self._drafter, count)[0]

    def _play(self, drafter: Drafter | None, count: int) -> tuple[float, float]:
        """(seconds of drafting, seconds of the pass) of one round, which is undone."""
        sequence = self.sequence
        sequence.drafter, sequence.horizon = drafter, FixedHorizon(count)
        before = sequence.stats.draft_s, sequence.stats.verify_s
        self._step()
        seconds = sequence.stats.draft_s - before[0], sequence.stats.verify_s - before[1]
        num_tokens, length, sequence.hidden = self._start
        sequence.cache.roll_back(sequence.cache.length - length)
        del sequence.tokens[num_tokens:]
        return seconds

    def _step(self) -> None:
        self._runner.step([self.sequence])
        if self.sequence.error is not None:
            raise self.sequence.error
        if self.sequence.stats.drafter_error is not None:
            raise DraftError(self.sequence.stats.drafter_error)


def _fill(cache: Cache, length: int) -> None:
    """Make the cache `length` positions long with noise for keys and values."""
    rng, pool = np.random.default_rng(0), cache.pool
    noise = {
        index: rng.standard_normal(keys[0].shape, dtype=np.float32).astype(np.float16)
        for index, keys in pool.keys.items()
    }
    while cache.length < length:
        rows = min(pool.pass_rows, length - cache.length)
        cache.begin_pass(rows)
        for kind, table in cache.tables.items():
            for page in table[cache.length // PAGE : -(-(cache.length + rows) // PAGE)]:
                for index, layer in pool.layers.items():
                    if layer.kind == kind:
                        pool.keys[index][page] = noise[index]
                        pool.values[index][page] = noise[index].reshape(pool.values[index][page].shape)
        cache.end_pass()


class _Forced:
    """Guesses the same tokens every time, at no cost."""

    name = "forced"

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = list(tokens)

    def propose(self, states: Sequence[Any], limits: Sequence[int]) -> list[Draft]:
        return [Draft(self._tokens[:limit], [1.0] * limit) for limit in limits]


def check_context(name: str, context_len: int, what: str, asked: int, beside: int) -> None:
    """The same for any model, by name and context."""
    most = context_len - beside
    if not 1 <= asked <= most:
        raise InputError(
            f"{what} is {asked}, expected 1 to {most}: {name} has room for {context_len} tokens, "
            f"{beside} of it for what is written afterwards."
        )


def loaded(model: Model) -> Subject:
    """A model from a folder, as `foretoken.load` gives it."""
    info = model.info()
    table = model.target.weights.per_layer_table
    is_mapped = any(part.is_mapped for part in plan(model.target.config))
    table_bytes = table.data.nbytes if is_mapped else 0
    drafter, drafter_bytes = model.drafter, 0
    if isinstance(drafter, Choice):  # measured is its first model
        drafter = next(iter(drafter.models.values()))
    if isinstance(drafter, MtpDrafter):
        drafter_bytes = sum(matrix.data.nbytes for _, matrix in matrices(drafter.assistant.weights))
    return Subject(
        name=info["model"],
        format=info["format"],
        target=model.target,
        drafter=drafter,
        parameters=info["parameters"],
        packed_bytes=info["packed_bytes"] - table_bytes + drafter_bytes,
        table_bytes=table_bytes,
    )
