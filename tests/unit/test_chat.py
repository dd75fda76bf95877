import json
import time

import gemma_template
import gemma_tokenizer
import pytest

from foretoken import chat, sandbox
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


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set x = [" + "1," * 5000 + "] %}" + "{% for a in x %}" * 8 + "{% endfor %}" * 8,
        "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) if range(99999) | sum == 1 %}{% endfor %}",
        "{% for x in [1, 2] recursive %}{% if loop.depth < 60 %}{% set y = loop([1, 2]) %}{% endif %}{% endfor %}",
        "{% macro f(n) %}{% if n and (f(n - 1) or f(n - 1)) %}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% set x = range(99999) | map('string') %}"
        "{% for a in range(99999) %}{% set y = range(99999) | map('upper') | list %}{% endfor %}",
    ],
)
def test_a_template_that_would_run_for_ever_is_stopped(monkeypatch, source):
    monkeypatch.setattr(sandbox, "MAX_RENDER_S", 0.1)
    hostile, begun = template(source), time.thread_time()
    with pytest.raises(InputError, match="may not end"):
        hostile.render(TURNS)
    assert time.thread_time() - begun < 5.0
    assert template("{{ messages | length }}").render(TURNS) == "2"


@pytest.mark.parametrize(
    "source",
    [
        "{% set ns = namespace(x='aaaaaaaa') %}{% for a in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='aaaaaaaa') %}{% for a in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x='aaaaaaaa') %}{% for a in range(99) %}"
        "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
        "{{ 'a'.ljust(3000000000) }}",
        "{{ 'a' | center(3000000000) }}",
        "{{ '{:3000000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 3000000000) }}",
        "{{ '%3000000000d' | format(1) }}",
        "{{ [1] | tojson(indent=3000000000) }}",
        "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
        "{{ ('a' * 1000000) | replace('a', 'b' * 1000000) }}",
        "{{ ('b' * 1000000).join('a' * 1000000) }}",
        "{{ lipsum(n=10000000) }}",
    ],
)
def test_texts_that_grow_without_bound_are_refused(source):
    with pytest.raises(InputError, match="template"):
        template(source).render(TURNS)


TWICE = (
    "{% set a = namespace(v=[1], w=[1]) %}{% for i in range(60) %}{% set a.v = [a.v, a.v] %}{% set a.w = (a.w, a.w) %}"
)


@pytest.mark.parametrize(
    "use",
    [
        "{{ a.v }}",
        "{{ a.v ~ '' }}",
        "{% set x %}{{ a.v }}{% endset %}",
        "{{ a.v | tojson }}",
        "{{ a.v | string }}",
        "{{ [a.v] | map('list') | join }}",
        "{{ '{}'.format(a.v) }}",
        "{{ a.v == [a.v, 2] }}",
        "{{ 1 < a.v == [a.v, 2] }}",
        "{{ a.v in [[a.v, 2]] }}",
        "{{ a.v is eq [a.v, 2] }}",
        "{{ [[a.v, 2], a.v] | sort }}",
        "{{ [[a.v, 2]].index(a.v) }}",
        "{{ {a.w: 1} }}",
        "{{ {}.get(a.w) }}",
        "{{ {}[a.w] }}",
        "{{ a }}",
    ],
)
def test_lists_that_hold_another_twice_are_neither_written_nor_compared(use):
    """The value is made in 60 steps, and would be written or compared in 2^60."""
    if "==" in use or " in " in use or "eq" in use or "sort" in use or "index" in use:
        use = use.replace("[a.v, 2]", "b.v")
    again = TWICE.replace("set a ", "set b ").replace("a.", "b.")
    with pytest.raises(InputError, match="values, which may not end"):
        template(TWICE + "{% endfor %}" + again + "{% endfor %}" + use).render(TURNS)


@pytest.mark.parametrize(
    "source",
    [
        "{% set b = 'b' * 1000000 %}{{ range(99999) | map(attribute='x', default=b) | join }}",
        "{% set b = 'b' * 1000000 %}{{ ('a' * 1000000).translate({97: b}) }}",
        "{% set b = 'b' * 1000000 %}{{ ('{0}' * 99999).format(b) }}",
        "{% set b = 'b' * 1000000 %}{{ ('%s' * 99999) | format(*([b] * 99999)) }}",
        "{% set b = 'b' * 1000000 %}{{ b | wordwrap(1, wrapstring=b) }}",
        "{{ ('\n' * 1000000) | indent(1000000) }}",
        "{{ ('\t' * 1000000).expandtabs(1000000) }}",
        "{{ range(99999) | list | tojson(separators=['a' * 1000000, 'b']) }}",
        "{% set n = namespace(v=[1]) %}{% for i in range(900) %}{% set n.v = [n.v] %}{% endfor %}"
        "{{ ([n.v] * 200) | tojson(indent=1000) }}",
        "{{ 3 | round(-100000000) }}",
        "{% set n = namespace(v=3) %}{% for i in range(60) %}{% set n.v = n.v * n.v %}{% endfor %}",
        "{% set n = namespace(v=[]) %}{% for i in range(99999) %}{% set n.v = [n.v, 'a' * 1000000] %}{% endfor %}",
        "{% set n = namespace(v=[], t='a' * 1000000) %}"
        "{% for i in range(99999) %}{% set n.v = [n.v, n.t[1:]] %}{% endfor %}",
    ],
)
def test_what_a_render_makes_is_bounded(source):
    with pytest.raises(InputError, match="template"):
        template(source).render(TURNS)


def test_values_are_looked_at_without_changing_them():
    source = (
        "{% for a, b in [(1, {'x': [2]})] %}{{ a }}{{ b['x'][0:1] | tojson }}{{ 1 <= a < 2 }}{{ a in [1] }}{% endfor %}"
    )
    assert template(source).render(TURNS) == "1[2]TrueTrue"
    assert template("{{ {'b': (1,), 'a': ()} | dictsort }}").render(TURNS) == "[('a', ()), ('b', (1,))]"
    assert template("{{ {'a': [1]} | tojson(indent=1) }}").render(TURNS) == '{\n "a": [\n  1\n ]\n}'


def test_texts_are_joined_as_jinja_joins_them():
    assert template("{{ 'a' ~ 1 ~ none }}{% set x %}{{ 2 }}b{% endset %}{{ x + 'c' }}").render(TURNS) == "a1None2bc"
    assert template("{{ '{}-{:>3}'.format(1, 2) }} {{ '%d' | format(3) }}").render(TURNS) == "1-  2 3"


def test_a_long_conversation_is_far_from_the_limit():
    messages = [{"role": ("user", "assistant")[i % 2], "content": f"turn {i}"} for i in range(1000)]
    begun = time.thread_time()
    template(gemma_template.SMALL).render(messages)
    assert time.thread_time() - begun < sandbox.MAX_RENDER_S / 5


THOUGHT = "<|channel>thought\nThey greet me.\n<channel|>"
PLAIN = "<bos><|turn>user\nHi<turn|>\n<|turn>model\nHello.<turn|>\n<|turn>user\nBye<turn|>\n<|turn>model\n"


@pytest.mark.parametrize(
    "answer",
    [
        {"content": "Hello."},
        {"content": THOUGHT + "Hello."},
        {"content": "Hello.", "reasoning": "They greet me.", "reasoning_content": "They greet me."},
    ],
)
def test_old_thoughts_leave_the_prompt_however_they_are_given(answer):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", **answer}, {"role": "user", "content": "Bye"}]
    assert template(gemma_template.SMALL).render(turns) == PLAIN
    assert template(gemma_template.LARGE).render(turns) == PLAIN + "<|channel>thought\n<channel|>"
    thinking = template(gemma_template.LARGE).render(turns, enable_thinking=True)
    assert thinking == PLAIN.replace("<bos>", "<bos><|turn>system\n<|think|>\n<turn|>\n")


def test_tools_calls_and_results_are_the_templates_business():
    call = {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    turns = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Rain in Paris?"},
        {"role": "assistant", "content": "", "reasoning": "Ask.", "tool_calls": [call]},
        {"role": "tool", "name": "get_weather", "content": "dry"},
    ]
    text = template(gemma_template.SMALL).render(turns, enable_thinking=True, tools=gemma_template.TOOLS)
    assert text.startswith("<bos><|turn>system\n<|think|>\nBe brief.<|tool>declaration:get_weather{")
    assert text.endswith(
        "<|turn>model\n<|channel>thought\nAsk.\n<channel|>"
        '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>}<tool_call|>'
        '<|tool_response>response:get_weather{value:<|"|>dry<|"|>}<tool_response|>'
    )


def test_a_template_says_what_it_never_looks_at():
    plain, full = template(gemma_tokenizer.TEMPLATE), template(gemma_template.SMALL)
    assert full.lacks(True, gemma_template.TOOLS) == []
    assert plain.lacks(None, None) == plain.lacks(False, []) == []
    assert "no thinking" in plain.lacks(True, None)[0]
    assert "no tools" in plain.lacks(True, gemma_template.TOOLS)[1]


@pytest.mark.parametrize(
    ("source", "takes"),
    [
        ("{% for m in messages %}{{ m['content'] | trim }}{% endfor %}", False),
        ("{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}{% endif %}{% endfor %}", False),
        ("{{ raise_exception('text only') }}", False),
        (
            "{% for m in messages %}{% for p in m['content'] %}{% if p['type'] == 'text' %}{{ p['text'] }}"
            "{% endif %}{% endfor %}{% endfor %}",
            True,
        ),
    ],
)
def test_who_reads_parts_is_found_by_asking(source, takes):
    assert template(source).takes_parts == takes
