"""THE ROUND: guess, weigh, judge, forget, carry.

A drafter guesses the next tokens; the target scores all of them in one pass and says at each row which token it
would write itself; the agreeing prefix is kept, and one token of the target's own is added (Leviathan et al. 2023,
with position-keyed noise in place of their acceptance test, so there is one rule at every temperature).

Invariants, asserted in tests:
(a) before each round the cache ends just before the newest token;
(b) the carried hidden row is the target's row that chose the newest token;
(c) the tokens equal plain decoding's, for any horizon, drafter and seed.

The two halves let an engine score the rows of many sequences in one pass between them. Stops, budgets and streaming
wrap the round from outside. This file imports no model, op, tokenizer or printer.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from itertools import zip_longest
from typing import Any, NamedTuple, Protocol

import numpy as np

from foretoken.drafters.protocol import NO_DRAFT, Draft, Drafter, check, until_stop
from foretoken.horizon import Horizon


class Scored(NamedTuple):
    """The target's rows for what was asked: logits (n, V) and hidden (n, D), both float32."""

    logits: np.ndarray
    hidden: np.ndarray


class State(Protocol):
    """One sequence between two rounds."""

    tokens: list[int]  # prompt and answer; the newest is not in the cache yet
    hidden: np.ndarray | None  # (D,) the target's row that chose the newest token; None before the first
    cache: Any
    drafter: Drafter | None
    horizon: Horizon
    source: str  # who made the last draft
    vocab_len: int  # of the target
    stop_ids: Set[int]  # tokens behind which nothing is wanted

    @property
    def last(self) -> int: ...

    @property
    def repeats(self) -> Any: ...  # a `drafters.suffix.SuffixText`

    @property
    def draft_limit(self) -> int: ...  # what budget and context leave room for

    def drafting_failed(self, error: Exception) -> None: ...  # the drafter raised; it is not asked again

    def draw(self, logits: np.ndarray, recent: Sequence[int]) -> int: ...  # what the target writes after `recent`

    def accept(self, tokens: Sequence[int], hidden: np.ndarray, drafted: int) -> None: ...


def plan(states: Sequence[State], others: int = 0) -> list[list[int]]:
    """The token ids that each sequence wants scored: its newest token and the draft tokens worth a row.

    others  rows that the pass has for prompts
    """
    asked, rows = [], others + len(states)
    for state, draft in zip(states, guess(states), strict=True):  # guess: tokens and how sure
        count = state.horizon.choose(draft, state, rows)  # weigh: 0 is plain decoding
        rows += count
        asked.append([state.last, *draft.tokens[:count]])
    return asked


def guess(states: Sequence[State]) -> list[Draft]:
    """A draft per sequence; sequences with one drafter are guessed together."""
    drafts = [NO_DRAFT] * len(states)
    groups: dict[int, list[int]] = {}
    limits = [min(state.horizon.limit, state.draft_limit) for state in states]
    for i, state in enumerate(states):
        if state.drafter is not None and limits[i] > 0:
            groups.setdefault(id(state.drafter), []).append(i)
    for members in groups.values():
        drafter = states[members[0]].drafter
        assert drafter is not None
        try:
            found = drafter.propose([states[i] for i in members], [limits[i] for i in members])
            for i, draft in zip(members, found, strict=True):
                check(draft, limits[i], states[i].vocab_len)
        except Exception as error:  # a broken drafter costs drafts, never the text
            for i in members:
                states[i].drafting_failed(error)
            continue
        for i, draft in zip(members, found, strict=True):
            drafts[i], states[i].source = until_stop(draft, states[i].stop_ids), draft.source or drafter.name
    return drafts


def settle(state: State, asked: Sequence[int], scored: Scored) -> None:
    """Judge what was asked by the target's rows for it, and carry the sequence on by one token or more."""
    tokens: list[int] = []
    for row, guessed in zip_longest(scored.logits, asked[1:]):
        tokens.append(state.draw(row, tokens))  # judge: what the target itself writes here, given the rows before
        if tokens[-1] != guessed:
            break  # later rows saw a token that the target does not write
    kept = len(tokens) - 1  # draft tokens that agree; the last token is the target's own
    state.cache.roll_back(len(asked) - 1 - kept)  # forget: rows of rejected tokens
    state.accept(tokens, scored.hidden[kept], len(asked) - 1)  # carry: the row that chose the newest token
