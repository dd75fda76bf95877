"""An answer while it is written: one step of the engine at a time, walked up to the first stop. Decides no token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from foretoken import engine, turn
from foretoken.cache import Cache
from foretoken.errors import InputError
from foretoken.sampling import TokenLogprobs
from foretoken.stats import Stats
from foretoken.tokenizer import TextStream, Tokenizer
from foretoken.turn import Part, TurnReader


@dataclass(frozen=True)
class Logprob:
    """A token and its natural log-probability in the target's own row, before bias, penalties and temperature.

    text  of this token alone: control tokens spelled, and U+FFFD for bytes of a character that it does not finish
    top   in `Result.logprobs` the likeliest tokens of the row, best first; the one that was drawn may not be among them
    """

    token: int
    text: str
    logprob: float
    top: tuple[Logprob, ...] = ()


@dataclass(frozen=True)
class Result:
    """A finished answer: `tokens` keep every id, `text` omits control tokens and ends before a stop string.

    raw_text  the text of all tokens, control tokens spelled: thoughts and calls as the model marked them
    parts     thought, calls and answer told apart; `turn.message(parts)` makes them a message for the history
    """

    text: str
    tokens: list[int]
    finish_reason: str  # "stop", "length" or "interrupted"
    prompt_tokens: int
    seed: int
    stats: Stats
    logprobs: list[Logprob]  # one per token where they were asked for, else empty
    raw_text: str = ""
    parts: list[Part] = field(default_factory=list)


@dataclass(frozen=True)
class Event:
    """What one pass added: a piece of text (may be empty), the ids behind it, and the same told apart by kind.

    is_last  nothing follows: the answer has its result
    """

    text: str
    tokens: list[int]
    parts: list[Part] = field(default_factory=list)
    is_last: bool = False


class Answer:
    """One answer while it is written: walks what passes append, up to the first stop.

    Who runs the passes is somebody else's business: `Stream` for one answer, `scheduler.Scheduler` for many.

    index  how many answers its scheduler had taken before; 0 for a stream of its own
    keep   called at the end with the final tokens that the cache holds, and the cache, before its pages are given back
    """

    index = 0
    keep: Callable[[Sequence[int], Cache], None] | None = None

    def __init__(
        self,
        sequence: engine.Sequence,
        tokenizer: Tokenizer,
        stop: Sequence[str],
        seed: int,
    ) -> None:
        self.sequence = sequence
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._start_text()
        self._parts: list[Part] = []
        self._seed = seed
        self._is_cut = False
        self._tokens: list[int] = []
        self._pieces: list[str] = []
        self._finish_reason = ""
        self._result: Result | None = None
        self._error: Exception | None = None

    def __repr__(self) -> str:
        num_tokens = len(self.sequence.tokens) - self.sequence.prompt_len if self._result is None else len(self._tokens)
        state = "reading its prompt" if self.sequence.is_reading else "being written"
        if self.is_done:
            state = "failed" if self._error is not None else self._finish_reason
        return f"<Answer {self.index}: {num_tokens} tokens, {state}>"

    @property
    def is_done(self) -> bool:
        """True once there is a result or an error; its pages are given back by then."""
        return self._result is not None or self._error is not None

    @property
    def is_behind(self) -> bool:
        """True after a pass until `advance` has taken in what it added."""
        is_new = len(self.sequence.tokens) > self.sequence.prompt_len + len(self._tokens)
        return not self.is_done and (is_new or self.sequence.error is not None)

    @property
    def result(self) -> Result:
        """The whole answer; raises what made it fail, or InputError while it is still being written."""
        if self._error is not None:
            raise self._error
        if self._result is None:
            raise InputError("the answer is not finished. Read it to the end, or close it.")
        return self._result

    def advance(self) -> Event | None:
        """What the last pass added, None after a prompt chunk; the last event includes text held back till then.

        After an interrupt everything is as before, and it may be called again.
        """
        if self.is_done:
            return None
        if self.sequence.error is not None:
            self._error = self.sequence.error
            self.sequence.cache.release()
            return None
        new = self.sequence.tokens[self.sequence.prompt_len + len(self._tokens) :]
        if not new:
            return None
        before = len(self._tokens), len(self._pieces), len(self._parts)
        try:
            return self._advance(new)
        except BaseException:
            if not self.is_done:
                self._go_back(*before)
            raise

    def _advance(self, new: Sequence[int]) -> Event:
        event = self._take(new)
        if len(event.tokens) < len(new) and not self._is_cut:
            self._is_cut = True
            self.sequence.stats.cut_last_round(len(new) - len(event.tokens))
        if not self._finish_reason and self.sequence.is_full:
            self._finish_reason = "length"
        if not self._finish_reason:
            return event
        rest, parts = self._end()
        return Event(event.text + rest, event.tokens, event.parts + parts, is_last=True)

    def _go_back(self, num_tokens: int, num_pieces: int, num_parts: int) -> None:
        """To so many tokens: their text is read again, for where an interrupt has left it nobody knows."""
        del self._tokens[num_tokens:], self._pieces[num_pieces:], self._parts[num_parts:]
        self._finish_reason = ""
        self._start_text()
        for token in self._tokens:
            self._turn.push(token, self._text.push(token))

    def _start_text(self) -> None:
        self._text = TextStream(self._tokenizer, self._stop)
        prompt = self.sequence.tokens[: self.sequence.prompt_len]
        self._turn = TurnReader(self._tokenizer, self._text, prompt)

    def close(self) -> Result:
        """Stop here; whatever was written so far is the result. Harmless after the end."""
        if not self.is_done:
            self._finish_reason = self._finish_reason or "interrupted"
            self._end()
        return self.result

    def _take(self, tokens: Sequence[int]) -> Event:
        """Walk new tokens up to the first stop; what a round emitted after it is forgotten."""
        pieces, taken, parts = [], [], []
        for token in tokens:
            taken.append(token)
            is_stop = token in self.sequence.stop_ids
            pieces.append("" if is_stop else self._text.push(token))
            parts += self._turn.push(token, pieces[-1])
            if is_stop or self._text.stopped:
                self._finish_reason = "stop"
                break
        self._tokens.extend(taken)
        self._pieces.append("".join(pieces))
        self._parts += parts
        return Event(self._pieces[-1], taken, parts)

    def _end(self) -> tuple[str, list[Part]]:
        """Flush held-back text, close the figures, give the pages back."""
        rest = self._text.finish()
        parts = self._turn.finish(rest)
        self._pieces.append(rest)
        self._parts += parts
        sequence = self.sequence
        sequence.stats.completion_tokens = len(self._tokens)
        sequence.stats.useless = sequence.horizon.useless
        if self.keep is not None and not sequence.is_reading and sequence.cache.length:
            final_len = sequence.prompt_len + len(self._tokens)
            sequence.cache.roll_back(max(sequence.cache.length - final_len, 0))
            self.keep(sequence.tokens[: sequence.cache.length], sequence.cache)
        sequence.cache.release()
        self._result = Result(
            text="".join(self._pieces),
            tokens=self._tokens,
            finish_reason=self._finish_reason,
            prompt_tokens=sequence.prompt_len,
            seed=self._seed,
            stats=sequence.stats,
            logprobs=list(map(self._told, sequence.logprobs[: len(self._tokens)])),
            raw_text=self._tokenizer.spell(self._tokens),
            parts=turn.joined(self._parts),
        )
        return rest, parts

    def _told(self, entry: TokenLogprobs) -> Logprob:
        """With the tokens' texts, which the engine does not know."""

        def told(token: int, logprob: float, top: tuple[Logprob, ...] = ()) -> Logprob:
            return Logprob(token, self._tokenizer.spell([token]), logprob, top)

        return told(entry.token, entry.logprob, tuple(told(*pair) for pair in entry.top))


class Stream(Iterator[Event]):
    """One answer and the passes that write it. `result` is there after the end, and after `close()` or `with`.

    step  runs one pass and gives what it added to the answer, None after a prompt chunk
    """

    def __init__(self, answer: Answer, step: Callable[[], Event | None]) -> None:
        self._answer = answer
        self._step = step

    def __next__(self) -> Event:
        event = None
        while event is None:  # prompt chunks emit nothing
            event = self._step()
            if event is None and self._answer.is_done:
                _ = self._answer.result  # raises what made it fail
                raise StopIteration
        return event

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if not self._answer.is_done:
            self.close()

    def close(self) -> Result:
        """Stop here; whatever was written so far is the result. Harmless after the end."""
        return self._answer.close()

    @property
    def result(self) -> Result:
        """The whole answer; raises InputError while the stream is still open."""
        return self._answer.result
