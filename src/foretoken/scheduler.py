"""Several answers at once over one target: first come, first served, admitted when their worst case fits.

One pass of the target per step holds rows of every answer that is running: prompt chunks of some, rounds of others.
Nobody's tokens depend on who shares the pass (design promise P1). Not for several threads at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from foretoken import engine
from foretoken.cache import PagePool
from foretoken.errors import InputError
from foretoken.stream import Answer, Event


class Scheduler:
    """Made by `Model.scheduler`.

    begin        prompt and options as in `Model.stream` -> an `Answer` whose cache lies in `pool`
    max_running  most answers in one pass
    """

    def __init__(self, runner: engine.Engine, pool: PagePool, begin: Callable[..., Answer], max_running: int) -> None:
        self._runner = runner
        self._pool = pool
        self._begin = begin
        self._max_running = max_running
        self._waiting: deque[Answer] = deque()
        self._running: list[Answer] = []

    def submit(self, prompt: Any = None, **options: Any) -> Answer:
        """Queue an answer; options as in `Model.stream`. Raises InputError for what cannot be honoured."""
        answer = self._begin(prompt, **options)
        needed = self._pool.pages_for(answer.sequence.end)
        if any(pages > self._pool.num_pages(kind) for kind, pages in needed.items()):
            answer.close()
            raise InputError(
                f"prompt and answer may have {answer.sequence.end} tokens together, more than this cache holds. "
                "Ask for fewer tokens, or give the cache more memory."
            )
        self._waiting.append(answer)
        return answer

    @property
    def num_running(self) -> int:
        """Answers that the last pass worked on and that are not finished."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Answers that wait for a place or for memory."""
        return len(self._waiting)

    def step(self) -> list[tuple[Answer, Event]]:
        """Admit what fits, run one pass, and give what it added to each answer."""
        self._forget_closed()
        self._admit()
        if not self._running:
            return []
        self._runner.step([answer.sequence for answer in self._running])
        events = [(answer, answer.advance()) for answer in self._running]
        self._forget_closed()
        return [(answer, event) for answer, event in events if event is not None]

    def __iter__(self) -> Iterator[tuple[Answer, Event]]:
        """Run until every answer is finished."""
        while self._waiting or self._running:
            yield from self.step()

    def _admit(self) -> None:
        """In order of arrival: an answer that does not fit yet holds back those behind it, so none starves."""
        while self._waiting and len(self._running) < self._max_running and self._fits(self._waiting[0]):
            self._running.append(self._waiting.popleft())

    def _fits(self, answer: Answer) -> bool:
        needed = self._pool.pages_for(answer.sequence.end)
        for running in self._running:
            for kind, pages in self._pool.pages_for(running.sequence.end).items():
                needed[kind] += pages
        return all(pages <= self._pool.num_pages(kind) for kind, pages in needed.items())

    def _forget_closed(self) -> None:
        self._running = [answer for answer in self._running if not answer.is_done]
        self._waiting = deque(answer for answer in self._waiting if not answer.is_done)
