"""An answer while it is written: one step of the engine at a time, walked up to the first stop. Decides no token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from foretoken import engine
from foretoken.errors import InputError
from foretoken.stats import Stats
from foretoken.tokenizer import TextStream


@dataclass(frozen=True)
class Result:
    """A finished answer: `tokens` keep every id, `text` omits control tokens and ends before a stop string."""

    text: str
    tokens: list[int]
    finish_reason: str  # "stop", "length" or "interrupted"
    prompt_tokens: int
    seed: int
    stats: Stats


@dataclass(frozen=True)
class Event:
    """What one pass added: a piece of text (may be empty) and the ids behind it."""

    text: str
    tokens: list[int]


class Stream(Iterator[Event]):
    """An answer while it is written. `result` is there after the end, and after `close()` with what came so far."""

    def __init__(
        self, runner: engine.Engine, sequence: engine.Sequence, text: TextStream, stop_ids: frozenset[int], seed: int
    ) -> None:
        self._runner = runner
        self._sequence = sequence
        self._text = text
        self._stop_ids = stop_ids
        self._seed = seed
        self._tokens: list[int] = []
        self._pieces: list[str] = []
        self._finish_reason = ""
        self._result: Result | None = None

    def __next__(self) -> Event:
        if self._result is not None:
            raise StopIteration
        before = len(self._sequence.tokens)
        while len(self._sequence.tokens) == before:  # prompt chunks emit nothing
            self._runner.step([self._sequence])
        new = self._sequence.tokens[before:]
        event = self._take(new)
        if len(event.tokens) < len(new):
            self._sequence.stats.cut_last_round(len(new) - len(event.tokens))
        if not self._finish_reason and self._sequence.is_full:
            self._finish_reason = "length"
        if not self._finish_reason:
            return event
        return Event(event.text + self._end(), event.tokens)

    def close(self) -> Result:
        """Stop here; whatever was written so far is the result. Harmless after the end."""
        if self._result is None:
            self._finish_reason = self._finish_reason or "interrupted"
            self._end()
        assert self._result is not None
        return self._result

    @property
    def result(self) -> Result:
        """The whole answer; raises InputError while the stream is still open."""
        if self._result is None:
            raise InputError("the stream is not finished. Read it to the end, or close() it.")
        return self._result

    def _take(self, tokens: Sequence[int]) -> Event:
        """Walk new tokens up to the first stop; what a round emitted after it is forgotten."""
        pieces, taken = [], []
        for token in tokens:
            taken.append(token)
            if token in self._stop_ids:
                self._finish_reason = "stop"
                break
            pieces.append(self._text.push(token))
            if self._text.stopped:
                self._finish_reason = "stop"
                break
        self._tokens.extend(taken)
        self._pieces.append("".join(pieces))
        return Event(self._pieces[-1], taken)

    def _end(self) -> str:
        """Flush held-back text, close the figures, give the pages back."""
        rest = self._text.finish()
        self._pieces.append(rest)
        stats = self._sequence.stats
        stats.completion_tokens = len(self._tokens)
        self._sequence.cache.release()
        self._result = Result(
            "".join(self._pieces), self._tokens, self._finish_reason, self._sequence.prompt_len, self._seed, stats
        )
        return rest
