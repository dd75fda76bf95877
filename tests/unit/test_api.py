import copy
import itertools
import json
from dataclasses import replace

import gemma_template
import numpy as np
import pytest
from pair import CODE, QUESTION, embedded

import foretoken
from foretoken import places
from foretoken.chat import ChatTemplate
from foretoken.drafters.protocol import Draft
from foretoken.errors import ConfigError, InputError


def generate(prompt=CODE, **options):
    return embedded().generate(prompt, **{"temperature": 0.0, "max_tokens": 40, "ignore_eos": True, **options})


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 5, 17])
@pytest.mark.parametrize("horizon", [0, 4, 16])
def test_max_tokens_is_exact(max_tokens, horizon):
    result = generate(max_tokens=max_tokens, horizon=horizon)
    assert len(result.tokens) == max_tokens
    assert result.finish_reason == "length"
    assert result.stats.completion_tokens == max_tokens


@pytest.mark.parametrize("horizon", [0, 1, 4, 16])
def test_stop_string_ends_the_text_wherever_it_falls(horizon):
    whole = generate(horizon=0).text
    for start in range(2, len(whole) - 4, 3):
        stop = whole[start : start + 4]
        result = generate(horizon=horizon, stop=[stop])
        assert result.text == whole[: whole.index(stop)]
        assert result.finish_reason == "stop"


@pytest.mark.parametrize("horizon", [0, 4])
def test_stop_id_is_kept_in_tokens_and_nothing_follows(horizon):
    result = embedded().generate(messages=QUESTION, temperature=0.0, max_tokens=300, horizon=horizon)
    stops = embedded().defaults.eos_ids
    assert not set(result.tokens[:-1]) & set(stops)
    if result.finish_reason == "stop":
        assert result.tokens[-1] in stops


def test_stop_ids_that_are_no_tokens_are_harmless():
    model, question = copy.copy(embedded()), {"messages": QUESTION, "temperature": 0.0, "max_tokens": 300}
    model.defaults = replace(model.defaults, eos_ids=(1 << 40, *model.defaults.eos_ids, 1 << 31))
    assert model.generate(**question).tokens == embedded().generate(**question, horizon=0).tokens


def test_no_draft_goes_beyond_the_end_of_an_answer():
    model, plain = embedded(), embedded().generate(messages=QUESTION, temperature=0.0, max_tokens=300, horizon=0)
    assert plain.finish_reason == "stop"

    class Knowing:
        name = "knowing"

        def propose(self, states, limits):
            written = [len(s.tokens) - s.prompt_len for s in states]
            right = [(plain.tokens + [7] * 20)[n : n + limit] for n, limit in zip(written, limits, strict=True)]
            return [Draft(tokens, [1.0] * len(tokens)) for tokens in right]

    for horizon in range(1, 8):
        request = model._request(messages=QUESTION, temperature=0.0, max_tokens=300, horizon=horizon)
        stream = model.start(request, 512, Knowing())
        for _ in stream:
            pass
        stats = stream.result.stats
        assert stream.result.tokens == plain.tokens
        assert stats.drafted == stats.accepted == len(plain.tokens) - 1 - stats.rounds


def with_template(source=gemma_template.SMALL, **defaults):
    model = copy.copy(embedded())
    model.chat_template = ChatTemplate(source, {"bos_token": "<bos>"})
    model.defaults = replace(model.defaults, **defaults)
    return model


@pytest.mark.parametrize("mark", ["<eos>", "<turn|>", "<|tool_response>", "<tool_call|>"])
@pytest.mark.parametrize("horizon", [0, 4])
def test_every_stop_id_of_the_model_stops(mark, horizon):
    stops = [embedded().tokenizer.id_of(m) for m in ("<eos>", "<turn|>", "<|tool_response>", "<tool_call|>")]
    model, token = with_template(eos_ids=tuple(stops)), embedded().tokenizer.id_of(mark)
    result = model.generate(CODE, temperature=0.0, logit_bias={token: 1000.0}, horizon=horizon)
    assert (result.tokens, result.finish_reason, result.text) == ([token], "stop", "")
    assert result.raw_text == mark


def test_with_tools_the_model_stops_where_it_waits_for_a_result():
    model, token = with_template(), embedded().tokenizer.id_of("<|tool_response>")
    options = {"messages": QUESTION, "temperature": 0.0, "logit_bias": {token: 1000.0}, "max_tokens": 3}
    assert model.generate(tools=gemma_template.TOOLS, **options).tokens == [token]
    assert model.generate(**options).tokens == [token] * 3
    assert len(model.generate(tools=gemma_template.TOOLS, ignore_eos=True, **options).tokens) == 3


def test_thinking_and_tools_reach_the_template():
    model, options = with_template(gemma_template.LARGE), {"messages": QUESTION, "max_tokens": 1}
    lengths = [model.generate(thinking=thinking, **options).prompt_tokens for thinking in (None, False, True)]
    assert lengths[0] == lengths[1] != lengths[2]
    assert model.generate(tools=gemma_template.TOOLS, **options).prompt_tokens > lengths[0] + 20


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"messages": QUESTION, "thinking": "yes"}, "thinking is 'yes'"),
        ({"messages": QUESTION, "tools": "get_weather"}, "expected a list"),
        ({"messages": QUESTION, "tools": [{"name": "f"}]}, "no function"),
        ({"prompt": CODE, "thinking": True}, "are for messages"),
        ({"prompt": CODE, "tools": gemma_template.TOOLS}, "are for messages"),
        ({"messages": ["Hello."]}, "message 1 is 'Hello.'"),
        ({"messages": [{"role": "user", "content": "\udcff"}]}, "UTF-8"),
    ],
)
def test_bad_turns_raise(options, words):
    with pytest.raises(InputError, match=words):
        with_template().generate(**options)


def test_what_the_template_would_ignore_is_an_error():
    with pytest.raises(InputError, match="no thinking"):
        embedded().generate(messages=QUESTION, thinking=True)
    with pytest.raises(InputError, match="no tools"):
        embedded().generate(messages=QUESTION, tools=gemma_template.TOOLS)
    assert embedded().generate(messages=QUESTION, thinking=False, max_tokens=1).tokens


def test_pieces_of_a_stream_make_the_whole_text():
    stream = embedded().stream(CODE, temperature=1.0, seed=5, max_tokens=80, ignore_eos=True)
    events = list(stream)
    assert "".join(event.text for event in events) == stream.result.text
    assert [token for event in events for token in event.tokens] == stream.result.tokens
    assert [part.text for part in stream.result.parts] == [stream.result.text]
    assert "".join(part.text for event in events for part in event.parts) == stream.result.text


def test_closing_a_stream_keeps_what_came():
    stream = embedded().stream(CODE, temperature=0.0, max_tokens=80, ignore_eos=True)
    first = next(stream)
    with pytest.raises(InputError, match="not finished"):
        _ = stream.result
    result = stream.close()
    assert result.finish_reason == "interrupted"
    assert result.tokens == first.tokens
    assert list(stream) == []


def test_the_end_of_with_closes_a_stream():
    with embedded().stream(CODE, temperature=0.0, max_tokens=80, ignore_eos=True) as stream:
        first = next(stream)
    assert (stream.result.finish_reason, stream.result.tokens) == ("interrupted", first.tokens)
    with embedded().stream(CODE, max_tokens=3, ignore_eos=True) as stream:
        assert len(list(stream)) > 0
    assert stream.result.finish_reason == "length"


def test_completion_sees_what_is_public():
    assert set(foretoken.__all__) <= set(dir(foretoken))
    assert all(getattr(foretoken, name) is not None for name in foretoken.__all__)


def test_a_seed_is_drawn_and_reported():
    first = generate(temperature=1.0)
    again = generate(temperature=1.0, seed=first.seed)
    assert again.tokens == first.tokens


def test_logprobs_stand_beside_every_token():
    for horizon in (0, 4):
        result = generate(temperature=1.0, seed=3, logprobs=3, horizon=horizon, max_tokens=25)
        assert [entry.token for entry in result.logprobs] == result.tokens
        for entry in result.logprobs:
            values = [one.logprob for one in entry.top]
            assert values == sorted(values, reverse=True) and len(values) == 3
            assert entry.logprob <= values[0] <= 0.0
    assert generate(max_tokens=3).logprobs == []


def test_n_answers_and_the_first_is_the_seeds_own():
    results = generate(temperature=1.0, seed=9, n=3, max_tokens=15)
    assert results[0].tokens == generate(temperature=1.0, seed=9, max_tokens=15).tokens
    assert len({tuple(r.tokens) for r in results}) == 3


def test_numpy_ids_are_welcome():
    ids = np.array([2, 600, 601])
    assert generate(ids, max_tokens=np.int64(3), horizon=np.int64(2)).tokens == generate(ids, max_tokens=3).tokens
    assert generate(ids, max_tokens=3).tokens == generate(ids.tolist(), max_tokens=3).tokens


def test_context_end():
    ids = [5 + i % 50 for i in range(embedded().context_len - 3)]
    for horizon in (0, 8):
        result = embedded().generate(ids, temperature=0.0, max_tokens=50, horizon=horizon, ignore_eos=True)
        assert len(result.tokens) == 3
        assert result.finish_reason == "length"


NESTED: list = []
for _ in range(100_000):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompt": ""}, "empty"),
        ({"prompt": None}, "either a prompt or messages"),
        ({"prompt": [1, 10**9]}, "token id"),
        ({"prompt": "\udcff"}, "UTF-8"),
        ({"prompt": [1] * 5000}, "context"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"horizon": 17}, "horizon"),
        ({"temperature": -1.0}, "temperature"),
        ({"stop": [""]}, "stop"),
        ({"seed": -1}, "seed"),
        ({"logit_bias": {10**6: 1.0}}, "logit_bias"),
        ({"logprobs": 21}, "logprobs"),
        ({"n": 0}, "n is 0"),
        ({"prompt": ["a", "b"], "n": 2}, "not both"),
        ({"prompt": b"hi"}, "bytes"),
        ({"prompt": 5}, "int"),
        ({"prompt": ["a", 5]}, "int"),
        ({"stop": 5}, "stop"),
        ({"stop": ["\udcff"]}, "stop"),
        ({"logit_bias": "x"}, "logit_bias"),
        ({"temperature": 10**400}, "temperature"),
        ({"ignore_eos": "no"}, "ignore_eos"),
        ({"repetition_penalty": -1.0}, "repetition_penalty"),
        ({"seed": 10**5000}, "seed is of type int"),
        ({"prompt": [10**5000]}, "token id"),
        ({"prompt": NESTED}, "several texts"),
        ({"prompt": itertools.repeat(1)}, "repeat"),
        ({"prompt": np.array(1)}, "ndarray"),
        ({"prompt": None, "messages": itertools.repeat(QUESTION[0])}, "messages"),
        ({"prompt": None, "messages": np.array([1, 2])}, "messages"),
        ({"prompt": None, "messages": QUESTION, "tools": np.array([1, 2])}, "expected a list"),
        ({"stop": ["x"] * 65}, "stop"),
    ],
)
def test_bad_input_raises(options, words):
    with pytest.raises(InputError, match=words):
        generate(**options)


def test_drafter_none_is_named():
    model = embedded(drafter="none")
    assert model.info()["drafter"] == {
        "name": "none", "state": "off", "reason": "switched off with drafter none", "sources": [],
    }  # fmt: skip
    result = model.generate(CODE, temperature=0.0, max_tokens=10)
    assert set(result.stats.fallbacks) == {"no-drafter"}


def test_bad_load_arguments_raise():
    with pytest.raises(InputError, match="format"):
        foretoken.load(format="q3")
    with pytest.raises(InputError, match="chunk"):
        foretoken.load(chunk=0)
    for wrong in (10**5000, np.array(["q8", "q4"])):
        with pytest.raises(InputError, match="format"):
            foretoken.load(format=wrong)
        with pytest.raises(InputError, match="drafter"):
            foretoken.load(drafter=wrong)
    for wrong in (5, b"x"):
        with pytest.raises(InputError, match="model"):
            foretoken.load(wrong)
    with pytest.raises(InputError, match="drafter"):
        foretoken.load(drafter=None)
    with pytest.raises(foretoken.ForetokenError):
        foretoken.load("no/such/folder")


def test_a_model_in_the_current_folder(monkeypatch):
    monkeypatch.chdir(places.ASSETS / "target")
    model = foretoken.load(".")
    assert model.name == "target"


def test_a_model_that_suppresses_every_token_is_refused(tmp_path):
    for path in (places.ASSETS / "target").iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "generation_config.json").unlink()
    every = list(range(embedded().target.config.vocab_len))
    (tmp_path / "generation_config.json").write_text(json.dumps({"suppress_tokens": every}))
    with pytest.raises(ConfigError, match="no token to draw"):
        foretoken.load(tmp_path)
