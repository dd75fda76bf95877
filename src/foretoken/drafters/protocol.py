"""What the round asks of a drafter. A drafter never changes the target's cache, and can only cost time."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from operator import index
from typing import Any, Protocol

import numpy as np

from foretoken.errors import DraftError, shown


@dataclass(slots=True, eq=False)  # not to be changed; frozen ones take four times as long to make
class Draft:
    """A guess: n tokens and, for each, the drafter's confidence in [0, 1], as Python's own numbers.

    A confidence is the chance of its token if those before it are right. `source` is who guessed, for the figures,
    where the drafter has more than one source. `own` is how many tokens took time to guess, where that is not all of
    them, or where some were not taken: the text itself goes on behind a model, or overrules it, at no cost.
    """

    tokens: Sequence[int]
    confidence: Sequence[float]
    source: str = ""
    own: int | None = None


NO_DRAFT = Draft((), ())


def check(draft: Draft, limit: int, vocab_len: int) -> None:
    """Raise DraftError for a draft that the pass could not take: others share it, and must not pay for that.

    Tokens and confidences that are only kept otherwise, as NumPy's, are made what a draft holds.
    """
    if draft is NO_DRAFT:
        return
    _make_plain(draft)
    count = len(draft.tokens)
    if count > limit or len(draft.confidence) != count:
        raise DraftError(f"{count} tokens with {len(draft.confidence)} confidences, expected up to {limit} of each.")
    if count and not 0 <= min(draft.tokens) <= max(draft.tokens) < vocab_len:
        raise DraftError(f"token ids from {min(draft.tokens)} to {max(draft.tokens)}, expected 0 to {vocab_len - 1}.")


def _make_plain(draft: Draft) -> None:
    """Python's own numbers as tokens and confidences, as they mostly are; raises DraftError for anything else."""
    try:
        draft.tokens = [index(token) for token in draft.tokens]
        if type(draft.confidence) is not list or not {float}.issuperset(map(type, draft.confidence)):
            draft.confidence = _row_of_floats(np.asarray(draft.confidence))
    except (TypeError, ValueError) as error:
        raise DraftError(f"tokens or confidences are no numbers: {error}.") from error
    if not isinstance(draft.source, str) or not isinstance(draft.own, (int, type(None))):
        raise DraftError(f"source {shown(draft.source)} and own {shown(draft.own)}, expected a name and a number.")


def _row_of_floats(values: np.ndarray) -> list[float]:
    if values.ndim != 1 or values.dtype.kind not in "fiu":
        raise DraftError(f"confidences of shape {values.shape} and type {values.dtype}, expected one row of numbers.")
    found: list[float] = values.astype(np.float64).tolist()
    return found


def until_stop(draft: Draft, stop_ids: Set[int]) -> Draft:
    """The tokens of a draft up to the first that ends the answer, without it: the row before says that one anyway."""
    if stop_ids.isdisjoint(draft.tokens):
        return draft
    end = next(i for i, token in enumerate(draft.tokens) if token in stop_ids)
    own = len(draft.tokens) if draft.own is None else draft.own
    return Draft(draft.tokens[:end], draft.confidence[:end], draft.source, own) if end else NO_DRAFT


class Drafter(Protocol):
    """One way of guessing."""

    name: str

    def propose(self, states: Sequence[Any], limits: Sequence[int]) -> list[Draft]:
        """For each sequence guess up to `limits[i]` (at least 1) tokens after `states[i].last`, or fewer, or none.

        See `drafters.mtp` for what a state holds. Every token of `states[i].tokens` is final: what was accepted since
        the last call is what the list has grown by, and a drafter that keeps something of a text keeps it by the state.
        """
        ...


@dataclass(frozen=True)
class DrafterState:
    """Whether drafts are made, by what, and why or why not; nothing falls back in silence."""

    name: str
    state: str  # "on" or "off"
    reason: str
    sources: tuple[str, ...] = ()
    fallback: str = "no-drafter"  # what rounds without it are called in figures

    def as_dict(self) -> dict[str, Any]:
        """What is shown of it."""
        return {"name": self.name, "state": self.state, "reason": self.reason, "sources": list(self.sources)}
