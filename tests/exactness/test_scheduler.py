"""Several answers in one pass: nobody's tokens depend on who joins, leaves or waits."""

import time

import pytest
from pair import CODE, embedded

from foretoken.errors import InputError
from foretoken.horizon import FixedHorizon

PROMPTS = [CODE, "In the beginning", "1, 2, 3,", "x" * 40, "The", "{", "def f():", "Once upon a time there was"]


def solo(prompt, seed, **options):
    return embedded().generate(prompt, seed=seed, ignore_eos=True, **options)


def test_eight_neighbours_that_join_and_leave():
    options = [
        {"max_tokens": 5 + 7 * i, "temperature": float(i % 2), "horizon": (0, 4, 1, 8, 16, 2, 3, 5)[i]}
        for i in range(8)
    ]
    scheduler = embedded().scheduler(parallel=3)  # so that some wait until others have left
    answers = [scheduler.submit(prompt, seed=i, ignore_eos=True, **options[i]) for i, prompt in enumerate(PROMPTS)]
    assert scheduler.num_waiting == 8
    most = 0
    for _ in scheduler:
        most = max(most, scheduler.num_running)
    assert most == 3
    for i, (prompt, answer) in enumerate(zip(PROMPTS, answers, strict=True)):
        assert answer.result.tokens == solo(prompt, i, **options[i]).tokens


def test_events_make_the_texts():
    scheduler = embedded().scheduler(parallel=8)
    answers = [scheduler.submit(prompt, seed=1, temperature=1.0, max_tokens=20) for prompt in PROMPTS[:4]]
    texts = {id(answer): "" for answer in answers}
    for answer, event in scheduler:
        texts[id(answer)] += event.text
    assert [texts[id(answer)] for answer in answers] == [answer.result.text for answer in answers]


def test_a_loop_that_is_left_is_gone_on_with():
    """By the next loop, step by step, or along with a stream: every event comes once, in order."""
    scheduler = embedded().scheduler(parallel=4)
    answers = [scheduler.submit(prompt, seed=3, max_tokens=20, ignore_eos=True) for prompt in PROMPTS[:4]]
    texts = dict.fromkeys(map(id, answers), "")

    def take(pairs):
        for answer, event in pairs:
            texts[id(answer)] += event.text

    for pair in scheduler:
        take([pair])
        if len(texts[id(answers[1])]) > 8:
            break
    take(scheduler.step())
    stream = scheduler.stream(PROMPTS[4], max_tokens=10, temperature=0.0, ignore_eos=True)
    assert "".join(event.text for event in stream) == stream.result.text
    take(scheduler)
    assert [texts[id(answer)] for answer in answers] == [answer.result.text for answer in answers]


def test_a_closed_answer_leaves_and_gives_its_pages_back():
    scheduler = embedded().scheduler(parallel=2)
    pool = scheduler._pool
    free = {kind: pool.free_pages(kind) for kind in pool.windows}
    first, second = (scheduler.submit(p, max_tokens=30, temperature=0.0, ignore_eos=True) for p in PROMPTS[:2])
    scheduler.step()
    scheduler.step()
    assert first.close().finish_reason == "interrupted"
    for _ in scheduler:
        pass
    assert second.result.tokens == solo(PROMPTS[1], 0, max_tokens=30, temperature=0.0).tokens
    scheduler._store.clear()
    assert {kind: pool.free_pages(kind) for kind in pool.windows} == free


def test_a_list_of_prompts():
    results = embedded().generate(PROMPTS[:3], temperature=0.0, max_tokens=12, ignore_eos=True)
    assert [r.tokens for r in results] == [solo(p, 0, temperature=0.0, max_tokens=12).tokens for p in PROMPTS[:3]]


@pytest.mark.parametrize("parallel", [0, -1, 2000, "4", True])
def test_bad_parallel_raises(parallel):
    with pytest.raises(InputError, match="parallel"):
        embedded().scheduler(parallel)


def test_a_bad_request_is_refused_and_the_others_go_on():
    scheduler = embedded().scheduler(parallel=2)
    answer = scheduler.submit("The", temperature=0.0, max_tokens=5, ignore_eos=True)
    with pytest.raises(InputError, match="horizon"):
        scheduler.submit("The", horizon=17)
    for _ in scheduler:
        pass
    assert len(answer.result.tokens) == 5


def test_answers_know_their_place_and_say_how_far_they_are():
    scheduler = embedded().scheduler(parallel=1)
    first, second = (scheduler.submit(p, max_tokens=3, temperature=0.0, ignore_eos=True) for p in PROMPTS[:2])
    assert (first.index, second.index) == (0, 1)
    assert repr(second) == "<Answer 1: 0 tokens, reading its prompt>"
    scheduler.step()
    assert repr(first) == "<Answer 0: 1 tokens, being written>"
    lasts = [answer.index for answer, event in scheduler if event.is_last]
    assert lasts == [0, 1]
    assert repr(first) == "<Answer 0: 3 tokens, length>"


def test_a_closed_scheduler_ends_its_answers_and_takes_no_more():
    with embedded().scheduler(parallel=1) as scheduler:
        running, waiting = (scheduler.submit(p, max_tokens=30, ignore_eos=True) for p in PROMPTS[:2])
        stream = scheduler.stream("The", max_tokens=30)
        scheduler.step()
    assert (running.result.finish_reason, len(running.result.tokens)) == ("interrupted", 1)
    assert (waiting.result.finish_reason, waiting.result.tokens) == ("interrupted", [])
    assert list(stream) == list(scheduler) == []
    assert len(scheduler._store) == 0
    with pytest.raises(InputError, match="closed"):
        scheduler.submit("The")
    scheduler.close()


def test_a_cache_that_the_system_refuses_is_an_input_error(monkeypatch):
    def refuse(*arguments):
        raise MemoryError

    monkeypatch.setattr("foretoken.cache.PagePool", refuse)
    with pytest.raises(InputError, match="no memory for 1025 caches"):
        embedded().scheduler(1024)


def test_a_trace_that_raises_costs_nobody_figures():
    model, lines = embedded(), []
    scheduler = model.scheduler(parallel=3)

    def trace(line):
        lines.append(line)
        raise RuntimeError("full")

    model.trace = trace
    try:
        answers = [scheduler.submit(p, max_tokens=8, temperature=0.0, ignore_eos=True) for p in PROMPTS[:3]]
    finally:
        model.trace = None
    while scheduler.num_running or scheduler.num_waiting:
        try:
            scheduler.step()
        except RuntimeError:
            continue
    assert [a.result.tokens for a in answers] == [solo(p, 0, max_tokens=8, temperature=0.0).tokens for p in PROMPTS[:3]]
    assert len(lines) == sum(answer.result.stats.rounds for answer in answers)
    assert all(answer.result.stats.tok_per_s for answer in answers)


def test_what_else_a_round_takes_is_part_of_its_time(monkeypatch):
    observe = FixedHorizon.observe

    def slow(self, state, paid):
        time.sleep(0.02)
        observe(self, state, paid)

    monkeypatch.setattr(FixedHorizon, "observe", slow)
    stats = solo("The", 0, max_tokens=6, temperature=0.0, horizon=0).stats
    assert stats.rounds == 5 and stats.other_s >= 0.1
    assert stats.tok_per_s == pytest.approx(5 / (stats.verify_s + stats.draft_s + stats.other_s))
