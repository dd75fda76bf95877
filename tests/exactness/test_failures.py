"""What fails ends alone, and what is interrupted goes on as if nothing had happened (design promises P3 and P5)."""

import numpy as np
import pytest
from pair import CODE, embedded

from foretoken.drafters.choice import Choice
from foretoken.drafters.protocol import Draft, check
from foretoken.drafters.suffix import SuffixDrafter
from foretoken.errors import ShapeError
from foretoken.sampling import Sampler

OPTIONS = {"temperature": 1.0, "seed": 5, "max_tokens": 25, "ignore_eos": True}


def failing_sampler(monkeypatch, error, at):
    """The `at`-th token drawn by any sampler raises `error`, once."""
    plain, calls = Sampler.token, iter(range(10**6))

    def token(self, *arguments):
        if next(calls) == at:
            raise error
        return plain(self, *arguments)

    monkeypatch.setattr(Sampler, "token", token)


@pytest.mark.parametrize("horizon", [0, 4])
def test_one_failing_answer_does_not_touch_the_others(monkeypatch, horizon):
    expected = [embedded().generate(CODE, horizon=horizon, **{**OPTIONS, "seed": i}).tokens for i in range(3)]
    scheduler = embedded().scheduler(parallel=3, prefix_bytes=0)
    pool = scheduler._pool
    free = pool.free_pages("full")
    answers = [scheduler.submit(CODE, horizon=horizon, **{**OPTIONS, "seed": i}) for i in range(3)]
    scheduler.step()
    plain, broken = Sampler.token, answers[1].sequence.sampler

    def token(self, *arguments):
        if self is broken:
            raise ShapeError("logits: a NaN")
        return plain(self, *arguments)

    monkeypatch.setattr(Sampler, "token", token)
    for _ in scheduler:
        pass
    with pytest.raises(ShapeError, match="NaN"):
        _ = answers[1].result
    assert [answers[i].result.tokens for i in (0, 2)] == [expected[0], expected[2]]
    assert pool.free_pages("full") == free


@pytest.mark.parametrize("at", [0, 1, 2, 7])
@pytest.mark.parametrize("horizon", [0, 4])
def test_a_stream_goes_on_after_an_interrupt(monkeypatch, horizon, at):
    expected = embedded().generate(CODE, horizon=horizon, **OPTIONS)
    stream = embedded().stream(CODE, horizon=horizon, **OPTIONS)
    failing_sampler(monkeypatch, KeyboardInterrupt(), at)
    events = []
    with pytest.raises(KeyboardInterrupt):
        for event in stream:
            events.append(event)
    events.extend(stream)
    assert stream.result.tokens == expected.tokens
    assert "".join(event.text for event in events) == expected.text


def test_a_drafter_that_fails_costs_drafts_only():
    class Broken:
        name = "broken"

        def propose(self, states, limits):
            raise ShapeError("scores: a NaN")

    model = embedded()
    request = model._request(CODE, horizon=4, **OPTIONS)
    stream = model.start(request, 512, Broken())
    for _ in stream:
        pass
    assert stream.result.tokens == model.generate(CODE, horizon=0, **OPTIONS).tokens
    assert set(stream.result.stats.fallbacks) == {"error"}
    assert "scores: a NaN" in stream.result.stats.advice[0]


ODD_DRAFTS = {
    "an id beyond the vocabulary": lambda limit: Draft([4096] * limit, np.ones(limit, np.float32)),
    "an id below 0": lambda limit: Draft([-1] * limit, np.ones(limit, np.float32)),
    "an id of a text": lambda limit: Draft(["a"] * limit, np.ones(limit, np.float32)),
    "too many tokens": lambda limit: Draft([3] * (limit + 40), np.ones(limit + 40, np.float32)),
    "a confidence too few": lambda limit: Draft([3] * limit, np.ones(limit - 1, np.float32)),
    "no confidences": lambda limit: Draft([3] * limit, None),
    "no draft": lambda limit: None,
    "a token that is no number": lambda limit: Draft([3.0, float("nan")][:limit], np.ones(min(limit, 2), np.float32)),
    "confidences in rows": lambda limit: Draft([3] * limit, np.ones((limit, 2), np.float32)),
    "confidences that are complex": lambda limit: Draft([3] * limit, np.ones(limit, complex)),
    "confidences that are texts": lambda limit: Draft([3] * limit, np.array(["x"] * limit)),
    "a source without a name": lambda limit: Draft([3] * limit, np.ones(limit, np.float32), 5),
    "an own that is a text": lambda limit: Draft([3] * limit, np.ones(limit, np.float32), "", "x"),
}


@pytest.mark.parametrize("horizon", [4, "long", "auto"])
@pytest.mark.parametrize("name", ODD_DRAFTS)
def test_a_drafter_that_breaks_its_promise_costs_drafts_only(name, horizon):
    """Its draft never reaches the pass, which others share."""

    class Odd:
        name = "odd"

        def propose(self, states, limits):
            return [ODD_DRAFTS[name](limit) for limit in limits]

    model = embedded()
    stream = model.start(model._request(CODE, horizon=horizon, **OPTIONS), 512, Odd())
    for _ in stream:
        pass
    assert stream.result.tokens == model.generate(CODE, horizon=0, **OPTIONS).tokens
    assert stream.result.stats.drafter_error


@pytest.mark.parametrize("horizon", [4, "auto"])
@pytest.mark.parametrize("kind", [np.array, tuple, lambda tokens: np.array(tokens, np.uint16)])
def test_numbers_of_other_kinds_are_taken_as_tokens_and_confidences(kind, horizon):
    class Mine:
        name = "mine"

        def propose(self, states, limits):
            return [Draft(kind([3] * limit), [1] * limit) for limit in limits]

    model = embedded()
    stream = model.start(model._request(CODE, horizon=horizon, **OPTIONS), 512, Mine())
    for _ in stream:
        pass
    assert stream.result.tokens == model.generate(CODE, horizon=0, **OPTIONS).tokens
    assert stream.result.stats.drafter_error is None
    assert stream.result.stats.drafted > 0 or horizon == "auto"


@pytest.mark.parametrize(
    "kind",
    [
        list,
        tuple,
        lambda chances: np.array(chances, np.float32),
        lambda chances: [np.float32(chance) for chance in chances],
        lambda chances: [np.float64(chance) for chance in chances],
        lambda chances: [np.float16(chances[0]), *chances[1:]],
    ],
)
def test_confidences_become_a_list_of_floats(kind):
    draft = Draft([3, 4, 5], kind([0.5, 0.25, 1.0]))
    check(draft, 3, 100)
    assert draft.confidence == [0.5, 0.25, 1.0]
    assert type(draft.confidence) is list and {type(chance) for chance in draft.confidence} == {float}


@pytest.mark.parametrize("confidence", [float("nan"), float("inf"), -5.0])
@pytest.mark.parametrize("horizon", [4, "auto"])
@pytest.mark.parametrize("chosen", [False, True], ids=["alone", "beside the text"])
def test_a_confidence_that_is_no_chance_changes_no_token(confidence, horizon, chosen):
    class Unsure:
        name = "unsure"

        def propose(self, states, limits):
            return [Draft([3] * limit, np.full(limit, confidence, np.float32)) for limit in limits]

    model = embedded()
    drafter = Choice([Unsure()], SuffixDrafter()) if chosen else Unsure()
    stream = model.start(model._request(CODE, horizon=horizon, **OPTIONS), 512, drafter)
    for _ in stream:
        pass
    assert stream.result.tokens == model.generate(CODE, horizon=0, **OPTIONS).tokens
    assert stream.result.stats.drafter_error is None


def test_two_streams_of_one_scheduler_lose_nothing():
    scheduler = embedded().scheduler(parallel=2)
    first, second = scheduler.stream(CODE, **OPTIONS), scheduler.stream("The", **OPTIONS)
    texts = ["".join(event.text for event in stream) for stream in (first, second)]
    assert texts == [first.result.text, second.result.text]
    assert texts[1]
