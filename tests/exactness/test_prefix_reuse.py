"""A prompt taken up where an earlier one ended gives the very tokens that reading it whole gives."""

import pytest
from pair import embedded

STORY = "The list goes on: " + " ".join(f"item {i} is number {i * i}," for i in range(90))


def write(scheduler, prompt=None, **options):
    stream = scheduler.stream(prompt, **{"temperature": 0.0, "max_tokens": 12, "ignore_eos": True, **options})
    assert "".join(event.text for event in stream) == stream.result.text
    return stream.result


@pytest.mark.parametrize("horizon", [0, 4])
def test_five_turns_read_only_what_is_new(horizon):
    model = embedded()
    scheduler, messages = model.scheduler(parallel=1), []
    before = 0
    for turn in range(5):
        messages.append({"role": "user", "content": f"Continue this list by {turn + 2} items: one, two, three"})
        options = {"messages": list(messages), "temperature": 0.7, "seed": turn, "max_tokens": 20, "horizon": horizon}
        reused = write(scheduler, ignore_eos=False, **options)
        assert reused.tokens == model.generate(**options).tokens
        assert reused.stats.cached_tokens >= before
        assert (reused.stats.cached_tokens > 0) == (turn > 0)
        before = reused.prompt_tokens  # all of this prompt is there for the next turn
        messages.append({"role": "assistant", "content": reused.text})


def test_hits_and_misses_past_the_window():
    model = embedded()
    scheduler = model.scheduler(parallel=2)
    ids = model.tokenizer.encode(STORY)
    assert len(ids) > 600
    for length in (len(ids), 550, len(ids), 300, len(ids) - 1):
        reused = write(scheduler, ids[:length])
        assert reused.tokens == model.generate(ids[:length], temperature=0.0, max_tokens=12, ignore_eos=True).tokens
    again = write(scheduler, [*ids, 600])
    assert again.stats.cached_tokens == len(ids)


def test_neighbours_share_a_beginning_and_part():
    model = embedded()
    scheduler = model.scheduler(parallel=3)
    start = model.tokenizer.encode(STORY)[:400]
    write(scheduler, start)
    prompts = [[*start, 600 + i, 700 + i] for i in range(3)]
    answers = [scheduler.submit(p, temperature=1.0, seed=i, max_tokens=30) for i, p in enumerate(prompts)]
    for _ in scheduler:
        pass
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        assert answer.result.stats.cached_tokens == 400
        assert answer.result.tokens == model.generate(prompt, temperature=1.0, seed=i, max_tokens=30).tokens


def test_without_memory_nothing_is_kept():
    scheduler = embedded().scheduler(parallel=1, prefix_bytes=0)
    write(scheduler, STORY)
    assert write(scheduler, STORY).stats.cached_tokens == 0
