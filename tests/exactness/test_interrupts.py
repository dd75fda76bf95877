"""An interrupt at any line of a step loses nothing: reading on gives the same texts, and no page is lost or shared.

Python raises KeyboardInterrupt between two lines of whatever runs. Here a trace function does, at lines spread over a
whole run of several answers that begin alike.
"""

import linecache
import sys
from functools import cache
from pathlib import Path

import pytest

from foretoken import cache as cache_module
from foretoken.cache import PagePool
from foretoken.drafters.choice import Choice
from foretoken.drafters.model import CHUNK, MAX_DRAFT, ModelDrafter
from foretoken.drafters.suffix import SuffixDrafter
from foretoken.ops import native
from foretoken.selftest.toys import toy

FOLDER = Path(cache_module.__file__).parent
FILES = {str(FOLDER / f"{name}.py") for name in ("scheduler", "stream", "engine", "speculative", "cache", "prefix")}
FILES |= {str(FOLDER / f"{name}.py") for name in ("sampling", "turn", "tokenizer", "ops/native")}
FILES |= {str(FOLDER / "drafters" / f"{name}.py") for name in ("mtp", "suffix", "model", "choice")}
POINTS = 30
START = [5 + i * 37 % 200 for i in range(130)]
PROMPTS = [START, [*START[:128], 9, 8], START[:5], [*START, 7]]
OPTIONS = [
    {"max_tokens": 9, "temperature": 1.0, "seed": 3, "horizon": 4, "repetition_penalty": 1.3, "frequency_penalty": 0.5},
    {"max_tokens": 7, "temperature": 0.0, "horizon": 0, "logprobs": 2},
    {"max_tokens": 40, "temperature": 1.0, "seed": 8, "horizon": 8, "stop": ["e", "a", "s"]},
    {"max_tokens": 6, "temperature": 1.0, "seed": 2, "horizon": 3, "presence_penalty": 1.0, "logit_bias": {5: 1.0}},
]


@cache
def model():
    made = toy("experts", "q4")
    made.drafter = Choice([made.drafter, ModelDrafter(toy("unified", "q8").target)], SuffixDrafter())
    return made


@cache
def expected():
    return [model().generate(p, **{**o, "horizon": 0}) for p, o in zip(PROMPTS, OPTIONS, strict=True)]


class Interrupter:
    """Raises KeyboardInterrupt at the `at`-th line, or the next that may, once; counts lines."""

    def __init__(self, at):
        self.at, self.count = at, 0

    def __call__(self, frame, event, argument):
        return self._line if frame.f_code.co_filename in FILES else None

    def _line(self, frame, event, argument):
        if event == "line":
            self.count += 1
            line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
            is_door = "with " in line or line.strip() == "try:"  # no signal comes between a block and what ends it
            if self.count >= self.at > 0 and not is_door:
                self.at = -1
                raise KeyboardInterrupt
        return self._line


def checked(prompt, **options):
    return model()._request(prompt, **options), model().drafter


def write_all(at):
    """Lines run; every answer is compared with its plain one, and the pool with an untouched one."""
    scheduler = model().schedule(checked, 2, 1 << 20, 64, 192)
    pool = scheduler._pool
    free = {kind: pool.free_pages(kind) for kind in pool.windows}
    streams = [scheduler.stream(prompt, **options) for prompt, options in zip(PROMPTS, OPTIONS, strict=True)]
    interrupter, was = Interrupter(at), sys.gettrace()
    sys.settrace(interrupter)
    try:
        for stream in streams:
            left = 1000
            while left:  # an answer that nobody writes would be waited for without end
                left -= 1
                try:
                    next(stream)
                except StopIteration:
                    break
                except KeyboardInterrupt:
                    continue
            assert left
    finally:
        sys.settrace(was)
    for stream, plain in zip(streams, expected(), strict=True):
        result = stream.result
        assert (result.tokens, result.text, result.parts) == (plain.tokens, plain.text, plain.parts)
        assert (result.logprobs, result.finish_reason) == (plain.logprobs, plain.finish_reason)
        assert result.stats.drafter_error is None
    scheduler.step()  # the last one may have been the one that was interrupted
    scheduler._store.clear()
    assert {kind: pool.free_pages(kind) for kind in pool.windows} == free
    return interrupter.count


@cache
def num_lines():
    was = native.threads()
    native.set_threads(1)
    try:
        write_all(-1)  # records what later runs replay
        return write_all(-1)
    finally:
        native.set_threads(was)


@pytest.mark.parametrize("part", range(POINTS))
def test_an_interrupt_at_any_line_loses_nothing(part):
    write_all(1 + (num_lines() * part + part) // POINTS)


@pytest.mark.parametrize("at", range(1, 5))
def test_a_page_that_a_second_model_took_when_the_interrupt_came_is_not_lost(at, monkeypatch):
    taken, take = [], PagePool.take

    def interrupted(pool, kind):
        page = take(pool, kind)
        if pool.pass_rows == CHUNK + MAX_DRAFT:  # that of the drafter
            taken.append(page)
            if len(taken) == at:
                raise KeyboardInterrupt
        return page

    monkeypatch.setattr(PagePool, "take", interrupted)
    drafter = ModelDrafter(toy("unified", "q8").target)
    request = model()._request(START[:70], max_tokens=60, temperature=1.0, seed=8, horizon=4)
    stream, interrupts = model().start(request, 512, drafter), 0
    while True:
        try:
            next(stream)
        except StopIteration:
            break
        except KeyboardInterrupt:
            interrupts += 1
    assert interrupts == 1 and stream.result.stats.drafter_error is None
    assert stream.result.tokens == model().generate(START[:70], max_tokens=60, temperature=1.0, seed=8).tokens
