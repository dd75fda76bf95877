"""Thinking and tools on the command line: options, what goes where, and the history of a chat."""

import json
import shutil

import gemma_template
import pytest
from cli.command import SHORT, assert_refused, foretoken

from foretoken.chat import ChatTemplate
from foretoken.cli import chat
from foretoken.errors import InputError
from foretoken.places import ASSETS
from foretoken.stats import Stats
from foretoken.stream import Event, Result
from foretoken.turn import Part

OPEN_THOUGHT = gemma_template.SMALL.replace(
    "'<|turn>model\\n' -}}\n{%- endif", "'<|turn>model\\n<|channel>thought\\n' -}}\n{%- endif"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The embedded target with a template that begins every answer with a thought, as the tiny model never would."""
    folder = shutil.copytree(ASSETS / "target", tmp_path_factory.mktemp("models") / "model")
    (folder / "chat_template.jinja").write_text(OPEN_THOUGHT)
    return folder


@pytest.fixture
def tools(tmp_path):
    path = tmp_path / "tools.json"
    path.write_text(json.dumps(gemma_template.TOOLS))
    return path


def test_a_thought_goes_to_stderr_under_a_heading(model):
    assert OPEN_THOUGHT != gemma_template.SMALL
    finished = foretoken("generate", "Hi", "--chat", "--thinking", "--model", model, *SHORT)
    assert finished.code == 0
    assert finished.out == "\n"
    assert "── thought ──\n" in finished.err and "\x1b" not in finished.err


def test_json_keeps_the_raw_text(model, tools):
    options = ("--chat", "--thinking", "--tools", tools, "--model", model, "--json")
    finished = foretoken("generate", "Hi", *options, *SHORT)
    assert finished.code == 0
    assert finished.json["raw_text"].startswith(finished.json["text"][:3])
    assert "── thought ──" not in finished.err
    without = foretoken("generate", "Hi", "--chat", "--model", model, "--json", *SHORT).json
    assert finished.json["stats"]["prompt_tokens"] > without["stats"]["prompt_tokens"] + 20


def test_a_template_that_ignores_an_option_is_named(tools):
    finished = foretoken("generate", "Hi", "--chat", "--thinking", "--tools", tools, *SHORT)
    assert finished.code == 0
    assert "has no thinking" in finished.err
    assert "has no tools" in finished.err
    finished = foretoken("chat", "--no-thinking", "--max-tokens", "4", stdin=b"Hi\n")
    assert (finished.code, finished.err.count("has no")) == (0, 0)


@pytest.mark.parametrize("text", ["", "{}", "[5]", '[{"type": "function", "function": {"name": "a b"}}]', "[" * 10_000])
def test_hostile_tools_are_refused(tmp_path, text):
    path = tmp_path / "tools.json"
    path.write_text(text)
    assert_refused(foretoken("chat", "--tools", path), "tools.json")


def test_options_of_a_turn_need_a_turn(tools):
    assert_refused(foretoken("generate", "Hi", "--thinking"), "--chat")
    assert_refused(foretoken("generate", "Hi", "--tools", tools), "--chat")
    assert_refused(foretoken("generate", "Hi", "--chat", "--tools", tools.parent / "none.json"), "none.json")


class Scripted:
    """A model and its scheduler whose answers are known before; an answer of None cannot be given."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def scheduler(self, parallel):
        return self

    def stream(self, messages, **settings):
        self.asked.append([dict(message) for message in messages])
        parts = self.answers.pop(0)
        if parts is None:
            raise InputError("too long.")
        return Whole(parts)


class Whole:
    def __init__(self, parts):
        self.parts = parts

    def __iter__(self):
        return iter([Event("", [], self.parts)])

    def close(self):
        return Result("", [], "stop", 1, 0, Stats(), [], "", self.parts)


def call(city):
    return Part("call", f'<|tool_call>call:get_weather{{city:<|"|>{city}<|"|>}}<tool_call|>')


def test_the_history_has_answers_and_thoughts_apart(capsys):
    model = Scripted([Part("thought", "Hm.\n"), Part("answer", "Hello.")], [Part("answer", "Bye.")])
    conversation = chat._Conversation(model, {})
    conversation.take("Hi")
    conversation.take("Ciao")
    answer = {"role": "assistant", "content": "Hello.", "reasoning": "Hm.", "reasoning_content": "Hm."}
    assert model.asked[1] == [{"role": "user", "content": "Hi"}, answer, {"role": "user", "content": "Ciao"}]
    out, err = capsys.readouterr()
    assert out == "Hello.\nBye.\n"
    assert err.startswith("── thought ──\nHm.\n")


def test_results_of_calls_are_asked_for_and_the_turn_goes_on(capsys):
    model = Scripted([call("Paris"), call("Oslo")], [Part("answer", "Dry, and snow.")], [Part("answer", "Bye.")])
    conversation = chat._Conversation(model, {})
    conversation.take("Weather?")
    assert conversation.prompt == "get_weather returns> "
    conversation.take('{"rain": 0}')
    assert len(model.asked) == 1
    conversation.take("snow")
    assert conversation.prompt == chat.PROMPT
    user, calling = model.asked[1]
    assert user["role"] == "user"
    assert [c["function"]["arguments"] for c in calling["tool_calls"]] == [{"city": "Paris"}, {"city": "Oslo"}]
    assert [r["response"] for r in calling["tool_responses"]] == [{"rain": 0}, "snow"]
    assert "the model calls get_weather, get_weather" in capsys.readouterr().err


def test_a_call_that_cannot_be_read_is_named(capsys):
    conversation = chat._Conversation(Scripted([Part("call", "<|tool_call>call:f{")]), {})
    conversation.take("Weather?")
    assert conversation.prompt == chat.PROMPT
    assert "cannot be read" in capsys.readouterr().err


def test_the_system_turn_comes_first_and_stays():
    model = Scripted([Part("answer", "Hello.")], None, [Part("answer", "Bye.")])
    conversation = chat._Conversation(model, {}, "Be short.")
    conversation.take("Hi")
    conversation.take("long")
    conversation.reset()
    conversation.take("Ciao")
    assert [m["content"] for m in model.asked[0]] == ["Be short.", "Hi"]
    assert model.asked[2] == [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Ciao"}]


def test_a_template_that_leaves_the_system_turn_out_is_refused():
    template = ChatTemplate("{{ bos_token }}{{ messages[-1]['content'] }}", {"bos_token": "<bos>"})
    with pytest.raises(InputError, match="leaves it out"):
        chat._check_system(template, "Be short.")
    chat._check_system(template, None)


def test_a_turn_that_cannot_be_answered_is_forgotten_whole(capsys):
    model = Scripted([Part("answer", "Hello.")], [call("Paris")], None, [Part("answer", "Bye.")])
    conversation = chat._Conversation(model, {})
    for line in ("Hi", "Weather?", "dry", "Ciao"):
        conversation.take(line)
    assert [m["content"] for m in model.asked[-1]] == ["Hi", "Hello.", "Ciao"]
    conversation.reset()
    assert conversation.prompt == chat.PROMPT
