"""Sequences in flight: read prompts in chunks, one ragged pass per step, hand out rows, finish.

One sequence is the case of one segment; there is no second loop. It knows rounds, models and caches; nothing of
text, files or printing. Times and counts go into each sequence's `Stats`.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from collections.abc import Sequence as Seq
from contextlib import AbstractContextManager
from functools import cached_property
from itertools import accumulate
from time import perf_counter
from typing import Any

import numpy as np

from foretoken import cache, speculative
from foretoken.drafters.protocol import Drafter
from foretoken.drafters.suffix import SuffixText
from foretoken.errors import InputError
from foretoken.horizon import MAX_HORIZON, Horizon, Paid
from foretoken.horizon.cost import Costs
from foretoken.models.gemma4 import Gemma4
from foretoken.sampling import Sampler, TokenLogprobs, likeliest
from foretoken.stats import TEXT_ITSELF, Stats


class Sequence:
    """One text being written: what `speculative.State` asks for, and where its prompt stands.

    tokens      prompt and answer so far; the newest is not in the cache
    prompt_len  how many of them are the prompt
    hidden      (D,) float32, the target's row that chose the newest token; None while the prompt is read
    end         the text never grows beyond this many tokens (budget and context)
    checkpoints ascending lengths of the prompt at which a chunk ends, because its cache may be kept there
    source      who made the last draft
    vocab_len   entries of a row of the target's logits; 0 while the prompt is read
    stop_ids    tokens that end the answer
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
        horizon: Horizon,
        end: int,
        num_logprobs: int | None = None,
        stop_ids: Set[int] = frozenset(),
    ) -> None:
        self.tokens = list(prompt)
        self.prompt_len = len(self.tokens)
        self.cache = cache
        self.sampler = sampler
        self.drafter = drafter
        self.horizon = horizon
        self.end = end
        self.stop_ids = stop_ids
        self.hidden: np.ndarray | None = None
        self.stats = Stats(prompt_tokens=self.prompt_len)
        self.checkpoints: list[int] = []
        self.source = ""
        self.vocab_len = 0
        self.error: Exception | None = None
        self.logprobs: list[TokenLogprobs] = []
        self.no_room = "budget"  # what ends the text, as the reason why no draft fits
        self.no_drafter = "no-drafter"  # why there is none
        self.trace: Callable[[dict[str, Any]], None] | None = None
        self._num_logprobs = num_logprobs
        self._plain = [0.0, 0.0]  # tokens of rounds whose plain cost is known, and seconds that they would have taken
        self._cold = [0.0, 0.0]  # the same of other rounds before the first draft token had a row

    @property
    def last(self) -> int:
        """The newest token."""
        return self.tokens[-1]

    @cached_property
    def repeats(self) -> SuffixText:
        """What its text repeats, for all who look at that; it may lack the newest tokens."""
        return SuffixText(stop_ids=self.stop_ids)

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
            horizon=self.horizon.applied,
            drafted=drafted,
            accepted=len(tokens) - 1,
            drafter=self.source if drafted else None,
            fallback=None if drafted else self.fallback_reason,
            guessed=self.horizon.guessed,
        )

    def drafting_failed(self, error: Exception) -> None:
        """The drafter raised: decode the rest plainly, and say so in the figures."""
        self.drafter = None
        self.no_drafter = "memory" if isinstance(error, MemoryError) else "error"
        self.stats.drafter_error = f"{type(error).__name__}: {error}"

    @property
    def fallback_reason(self) -> str:
        """Why a round had no draft token with a row."""
        if self.drafter is None:
            return self.no_drafter
        if self.horizon.limit and self.draft_limit < 0:  # the round took the last place
            return self.no_room
        models_rest = not self.horizon.model_limit and self.drafter.name != TEXT_ITSELF
        if self.horizon.guessed or not self.horizon.limit or models_rest:
            return self.horizon.reason
        return "no-draft" if self.no_drafter == "no-drafter" else self.no_drafter

    def add_round(self, paid: Paid, accepted: int, judge_s: float, plain_s: float | None, plain_rest_s: float) -> None:
        """Figures of a round: passes are shared, and every sequence is charged the whole pass it waited for.

        judge_s  seconds of judging its own rows
        plain_s  seconds of a plain pass instead of this one, None where that is not known; plain_rest_s: besides
        """
        self.stats.add_times(draft_s=paid.draft_s, verify_s=paid.verify_s, other_s=judge_s + paid.rest_s)
        known = self._plain
        if plain_s is None and not self.stats.drafted:  # plain decoding is as fast as itself
            known, plain_s = self._cold, paid.verify_s
        if plain_s is not None:
            planning_s = 0.0 if paid.drafters else paid.draft_s  # plain decoding pays for that as well
            known[0] += accepted + 1
            known[1] += (plain_s + planning_s + plain_rest_s) * (accepted + 1) + judge_s
        counted = [self._plain] if self.stats.drafted else [self._plain, self._cold]
        tokens, seconds = map(sum, zip(*counted, strict=True))
        self.stats.plain_tok_per_s = tokens / seconds if seconds else None


class _Mark:
    """Where a sequence stood before a pass, to go back there if the pass fails before the sequence is settled."""

    def __init__(self, sequence: Sequence) -> None:
        self.is_settled = False
        self.was_reading = sequence.is_reading
        self.judge_s = 0.0
        self.sequence = sequence
        self._drafted = sequence.stats.drafted
        self._before = len(sequence.tokens), sequence.hidden, len(sequence.logprobs), sequence.cache.length

    @property
    def drafted(self) -> int:
        """Draft tokens that had a row in this pass."""
        return self.sequence.stats.drafted - self._drafted

    @property
    def accepted(self) -> int:
        """Of them, those that were kept."""
        return max(len(self.sequence.tokens) - self._before[0] - 1, 0)

    def traced(self, paid: Paid) -> dict[str, Any]:
        """The round as a line of a trace; all its values are JSON."""
        s, horizon = self.sequence, self.sequence.horizon
        has_drafter = s.drafter is not None and horizon.guessed > 0
        return {
            "position": self._before[0],
            "temperature": s.sampler.sampling.temperature,
            "horizon": horizon.applied,
            "source": s.source if has_drafter else None,
            "guessed": horizon.guessed,
            "confidence": [round(float(value), 4) for value in horizon.confidence],
            "chances": [round(float(chance), 4) for chance in horizon.chances],
            "drafted": self.drafted,
            "accepted": self.accepted,
            "rows": paid.rows,
            "texts": paid.texts,
            "draft_ms": round(1e3 * paid.draft_s, 4),
            "verify_ms": round(1e3 * paid.verify_s, 4),
            "judge_ms": round(1e3 * self.judge_s, 4),
            "reason": None if self.drafted else s.fallback_reason,
        }

    def restore(self) -> None:
        if self.is_settled:
            return
        s = self.sequence
        num_tokens, s.hidden, num_logprobs, length = self._before
        del s.tokens[num_tokens:], s.logprobs[num_logprobs:]
        s.cache.abort_pass()
        s.cache.roll_back(s.cache.length - length)


class Engine:
    """Runs sequences over one target. `chunk` is the most prompt rows per pass; `costs` learn what passes take."""

    def __init__(self, target: Gemma4, chunk: int, costs: Costs | None = None) -> None:
        self.target = target
        self.chunk = chunk
        self._costs = Costs() if costs is None else costs
        self._last: tuple[Paid, float] | None = None  # the round before, and when its pass was over

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
        chunks = [self._chunk_of(s) for s in sequences if s.is_reading]
        if self._last is not None and not chunks:  # behind a prompt nobody knows what the round before took
            self._settle_costs(*self._last, started)
        self._last = None
        writing = [s for s in sequences if not s.is_reading]
        drafters = [s.drafter for s in writing]  # before one fails
        rounds = iter(speculative.plan(writing, sum(map(len, chunks))))
        prompts = iter(chunks)
        asked = [next(prompts if s.is_reading else rounds) for s in sequences]
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
                    begun = perf_counter()
                    try:
                        self._carry(sequence, rows, speculative.Scored(logits[own], hidden[own]))
                    except Exception as error:
                        sequence.error = error
                        mark.restore()
                    mark.is_settled = True
                    mark.judge_s = perf_counter() - begun
        except BaseException:
            for mark in marks:
                mark.restore()
            raise
        for sequence, mark in zip(sequences, marks, strict=True):
            if mark.was_reading:
                begun = perf_counter()
                if not (sequence.is_reading or sequence.is_full or sequence.error):
                    sequence.horizon.read(sequence)
                read_s = perf_counter() - begun
                sequence.stats.add_times(prefill_s=scored - started + mark.judge_s + read_s)
        rounds_done = [mark for mark in marks if not mark.was_reading]
        if rounds_done:
            times = planned - started, scored - planned
            paid = self._paid(rounds_done, drafters, sum(map(len, chunks)), *times)
            self._last = paid, scored
            self._tell(rounds_done, paid, started)

    @staticmethod
    def _paid(
        marks: Seq[_Mark],
        drafters: Seq[Drafter | None],
        prompt_rows: int,
        draft_s: float,
        verify_s: float,
    ) -> Paid:
        """What the pass took and gave."""
        guessed: dict[str, list[int]] = {}
        rows = tokens = context = 0
        for mark, drafter in zip(marks, drafters, strict=True):
            sequence, horizon = mark.sequence, mark.sequence.horizon
            rows += mark.drafted + 1
            tokens += mark.accepted + 1
            context += len(sequence.tokens)
            if drafter is not None and horizon.limit:
                name, own = (sequence.source, horizon.own) if horizon.guessed else (drafter.name, 0)
                guessed.setdefault(name, []).append(own)
        return Paid(
            rows=rows,
            prompt_rows=prompt_rows,
            texts=len(marks),
            tokens=tokens,
            context=context // len(marks),
            verify_s=verify_s,
            drafters=guessed,
            draft_s=draft_s,
        )

    def _tell(self, marks: Seq[_Mark], paid: Paid, started: float) -> None:
        """Tell the horizons, the figures and, last of all, the traces: a trace that raises costs its own line only."""
        going = [mark for mark in marks if mark.sequence.error is None]
        lines = [(trace, mark.traced(paid)) for mark in going if (trace := mark.sequence.trace) is not None]
        for mark in going:
            mark.sequence.horizon.observe(mark.sequence, paid)
        judged_s = sum(mark.judge_s for mark in marks)
        paid.rest_s = max(perf_counter() - started - paid.draft_s - paid.verify_s - judged_s, 0.0)
        plain = self._costs.plain_s(paid), self._costs.plain_rest_s(paid)
        for mark in going:
            mark.sequence.add_round(paid, mark.accepted, mark.judge_s, *plain)
        problem = None
        for trace, line in lines:
            try:
                trace(line)
            except Exception as error:
                problem = problem or error
        if problem is not None:
            raise problem

    def _settle_costs(self, paid: Paid, scored: float, started: float) -> None:
        """Learn what the round before took, from the end of its pass up to this one."""
        paid.other_s = min(started - scored, paid.verify_s)  # a reader may take their time
        self._costs.add(paid)

    @staticmethod
    def _carry(sequence: Sequence, rows: Seq[int], scored: speculative.Scored) -> None:
        sequence.cache.end_pass()
        if not sequence.is_reading:
            speculative.settle(sequence, rows, scored)
        elif len(scored.logits):  # the prompt's last row draws the first token, which belongs to no round
            token = sequence.draw(scored.logits[0], ())
            sequence.hidden, sequence.vocab_len = scored.hidden[0].copy(), len(scored.logits[0])
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
