"""What a caller may ask for: one definition of the options, several texts, and messages that say what is wrong."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
from pair import CODE, QUESTION, embedded

import foretoken
from foretoken import request
from foretoken.errors import InputError
from foretoken.scheduler import Scheduler

SHORT = {"temperature": 0.0, "max_tokens": 4, "ignore_eos": True}
OTHER = [{"role": "user", "content": "Define the word «salt»."}]


@pytest.mark.parametrize(
    "function", [foretoken.Model.generate, foretoken.Model.stream, Scheduler.submit, Scheduler.stream]
)
def test_help_and_completion_see_every_option_with_its_default(function):
    parameters = inspect.signature(function).parameters
    assert request.DEFAULTS.keys() == request.Options.__annotations__.keys()
    assert {name: parameters[name].default for name in request.DEFAULTS} == request.DEFAULTS
    assert all(p.kind is not p.VAR_KEYWORD for p in parameters.values())
    assert all(name in function.__doc__ for name in request.DEFAULTS)


@pytest.mark.parametrize("texts", [["One", "Two"], [[5, 6], [7]], [np.array([5, 6]), "Two"], [QUESTION, OTHER, "One"]])
def test_several_texts_are_answered_in_their_order(texts):
    results = embedded().generate(texts, **SHORT)
    assert [r.tokens for r in results] == [embedded().generate(text, **SHORT).tokens for text in texts]


def test_conversations_may_be_given_as_messages_or_as_texts():
    expected = [embedded().generate(messages=messages, **SHORT).tokens for messages in (QUESTION, OTHER)]
    assert [r.tokens for r in embedded().generate(messages=[QUESTION, OTHER], **SHORT)] == expected
    assert [r.tokens for r in embedded().generate([QUESTION, OTHER], **SHORT)] == expected
    assert embedded().generate(QUESTION, **SHORT).tokens == expected[0]


def test_no_texts_give_no_answers():
    assert embedded().generate([]) == []
    assert embedded().generate((), max_tokens=3) == []


def test_each_text_may_have_options_of_its_own():
    options = {"temperature": 1.0, "ignore_eos": True, "max_tokens": 5}
    results = embedded().generate([CODE, CODE], each=[{"seed": 1}, {"seed": 2, "max_tokens": 3}], **options)
    assert [(r.seed, len(r.tokens)) for r in results] == [(1, 5), (2, 3)]
    assert results[0].tokens == embedded().generate(CODE, seed=1, **options).tokens


def test_more_texts_than_one_pass_takes(monkeypatch):
    monkeypatch.setattr("foretoken.api.MAX_PARALLEL", 2)
    assert len(embedded().generate(["a", "b", "c"], **SHORT)) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_new_tokens": 3}, "no option max_new_tokens. Did you mean max_tokens?"),
        ({"top-k": 3}, "no option top-k. Did you mean top_k?"),
        ({"colour": 3}, "no option colour. There are messages, thinking, "),
        ({"temperature": "0"}, "temperature is '0', expected a number"),
        ({"temperature": 10**5000}, "temperature is of type int and too large to show, expected"),
        ({"max_tokens": "5"}, "max_tokens is '5', expected a whole number"),
        ({"each": [{}]}, "each is for a list of texts"),
    ],
)
def test_what_is_wrong_with_an_option_is_said(options, words):
    with pytest.raises(InputError, match=words):
        embedded().generate(CODE, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"each": [{}]}, "each has 1 entries for 2 texts"),
        ({"each": {"seed": 1}}, "expected a list with a mapping of options per text"),
        ({"each": [{}, {"sed": 1}]}, "text 2 of 2: there is no option sed. Did you mean seed?"),
        ({"each": [{}, {"n": 2}]}, "n is for generate"),
        ({"messages": QUESTION}, "either a prompt or messages"),
    ],
)
def test_what_is_wrong_with_one_of_several_texts_is_said(options, words):
    with pytest.raises(InputError, match=words):
        embedded().generate([CODE, "Two"], **options)


def test_what_is_none_is_not_given():
    asked = dict.fromkeys(request.DEFAULTS) | {"messages": QUESTION, "seed": 3}
    assert embedded().generate(**asked).tokens == embedded().generate(messages=QUESTION, seed=3).tokens


def test_an_answer_continues_one_text():
    scheduler = embedded().scheduler(parallel=2)
    for ask in (embedded().stream, scheduler.submit, scheduler.stream):
        for texts in ({"prompt": ["a", "b"]}, {"messages": [QUESTION, OTHER]}, {"prompt": [QUESTION]}):
            with pytest.raises(InputError, match="Give the list to generate, or submit each of them to a scheduler"):
                ask(**texts)
        with pytest.raises(InputError, match="n is for generate"):
            ask("a", n=2)
        with pytest.raises(InputError, match="Did you mean max_tokens"):
            ask("a", max_new_tokens=2)
        with pytest.raises(InputError, match="empty"):
            ask([])
    assert scheduler.num_waiting == 0


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ("hello", "messages is 'hello', expected a list of turns"),
        ({"role": "user", "content": "Hi"}, "messages is {'role': 'user', "),
        ([*QUESTION, "Hello."], "message 2 is 'Hello.', expected"),
        ([{"role": "user"}], "message 1, of role user, has no content"),
        ([{"role": "user", "content": None}], "has no content"),
        ([{"content": "Hi"}], "the role of message 1 is None"),
        ([], "no messages"),
        ([{"role": "user", "content": 5}], "message 1, of role user, has the content 5, expected text"),
        ([{"role": "user", "content": {"a": 1}}], "has the content"),
        ([*QUESTION, {"role": "user", "content": [{"type": "image", "image": "x.png"}]}], "message 2, .*'image'"),
        ([{"role": "user", "content": [{"type": "text", "text": 5}]}], "text is all that is read"),
        ([{"role": "user", "content": ["Hi"]}], "has the part 'Hi'"),
    ],
)
def test_what_is_wrong_with_messages_is_said(messages, words):
    with pytest.raises(InputError, match=words):
        embedded().generate(messages=messages)


def test_parts_of_a_text_are_lines_where_the_template_reads_no_parts():
    (turn,) = QUESTION
    one, two = turn["content"].split("\n\n")
    parts = [{"type": "text", "text": f"{one}\n"}, {"type": "text", "text": two}]
    expected = embedded().generate(messages=QUESTION, **SHORT)
    found = embedded().generate(messages=[{**turn, "content": parts}], **SHORT)
    assert (found.tokens, found.prompt_tokens) == (expected.tokens, expected.prompt_tokens)


def test_an_unknown_argument_of_load_names_the_known_ones():
    with pytest.raises(InputError, match=r"no option formt\. Did you mean format\?"):
        foretoken.load(formt="q4")
    with pytest.raises(InputError, match=r"no option quant\. There are model, drafter, format, .*, warn\."):
        foretoken.load(quant="q4")


def test_log_probabilities_carry_the_text_of_their_tokens():
    result = embedded().generate(CODE, temperature=1.0, seed=3, logprobs=2, max_tokens=6, ignore_eos=True)
    assert "".join(entry.text for entry in result.logprobs) == result.raw_text
    for entry in result.logprobs:
        for one in entry.top:
            assert one.text == embedded().tokenizer.spell([one.token])
            assert one.top == ()
            assert (one.token != entry.token) or replace(entry, top=()) == one


def test_the_last_event_says_so():
    stream = embedded().stream(CODE, temperature=0.0, max_tokens=12, ignore_eos=True, horizon=2)
    assert [event.is_last for event in stream] == [False] * stream.result.stats.rounds + [True]
