"""Writes the answers of a run as its cases say, and gives their tokens. Compares nothing."""

from __future__ import annotations

from dataclasses import dataclass

from foretoken.api import Model
from foretoken.drafters.protocol import Drafter
from foretoken.ops import native
from foretoken.request import Request
from foretoken.scheduler import Scheduler
from foretoken.selftest.cases import Case, Run
from foretoken.selftest.drafters import ForcedDrafter, WrongDrafter
from foretoken.selftest.texts import Plain
from foretoken.stream import Answer, Result

STORE_BYTES = 64 << 20  # for prompts that later ones begin with
ROOM = 2048  # positions per answer at least: the store keeps nothing in a pool that one pass may fill


@dataclass
class Written:
    """What came of a case: tokens, prompt tokens taken from the store, and what failed, if anything did."""

    tokens: list[int]
    cached: int = 0
    error: str = ""


class Runner:
    """Runs on one model. `rejected` collects the (horizon, index) pairs at which drafts were rejected on purpose."""

    def __init__(self, model: Model, plain: Plain) -> None:
        self.rejected: set[tuple[int, int]] = set()
        self._model = model
        self._plain = plain
        self._wrong = WrongDrafter(model.target.config.vocab_len)

    def write(self, run: Run) -> list[Written]:
        """What each case of the run wrote, in the order of its cases; a pass that fails fails all of them."""
        drafters = [self._drafter(case) for case in run.cases]  # first: plain answers are written for some
        native.set_isa(run.isa)
        native.set_threads(run.threads)
        try:
            if len(run.cases) > 1:
                written = self._together(run, drafters)
            else:
                written = [self._alone(run.cases[0], run.chunk, drafters[0])]
        except Exception as error:  # whatever it is, it is a finding, and the other runs go on
            written = [_failed(error) for _ in run.cases]
        for drafter in drafters:
            if isinstance(drafter, ForcedDrafter):
                self.rejected |= drafter.rejected
        return written

    def _alone(self, case: Case, chunk: int, drafter: Drafter | None) -> Written:
        """As `Model.stream` does it, without a scheduler."""
        stream = self._model.start(case.text.request(case.length, case.horizon), chunk, drafter)
        for _ in stream:
            pass
        return _written(stream.result)

    def _together(self, run: Run, drafters: list[Drafter | None]) -> list[Written]:
        """As a server does it: answers join and leave while others are written."""
        scheduler = self._scheduler(run)
        waiting = sorted(range(len(run.cases)), key=lambda i: run.cases[i].joins)
        answers: dict[int, Answer] = {}
        passes = 0  # since the first answer's first token
        while waiting or scheduler.num_running or scheduler.num_waiting:
            is_idle = not scheduler.num_running and not scheduler.num_waiting
            while waiting and (run.cases[waiting[0]].joins <= passes or is_idle):
                i, is_idle = waiting.pop(0), False
                case = run.cases[i]
                answers[i] = scheduler.submit((case.text.request(case.length, case.horizon), drafters[i]))
            scheduler.step()
            passes += not answers[0].sequence.is_reading
            _let_leave({answer: run.cases[i].leaves for i, answer in answers.items()})
        return [_result_of(answers[i]) for i in range(len(run.cases))]

    def _scheduler(self, run: Run) -> Scheduler:
        longest = max(len(case.text.ids) + case.length for case in run.cases)
        positions = min(max(longest, ROOM), self._model.context_len)
        store_bytes = STORE_BYTES if run.uses_store else 0
        return self._model.schedule(_checked, run.parallel, store_bytes, run.chunk, positions, run.kept)

    def _drafter(self, case: Case) -> Drafter | None:
        if case.drafter == "mtp":
            return self._model.drafter
        if case.drafter == "wrong":
            return self._wrong
        if case.drafter == "forced":
            text = [*case.text.ids, *self._plain.tokens(case.text, case.length)]
            return ForcedDrafter(text, self._model.target.config.vocab_len)
        return None


def _checked(asked: tuple[Request, Drafter | None]) -> tuple[Request, Drafter | None]:
    return asked


def _let_leave(leaves: dict[Answer, int]) -> None:
    """Close the answers whose readers have enough; 0 is never enough."""
    for answer, count in leaves.items():
        written = len(answer.sequence.tokens) - answer.sequence.prompt_len
        if count and not answer.is_done and written >= count:
            answer.close()


def _result_of(answer: Answer) -> Written:
    try:
        return _written(answer.result)
    except Exception as error:  # what made this one answer fail; its neighbours went on
        return _failed(error)


def _written(result: Result) -> Written:
    return Written(result.tokens, result.stats.cached_tokens, result.stats.drafter_error or "")


def _failed(error: Exception) -> Written:
    return Written([], error=f"{type(error).__name__}: {error}")
