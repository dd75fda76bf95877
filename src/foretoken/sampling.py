"""From a row of logits to a token: a pure function of (logits, parameters, seed, position).

Because the noise is keyed by position, a draft is accepted iff it equals the token drawn here, and that token is what
is emitted (numerics.md, «From logits to a token»). There is no generator state to rewind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import Any

import numpy as np

from foretoken.errors import InputError, shown
from foretoken.ops import NO_STOP, Stop

SEED_LIMIT = 1 << 64


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen. temperature < 1e-5 takes the largest logit; top_k 0, top_p 1, min_p 0 are off.

    logit_bias          token id → number added to its logit
    suppressed          token ids that are never drawn
    repetition_penalty  above 1 makes every token of prompt and answer less likely; 1 is off
    presence_penalty    taken once from the logit of every token that stands in the answer
    frequency_penalty   taken from it for each time that it stands there
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    suppressed: tuple[int, ...] = ()
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0

    def __post_init__(self) -> None:
        # As Python's own number: compiled code and traces take no others.
        object.__setattr__(self, "temperature", _between("temperature", self.temperature, 0.0, 100.0))
        _between("top_p", self.top_p, 0.0, 1.0)
        _between("min_p", self.min_p, 0.0, 1.0)
        if self.top_p == 0.0:
            raise InputError("top_p is 0, expected above 0 and at most 1. Use temperature 0 for the likeliest token.")
        whole("top_k", self.top_k, 0, 1 << 31)
        whole("seed", self.seed, 0, SEED_LIMIT)
        _between("repetition_penalty", self.repetition_penalty, 0.01, 100.0)
        _between("presence_penalty", self.presence_penalty, -100.0, 100.0)
        _between("frequency_penalty", self.frequency_penalty, -100.0, 100.0)
        for token, bias in self.logit_bias.items():
            whole("a token id of logit_bias", token, 0, 1 << 31)
            _between(f"logit_bias of token {token}", bias, -1000.0, 1000.0)

    @property
    def is_greedy(self) -> bool:
        """True where the largest logit is taken and the seed plays no part."""
        return self.temperature < 1e-5

    @property
    def is_plain(self) -> bool:
        """True where a token depends on nothing but logits, seed and position (and suppressed ids are no matter)."""
        return not (self.logit_bias or self.has_penalties)

    def draws(
        self, position: int, depth: int = 0, stop: Stop = NO_STOP, survival: float = 1.0
    ) -> tuple[float | int, ...]:
        """A record of `ops.DRAW` that begins at `position`, behind `depth` tokens of a draft that survive so likely."""
        how = self.temperature, self.top_p, self.min_p, self.top_k, self.seed
        return *how, position, 0, depth, *stop, survival

    @property
    def has_penalties(self) -> bool:
        """True where a token's logit depends on the tokens before it."""
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0


class Sampler:
    """Draws one sequence's tokens: a pure function of the logits and the tokens before.

    sampling    the parameters
    ops         where `sample_row` lives
    prompt_len  how many of the sequence's first tokens are the prompt; presence and frequency count the answer only

    Counts of the history are kept from call to call, since it only grows; the result does not depend on that.
    """

    def __init__(self, sampling: Sampling, ops: Any, prompt_len: int) -> None:
        self.sampling = sampling
        self._ops = ops
        self._prompt_len = prompt_len
        self._bias = _arrays(sampling.logit_bias)
        self._suppressed = _arrays(dict.fromkeys(sampling.suppressed, 0.0))
        self._seen = np.zeros(0, dtype=np.int32)  # by token id, how often in history[: _counted_len]; grows as needed
        self._answered = np.zeros(0, dtype=np.int32)  # how often of these in the answer
        self._counted_len = 0  # below 0 while the counts are not whole

    def token(
        self, logits: np.ndarray, history: Sequence[int], recent: Sequence[int] = (), ids: np.ndarray | None = None
    ) -> int:
        """The token at absolute position len(history) + len(recent).

        logits   (n,) float32; bias and penalties are applied to it in place
        history  the sequence's tokens; recent: what follows them, not accepted yet
        ids      (n,) int32, the token ids of the logits' entries, or None when n is the vocabulary. The drafter calls
                 with its few candidates: the same noise makes its guess agree more often.
        """
        s = self.sampling
        self._process(logits, history, recent, ids)
        position = len(history) + len(recent)
        return int(self._ops.sample_row(logits, ids, s.temperature, s.top_k, s.top_p, s.min_p, s.seed, position))

    def _process(
        self, logits: np.ndarray, history: Sequence[int], recent: Sequence[int], ids: np.ndarray | None
    ) -> None:
        """numerics.md, «From logits to a token», step 1; elementwise f32, so the same bits everywhere."""
        if self.sampling.logit_bias:
            at, bias = _entries(self._bias, ids)
            logits[at] += bias
        if self.sampling.suppressed:
            at, _ = _entries(self._suppressed, ids)
            if len(at) < len(logits):  # a drafter's candidates may all be suppressed: its guess is then wasted
                logits[at] = -np.inf
        if self.sampling.has_penalties:
            self._penalize(logits, history, recent, ids)

    def _penalize(
        self, logits: np.ndarray, history: Sequence[int], recent: Sequence[int], ids: np.ndarray | None
    ) -> None:
        """A row costs its own length, whatever the length of the history: `recent` is counted in and out again."""
        s, start = self.sampling, self._counted_len
        if start < 0:  # an interrupt came while counting
            self._seen[:] = self._answered[:] = start = 0
        self._counted_len = -1
        new = np.array(history[start:], dtype=np.int64)
        tail = np.array(recent, dtype=np.int64)
        largest = max(len(logits) - 1 if ids is None else int(ids.max()), new.max(initial=0), tail.max(initial=0))
        if largest >= len(self._answered):  # the second to grow: an interrupt may come between the two
            for counts in (self._seen, self._answered):
                counts.resize(2 * int(largest) + 1, refcheck=False)  # zeros at the end
        np.add.at(self._seen, new, 1)
        np.add.at(self._answered, new[max(self._prompt_len - start, 0) :], 1)
        for counts in (self._seen, self._answered):
            np.add.at(counts, tail, 1)
        own: slice | np.ndarray = slice(len(logits)) if ids is None else ids
        seen, answered = self._seen[own].copy(), self._answered[own].copy()
        for counts in (self._seen, self._answered):
            np.subtract.at(counts, tail, 1)
        self._counted_len = len(history)
        if s.repetition_penalty != 1.0:
            at = np.flatnonzero(seen)
            penalty, old = np.float32(s.repetition_penalty), logits[at]
            logits[at] = np.where(old > 0, old / penalty, old * penalty)
        if s.presence_penalty or s.frequency_penalty:
            at = np.flatnonzero(answered)
            times = answered[at].astype(np.float32)
            logits[at] -= np.float32(s.presence_penalty) + np.float32(s.frequency_penalty) * times


def _arrays(values: Mapping[int, float]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (m,) int64 and their values (m,) float32."""
    tokens = np.fromiter(values, dtype=np.int64, count=len(values))
    return tokens, np.fromiter(values.values(), dtype=np.float32, count=len(values))


def _entries(values: tuple[np.ndarray, np.ndarray], ids: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Where the given token ids stand among the logits, and their values: (m,) int, (m,) float32."""
    tokens, numbers = values
    if ids is None:
        return tokens, numbers
    order = np.argsort(ids)
    at = np.minimum(np.searchsorted(ids, tokens, sorter=order), len(ids) - 1)
    found = ids[order[at]] == tokens
    return order[at[found]], numbers[found]


@dataclass(frozen=True)
class TokenLogprobs:
    """Natural log-probabilities in the target's own row, before bias, penalties and temperature.

    token, logprob  the token that was drawn
    top             the likeliest tokens with theirs, best first, ties to the lowest id
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def likeliest(logits: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """All log-probabilities (V,) float64 and the `count` likeliest ids, best first, ties to the lowest id."""
    wide = logits.astype(np.float64)
    largest = wide.max()
    logprobs = wide - (largest + np.log(np.exp(wide - largest).sum()))
    if not count:
        return logprobs, np.empty(0, dtype=np.int64)
    floor = np.partition(logits, len(logits) - count)[len(logits) - count]
    ids = np.flatnonzero(logits >= floor)  # ascending, so that the stable sort keeps the lowest id of a tie first
    return logprobs, ids[np.argsort(-logits[ids], kind="stable")][:count]


def chance_of(token: int, logits: np.ndarray, ids: np.ndarray | None = None) -> float:
    """Softmax of one candidate among all of them, without noise; a figure for planning, it decides no token.

    ids  the token ids of the logits' entries, or None when those are the vocabulary
    """
    index = token if ids is None else int(np.flatnonzero(ids == token)[0])
    return float(1.0 / np.exp(logits - logits[index]).sum())


def answer_seed(seed: int, index: int) -> int:
    """The seed of answer `index` of several to one prompt: the seed itself for 0, a hash of both for the others."""
    if index == 0:
        return seed
    digest = hashlib.blake2b(seed.to_bytes(8, "little") + index.to_bytes(8, "little"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _between(name: str, value: Any, low: float, high: float) -> float:
    """`value`, as Python's own number, when it is one in low … high; else InputError that names it."""
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        raise InputError(f"{name} is {shown(value)}, expected a number from {low:g} to {high:g}.")
    return value.item() if isinstance(value, np.generic) else value


def whole(name: str, value: Any, low: int, limit: int) -> int:
    """`value` when it is a whole number in low … limit − 1; else InputError that names it."""
    try:
        number = low - 1 if isinstance(value, bool) else index(value)  # NumPy's integers are welcome
    except TypeError:
        number = low - 1
    if not low <= number < limit:
        raise InputError(f"{name} is {shown(value)}, expected a whole number from {low} to {limit - 1}.")
    return number
