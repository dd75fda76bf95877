"""The examples of the documents run, in order, as a reader would type them."""

import copy
import re
from dataclasses import replace
from pathlib import Path

import gemma_template
from pair import embedded

import foretoken
from foretoken.chat import ChatTemplate
from foretoken.turn import Part

ROOT = Path(__file__).resolve().parents[2]
CALL = '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>}<tool_call|>'


class Caller:
    """The embedded pair behind a template of Gemma 4's structure; its first answer with tools is a call of one."""

    def __init__(self):
        self.asked = []
        self._model = copy.copy(embedded())
        self._model.chat_template = ChatTemplate(gemma_template.LARGE, {"bos_token": "<bos>"})

    def generate(self, messages, **options):
        self.asked.append(self._model.chat_template.render(messages, tools=options.get("tools")))
        result = self._model.generate(messages=messages, **options)
        calls = "tools" in options and "<|tool_call>" not in self.asked[-1]
        return replace(result, parts=[Part("call", CALL)]) if calls else result


def run(path, load, monkeypatch):
    """Execute every Python block of a document in one namespace."""
    monkeypatch.setattr(foretoken, "load", load, raising=False)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.S):
        exec(compile(block, str(path), "exec"), names)
    return names


def test_examples_of_the_python_guide(monkeypatch, capsys):
    caller = Caller()
    names = run(ROOT / "docs" / "python.md", lambda *folder: caller if folder else embedded(), monkeypatch)
    assert '<|tool_response>response:get_weather{city:<|"|>Paris<|"|>,rain_mm:0}' in caller.asked[-1]
    assert names["first"].seed == 5
    assert "there is no option max_new_tokens. Did you mean max_tokens?" in capsys.readouterr().out


def test_examples_of_the_readme(monkeypatch, capsys):
    run(ROOT / "README.md", embedded, monkeypatch)
    assert capsys.readouterr().out
