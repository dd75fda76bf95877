"""Several answers at once over one target: first come, first served, admitted when their worst case fits.

One pass of the target per step holds rows of every answer that is running: prompt chunks of some, rounds of others.
Nobody's tokens depend on who shares the pass (design promise P1). Prompts and answers stay in a `PrefixStore`, so a
prompt that begins like an earlier one is read from there on. Not for several threads at once.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Unpack

from foretoken import engine
from foretoken.cache import PagePool
from foretoken.errors import InputError
from foretoken.ops import PAGE
from foretoken.prefix import PrefixStore, checkpoints, shared_len
from foretoken.request import Options, with_options
from foretoken.stream import Answer, Event, Stream


class Scheduler:
    """Made by `Model.scheduler`.

    begin         prompt and options as in `Model.stream` -> an `Answer` whose cache lies in `pool`
    max_running   most answers in one pass
    store         what was read before; lies in `pool` too
    turn_end_ids  tokens that end a turn: good places to take a prompt up again
    """

    def __init__(
        self,
        runner: engine.Engine,
        pool: PagePool,
        begin: Callable[..., Answer],
        max_running: int,
        store: PrefixStore,
        turn_end_ids: frozenset[int],
    ) -> None:
        self._runner = runner
        self._pool = pool
        self._begin = begin
        self._max_running = max_running
        self._store = store
        self._turn_end_ids = turn_end_ids
        self._streamed: dict[int, deque[Event]] = {}  # events that a `stream` has not read yet, by answer
        self._waiting: deque[Answer] = deque()
        self._running: list[Answer] = []
        self._num_taken = 0
        self._is_closed = False
        self._events: deque[tuple[Answer, Event]] = deque()  # that nobody has taken yet, but for those of streams
        self._is_whole = True  # False during a step, and after one that was interrupted

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what is not finished, as `Answer.close` does, and forget every prompt; nothing can be submitted after."""
        self._is_closed = True
        for answer in (*self._running, *self._waiting):
            answer.close()
        self._forget_closed()
        self._events.clear()
        self._store.clear()

    @with_options
    def submit(self, prompt: Any = None, **options: Unpack[Options]) -> Answer:
        """Queue an answer. Iterating over the scheduler gives pairs (answer, event); `answer.index` counts from 0.

        prompt   text to continue, token ids taken as they are, or a conversation as `messages`
        raises   InputError for anything that cannot be honoured
        """
        if self._is_closed:
            raise InputError("this scheduler is closed. Make a new one.")
        answer = self._begin(prompt, **options)
        needed = self._pool.pages_for(answer.sequence.end)
        if any(pages > self._pool.num_pages(kind) for kind, pages in needed.items()):
            answer.close()
            raise InputError(
                f"prompt and answer may have {answer.sequence.end} tokens together, more than this cache holds. "
                "Ask for fewer tokens, or give the cache more memory."
            )
        answer.keep = self._store.keep
        answer.index, self._num_taken = self._num_taken, self._num_taken + 1
        self._waiting.append(answer)
        return answer

    @with_options
    def stream(self, prompt: Any = None, **options: Unpack[Options]) -> Stream:
        """One answer as a stream; reading it runs the others along, whose events wait for their own readers."""
        answer = self.submit(prompt, **options)
        events = self._streamed[id(answer)] = deque[Event]()

        def step() -> Event | None:
            if not events and not answer.is_done:
                self._step()
            return events.popleft() if events else None

        return Stream(answer, step)

    @property
    def num_running(self) -> int:
        """Answers that the last pass worked on and that are not finished."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Answers that wait for a place or for memory."""
        return len(self._waiting)

    def step(self) -> list[tuple[Answer, Event]]:
        """Admit what fits, run one pass, and give what it added to each answer.

        Events that nobody has taken yet come first: of a step that was interrupted, of a loop that was left, of answers
        that ran along with a stream. A stream's own events are its own.
        """
        self._step()
        events = list(self._events)
        self._events.clear()
        return events

    def _step(self) -> None:
        if not self._is_whole:
            self._pool.recount()
            self._store.recount()
        self._is_whole = False
        self._forget_closed()
        self._admit()
        if not any(answer.is_behind for answer in self._running):
            self._run_pass()
        for answer in self._running:
            self._keep_checkpoint(answer.sequence)
            if (event := answer.advance()) is not None:
                own = self._streamed.get(id(answer))
                if own is None:
                    self._events.append((answer, event))
                else:
                    own.append(event)
        self._forget_closed()
        self._is_whole = True

    def _run_pass(self) -> None:
        if self._running:
            most_pages = len(self._running) * (self._pool.pass_rows // PAGE + 2)
            self._store.make_room(dict.fromkeys(self._pool.windows, most_pages))
            self._runner.step([answer.sequence for answer in self._running])

    def __iter__(self) -> Iterator[tuple[Answer, Event]]:
        """Run until every answer is finished. What a loop that is left has not taken the next one begins with."""
        while self._events or self._waiting or self._running:
            if self._events:
                yield self._events.popleft()
            else:
                self._step()

    def _admit(self) -> None:
        """In order of arrival: an answer that does not fit yet holds back those behind it, so none starves."""
        promised = self._promised()
        while self._waiting and len(self._running) < self._max_running:
            answer = self._waiting[0]
            sequence = answer.sequence
            for kind, pages in self._pool.pages_for(sequence.end).items():
                promised[kind] += pages
            if any(pages > self._pool.num_pages(kind) for kind, pages in promised.items()):
                return
            if self._is_being_read(sequence.tokens):
                return
            running = [(other.sequence.tokens, other.sequence.cache) for other in self._running]
            cache = self._store.take(sequence.tokens, running if self._store.is_on else ())
            sequence.start_from(cache, checkpoints(sequence.tokens, self._turn_end_ids, cache.length))
            self._running.append(answer)  # first: `_forget_closed` mends what an interrupt leaves in both
            self._waiting.popleft()

    def _is_being_read(self, tokens: list[int]) -> bool:
        """Whether a running answer is about to read a page or more of this beginning, to be shared then."""
        start = tokens[:PAGE]
        reading = [answer.sequence for answer in self._running if answer.sequence.is_reading and self._store.is_on]
        return any(
            other.tokens[:PAGE] == start
            and min(shared_len(tokens[:-1], other.tokens), other.prompt_len) >= other.cache.length + PAGE
            for other in reading
        )

    def _keep_checkpoint(self, sequence: engine.Sequence) -> None:
        if sequence.checkpoints and sequence.cache.length == sequence.checkpoints[0]:
            self._store.keep(sequence.tokens[: sequence.checkpoints[0]], sequence.cache)
            del sequence.checkpoints[0]

    def _promised(self) -> Counter[str]:
        """Pages by kind that the running answers may come to need."""
        pages = Counter[str]()
        for answer in self._running:
            pages.update(self._pool.pages_for(answer.sequence.end))
        return pages

    def _forget_closed(self) -> None:
        self._running = [answer for answer in self._running if not answer.is_done]
        running = set(map(id, self._running))
        self._waiting = deque(a for a in self._waiting if not a.is_done and id(a) not in running)
        alive = {*running, *map(id, self._waiting)}
        self._streamed = {key: events for key, events in self._streamed.items() if key in alive}
