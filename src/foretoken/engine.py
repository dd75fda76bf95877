"""Sequences in flight: read prompts in chunks, one ragged pass per step, hand out rows, finish.

One sequence is the case of one segment; there is no second loop. It knows rounds, models and caches; nothing of
text, files or printing. Times and counts go into each sequence's `Stats`.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from contextlib import AbstractContextManager
from itertools import accumulate
from time import perf_counter
from typing import Any

import numpy as np

from foretoken import cache, speculative
from foretoken.drafters.protocol import Drafter
from foretoken.errors import InputError
from foretoken.horizon import MAX_HORIZON
from foretoken.models.gemma4 import Gemma4
from foretoken.sampling import Sampler, TokenLogprobs, likeliest
from foretoken.stats import Stats


class Sequence:
    """One text being written: what `speculative.State` asks for, and where its prompt stands.

    tokens      prompt and answer so far; the newest is not in the cache
    prompt_len  how many of them are the prompt
    hidden      (D,) float32, the target's row that chose the newest token; None while the prompt is read
    end         the text never grows beyond this many tokens (budget and context)
    checkpoints ascending lengths of the prompt at which a chunk ends, because its cache may be kept there
    error       why the sequence cannot go on, None as long as it can
    logprobs    per answer token its log-probability and that of `num_logprobs` alternatives, where asked for
    """

    def __init__(
        self,
        prompt: Seq[int],
        *,
        cache: cache.Cache,
        sampler: Sampler,
        drafter: Drafter | None,
        horizon: Any,
        end: int,
        num_logprobs: int | None = None,
    ) -> None:
        self.tokens = list(prompt)
        self.prompt_len = len(self.tokens)
        self.cache = cache
        self.sampler = sampler
        self.drafter = drafter
        self.horizon = horizon
        self.end = end
        self.hidden: np.ndarray | None = None
        self.stats = Stats(prompt_tokens=self.prompt_len)
        self.checkpoints: list[int] = []
        self.error: Exception | None = None
        self.logprobs: list[TokenLogprobs] = []
        self._num_logprobs = num_logprobs

    @property
    def last(self) -> int:
        """The newest token."""
        return self.tokens[-1]

    @property
    def is_reading(self) -> bool:
        """True until the prompt's last row has chosen the first token."""
        return self.hidden is None

    @property
    def is_full(self) -> bool:
        """True when budget or context leave no room for a token more."""
        return len(self.tokens) >= self.end

    @property
    def draft_limit(self) -> int:
        """Draft tokens that could still be used: the round's own token needs room as well."""
        return self.end - len(self.tokens) - 1

    def start_from(self, cache: cache.Cache, checkpoints: list[int]) -> None:
        """Begin where `cache` ends, before the first pass: it holds the prompt's first tokens."""
        assert self.is_reading and cache.length < self.prompt_len
        before, self.cache, self.checkpoints = self.cache, cache, checkpoints
        before.release()
        self.stats.cached_tokens = cache.length

    def draw(self, logits: np.ndarray, recent: Seq[int]) -> int:
        """The token that the target writes after `recent`, and its log-probabilities where asked for."""
        if self._num_logprobs is None:
            return self.sampler.token(logits, self.tokens, recent)
        logprobs, top = likeliest(logits, self._num_logprobs)
        token = self.sampler.token(logits, self.tokens, recent)
        pairs = tuple((int(i), float(logprobs[i])) for i in top)
        self.logprobs.append(TokenLogprobs(token, float(logprobs[token]), pairs))
        return token

    def accept(self, tokens: Seq[int], hidden: np.ndarray, drafted: int) -> None:
        """Carry on: append what the round emitted and keep the row that chose its newest token."""
        self.tokens.extend(tokens)
        self.hidden = hidden.copy()
        self.stats.record_round(
            horizon=self.horizon.limit,
            drafted=drafted,
            accepted=len(tokens) - 1,
            drafter=self.drafter.name if self.drafter is not None and drafted else None,
            fallback=None if drafted else self._fallback_reason(),
        )

    def drafting_failed(self, error: Exception) -> None:
        """The drafter raised: decode the rest plainly, and say so in the figures."""
        self.drafter = None
        self.stats.drafter_error = f"{type(error).__name__}: {error}"

    def _fallback_reason(self) -> str:
        if self.drafter is None:
            return "error" if self.stats.drafter_error else "no-drafter"
        if self.horizon.limit == 0:
            return "horizon-0"
        return "budget"  # the draft limit left no row for a draft


class _Mark:
    """Where a sequence stood before a pass, to go back there if the pass fails before the sequence is settled."""

    def __init__(self, sequence: Sequence) -> None:
        self.is_settled = False
        self._sequence = sequence
        self._before = len(sequence.tokens), sequence.hidden, len(sequence.logprobs), sequence.cache.length

    def restore(self) -> None:
        if self.is_settled:
            return
        s = self._sequence
        num_tokens, s.hidden, num_logprobs, length = self._before
        del s.tokens[num_tokens:], s.logprobs[num_logprobs:]
        s.cache.abort_pass()
        s.cache.roll_back(s.cache.length - length)


class Engine:
    """Runs sequences over one target. `chunk` is the most prompt rows per pass."""

    def __init__(self, target: Gemma4, chunk: int) -> None:
        self.target = target
        self.chunk = chunk

    def pool(self, positions: int, num_sequences: int = 1) -> cache.PagePool:
        """Cache memory for sequences of up to `positions` tokens; raises InputError where the system refuses it."""
        pass_rows = max(self.chunk, MAX_HORIZON + 1)
        try:
            return cache.PagePool(self.target.cache_layers, positions, num_sequences, pass_rows)
        except MemoryError as error:
            raise InputError(
                f"there is no memory for {num_sequences} caches of {positions} tokens. Ask for fewer answers at once."
            ) from error

    def step(self, sequences: Seq[Sequence]) -> None:
        """One pass of the target over every sequence: a prompt chunk for some, a round for the others.

        A sequence that cannot go on gets its `error` and keeps what it had; the others are not touched. An
        interrupt leaves every sequence as it was before the pass, or after it.
        """
        started = perf_counter()
        rounds = iter(speculative.plan([s for s in sequences if not s.is_reading]))
        asked = [self._chunk_of(s) if s.is_reading else next(rounds) for s in sequences]
        planned = perf_counter()
        marks = [_Mark(sequence) for sequence in sequences]
        try:
            keeps = [self._rows_kept(s, rows) for s, rows in zip(sequences, asked, strict=True)]
            for sequence, rows in zip(sequences, asked, strict=True):
                sequence.cache.begin_pass(len(rows))
            with self._scored(sequences, asked, keeps) as (hidden, logits):
                scored, start = perf_counter(), 0
                for sequence, rows, keep, mark in zip(sequences, asked, keeps, marks, strict=True):
                    own = slice(start, start + keep)
                    start += keep
                    begun, is_round = perf_counter(), not sequence.is_reading
                    try:
                        self._carry(sequence, rows, speculative.Scored(logits[own], hidden[own]))
                    except Exception as error:
                        sequence.error = error
                        mark.restore()
                    mark.is_settled = True
                    judged = perf_counter() - begun
                    if is_round:  # passes are shared: every sequence is charged the whole pass it waited for
                        sequence.stats.add_times(draft_s=planned - started, verify_s=scored - planned, other_s=judged)
                    else:
                        sequence.stats.add_times(prefill_s=scored - started + judged)
        except BaseException:
            for mark in marks:
                mark.restore()
            raise

    @staticmethod
    def _carry(sequence: Sequence, rows: Seq[int], scored: speculative.Scored) -> None:
        sequence.cache.end_pass()
        if not sequence.is_reading:
            speculative.settle(sequence, rows, scored)
        elif len(scored.logits):  # the prompt's last row draws the first token, which belongs to no round
            token = sequence.draw(scored.logits[0], ())
            sequence.hidden = scored.hidden[0].copy()
            sequence.tokens.append(token)

    def _chunk_of(self, sequence: Sequence) -> list[int]:
        done = sequence.cache.length
        end = next((n for n in sequence.checkpoints if n > done), len(sequence.tokens))
        return sequence.tokens[done : min(done + self.chunk, end)]

    @staticmethod
    def _rows_kept(sequence: Sequence, rows: Seq[int]) -> int:
        """How many rows, counted from the last, must be scored: all of a round, one of a prompt's last chunk."""
        if not sequence.is_reading:
            return len(rows)
        return int(sequence.cache.length + len(rows) == len(sequence.tokens))

    def _scored(
        self, sequences: Seq[Sequence], asked: Seq[Seq[int]], keeps: Seq[int]
    ) -> AbstractContextManager[tuple[np.ndarray, ...]]:
        counts = [len(rows) for rows in asked]
        segments = cache.segments([s.cache for s in sequences], counts)
        ids = np.array([token for rows in asked for token in rows], dtype=np.int32)
        ends = accumulate(counts)
        keep = np.array([row for e, k in zip(ends, keeps, strict=True) for row in range(e - k, e)], dtype=np.int32)
        return self.target.scored(ids, segments, keep)
