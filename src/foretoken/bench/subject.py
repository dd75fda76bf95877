"""What is measured: a target with its drafter, loaded from a folder or built in a shape, and sequences over it.

Needs no tokenizer: prompts are token ids, answers are counted and never shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foretoken import engine
from foretoken.api import Model
from foretoken.bench.matrices import matrices
from foretoken.cache import Cache, PagePool, Segments, segments
from foretoken.drafters.mtp import MtpDrafter
from foretoken.drafters.protocol import Drafter
from foretoken.errors import InputError
from foretoken.horizon import FixedHorizon
from foretoken.models.gemma4 import Gemma4
from foretoken.sampling import Sampler, Sampling
from foretoken.weights.gemma4 import plan

GREEDY = Sampling(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, seed=0)
CHUNK = 512


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

    def check_context(self, length: int) -> None:
        """Raise InputError where the model has no room for so many tokens."""
        most = self.target.config.max_positions
        if not 1 <= length <= most:
            raise InputError(f"{length} tokens of context asked, {self.name} has room for 1 to {most}.")

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

    def read(self, length: int, room: int) -> engine.Sequence:
        """A sequence whose random prompt of `length` tokens has been read, with room for `room` more."""
        self.check_context(length + room)
        runner = engine.Engine(self.target, CHUNK)
        sequence = self.sequence(self.prompt(length), runner.pool(length + room), new_tokens=room)
        while sequence.is_reading:
            runner.step([sequence])
        return sequence

    def score(self, cache: Cache, rows: int) -> np.ndarray:
        """One pass over `rows` random tokens after what `cache` holds, undone afterwards; all rows' logits."""
        ids = np.array(self.prompt(rows, seed=rows), dtype=np.int32)
        cache.begin_pass(rows)
        table: Segments = segments([cache], [rows])
        logits = self.target.logits(self.target.forward(ids, table, np.arange(rows, dtype=np.int32)))
        cache.end_pass()
        cache.roll_back(rows)
        return logits


def loaded(model: Model) -> Subject:
    """A model from a folder, as `foretoken.load` gives it."""
    info = model.info()
    table = model.target.weights.per_layer_table
    is_mapped = any(part.is_mapped for part in plan(model.target.config))
    table_bytes = table.data.nbytes if is_mapped else 0
    drafter_bytes = 0
    if isinstance(model.drafter, MtpDrafter):
        drafter_bytes = sum(matrix.data.nbytes for _, matrix in matrices(model.drafter.assistant.weights))
    return Subject(
        name=info["model"],
        format=info["format"],
        target=model.target,
        drafter=model.drafter,
        parameters=info["parameters"],
        packed_bytes=info["packed_bytes"] - table_bytes + drafter_bytes,
        table_bytes=table_bytes,
    )
