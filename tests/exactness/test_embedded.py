"""The embedded pair: one answer, whatever the horizon, threads, chunking, instruction set and drafter."""

import pytest
from pair import CODE, QUESTION, embedded

from foretoken.horizon import MAX_HORIZON
from foretoken.ops import native

LENGTH = 60


@pytest.fixture(autouse=True)
def restore_ops():
    was = native.isa(), native.threads()
    yield
    native.set_isa(was[0])
    native.set_threads(was[1])


def answer(horizon, temperature=0.0, prompt=CODE, length=LENGTH, **options):
    return embedded(**options).generate(
        prompt, horizon=horizon, temperature=temperature, seed=7, max_tokens=length, ignore_eos=True
    )


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("horizon", range(1, MAX_HORIZON + 1))
def test_every_horizon_gives_the_plain_tokens(horizon, temperature):
    assert answer(horizon, temperature).tokens == answer(0, temperature).tokens


@pytest.mark.parametrize("format", ["f32", "q8"])
@pytest.mark.parametrize("isa", native.isas())
def test_every_instruction_set_gives_the_same_tokens(isa, format):
    expected = answer(4, 1.0, format=format, length=30).tokens
    native.set_isa(isa)
    assert answer(4, 1.0, format=format, length=30).tokens == expected


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_thread_count_gives_the_same_tokens(threads):
    expected = answer(4, 1.0).tokens
    native.set_threads(threads)
    assert answer(4, 1.0).tokens == expected


def test_past_the_window():
    prompt = "Count: " + " ".join(str(i) for i in range(400))
    plain = answer(0, prompt=prompt)
    assert plain.prompt_tokens > 600
    assert answer(5, prompt=prompt).tokens == plain.tokens


def test_drafts_are_accepted():
    result = embedded().generate(messages=QUESTION, temperature=0.0, horizon=4, max_tokens=80)
    assert result.finish_reason == "stop"
    assert result.stats.tokens_per_round > 2.5
