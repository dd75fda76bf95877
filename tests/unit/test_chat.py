import json

import gemma_tokenizer
import pytest

from foretoken import chat
from foretoken.chat import ChatTemplate
from foretoken.errors import InputError, WeightsError
from foretoken.tokenizer import Tokenizer

TURNS = [{"role": "user", "content": " hello "}, {"role": "model", "content": "world"}]


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, {"bos_token": "<bos>"})


def test_folder_without_a_template_gives_none(tmp_path):
    assert ChatTemplate.from_folder(tmp_path) is None


def test_turns_are_rendered_with_the_start_token_once(tmp_path):
    folder = gemma_tokenizer.write(tmp_path)
    text = ChatTemplate.from_folder(folder).render(TURNS)
    assert text == "<bos><|turn>user\nhello<turn|>\n<|turn>model\nworld<turn|>\n<|turn>model\n"
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.encode(text, add_bos=False).count(tokenizer.bos_id) == 1


def test_generation_prompt_is_optional(tmp_path):
    rendered = ChatTemplate.from_folder(gemma_tokenizer.write(tmp_path)).render(TURNS, add_generation_prompt=False)
    assert rendered.endswith("world<turn|>\n")


def test_older_folders_keep_the_template_in_the_tokenizer_config(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ eos_token }}", "eos_token": "E"}))
    assert ChatTemplate.from_folder(tmp_path).render(TURNS) == "E"


def test_environment_is_that_of_transformers():
    source = (
        "{%- for m in messages %}\n    {% if loop.first %}{% continue %}{% endif %}\n{{ m | tojson }}\n{%- endfor %}"
    )
    assert template(source).render(TURNS).strip() == '{"role": "model", "content": "world"}'
    assert template("{{ {'a': '<é>'} | tojson }}").render(TURNS) == '{"a": "<é>"}'
    assert len(template("{{ strftime_now('%Y') }}").render(TURNS)) == 4
    assert template("{{ tools is none }} {{ mode }}").render(TURNS, mode="x") == "True x"


def test_the_template_refuses_a_role():
    with pytest.raises(InputError, match="no such role"):
        template("{{ raise_exception('no such role') }}").render(TURNS)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0]['content'] | nothing_of_this_name }}",
        "{% for m in messages %}",
    ],
)
def test_a_template_that_does_not_parse_is_a_weights_error(source):
    with pytest.raises(WeightsError, match="does not parse"):
        template(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages[0]['content'] + 1 }}",
        "{{ 1 / 0 }}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{{ messages[0].nothing.more }}",
    ],
)
def test_what_a_template_must_not_do_is_an_input_error(source):
    with pytest.raises(InputError, match="template"):
        template(source).render(TURNS)


def test_size_of_template_and_of_output_is_bounded(monkeypatch):
    with pytest.raises(WeightsError, match="larger"):
        template("a" * (chat.MAX_TEMPLATE_BYTES + 1))
    monkeypatch.setattr(chat, "MAX_PROMPT_CHARS", 1000)
    with pytest.raises(InputError, match="more than"):
        template("{% for i in range(99) %}{{ 'a' * 99 }}{% endfor %}").render(TURNS)


def test_no_messages_is_an_input_error():
    with pytest.raises(InputError, match="no messages"):
        template("x").render([])


@pytest.mark.parametrize("text", ["{", "[]", "\udcff"])
def test_damaged_settings_are_a_weights_error(tmp_path, text):
    (tmp_path / "tokenizer_config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(WeightsError):
        ChatTemplate.from_folder(tmp_path)


@pytest.mark.parametrize("source", ["{{ 7 ** 100000000 }}", "{{ 'a' * 3000000000 }}", "{{ '%1000000000d' % 5 }}"])
def test_values_that_grow_without_bound_are_refused(source):
    template = ChatTemplate(source, {})
    with pytest.raises(InputError, match="may not end"):
        template.render([{"role": "user", "content": "x"}])


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in b %}" * 25 + "{% endfor %}" * 25,
        "{{ " + "(" * 3000 + ")" * 3000 + " }}",
        "{{ " + "9" * 5000 + " }}",
    ],
)
def test_templates_that_python_cannot_compile_are_refused(source):
    with pytest.raises(WeightsError, match="does not parse"):
        ChatTemplate(source, {})


def test_ordinary_arithmetic_still_works():
    template = ChatTemplate("{{ 3 * 4 }} {{ 7 % 4 }} {{ '-' * 5 }} {{ 2 ** 5 }}", {})
    assert template.render([{"role": "user", "content": "x"}]) == "12 3 ----- 32"
