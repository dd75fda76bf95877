import random

import gemma_template
import pytest

from foretoken.calls import parse_call
from foretoken.chat import ChatTemplate

Q = '<|"|>'


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("{}", {}),
        (f"{{city:{Q}Paris{Q}}}", {"city": "Paris"}),
        (
            f"{{city:{Q}a, {{b}}: [c]{Q},n:-2.5,on:true,off:false,none:null}}",
            {"city": "a, {b}: [c]", "n": -2.5} | {"on": True, "off": False, "none": None},
        ),
        (
            f"{{days:[1,2,{{at:{Q}noon{Q}}},[]],deep:{{a:{{}}}}}}",
            {"days": [1, 2, {"at": "noon"}, []], "deep": {"a": {}}},
        ),
        ('{"city": "Pa\\"ris", n: 3 }', {"city": 'Pa"ris', "n": 3}),
        (f"{{{Q}a key{Q}:1,city:Paris,x:NaN,}}", {"a key": 1, "city": "Paris", "x": "NaN"}),
        (f"{{text:{Q}line\nline{Q}}}", {"text": "line\nline"}),
    ],
)
def test_calls_are_read(text, arguments):
    assert parse_call(f"<|tool_call>call:get_weather{text}<tool_call|>") == ("get_weather", arguments)


@pytest.mark.parametrize(
    "text",
    [
        "", "call:", "call:f", "call:{}", "call:a b{}", "call:f{", "call:f}", "call:f{}}", "call:f{{}", "call:f{a}",
        "call:f{a:}", "call:f{:1}", "call:f{a:1 b:2}", f"call:f{{a:{Q}x}}", 'call:f{a:"x}', "call:f{a:[1}", "call:f[1]",
        "call:f{a:" + "[" * 40 + "]" * 40 + "}", "call:f{a:" + "[" * 100_000, "call:" + "f" * 65 + "{}",
    ],
)  # fmt: skip
def test_what_is_no_call(text):
    assert parse_call(text) is None


def any_value(rng, depth):
    kind = rng.randrange(7 if depth else 5)
    if kind == 5:
        return [any_value(rng, depth - 1) for _ in range(rng.randrange(3))]
    if kind == 6:
        return {f"key_{i}": any_value(rng, depth - 1) for i in range(rng.randrange(3))}
    return [rng.randrange(-99, 99), rng.random(), True, "", "a: {b}, [c] \"d\" 'e'\n日本"][kind]


def test_what_the_template_writes_is_read_back():
    rng = random.Random(3)
    template = ChatTemplate(gemma_template.SMALL, {"bos_token": "<bos>"})
    for _ in range(200):
        arguments = {f"arg{i}": any_value(rng, 3) for i in range(rng.randrange(4))}
        call = {"function": {"name": "f", "arguments": arguments}}
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
        text = template.render(turns, add_generation_prompt=False)
        written = text[text.index("<|tool_call>") : text.index("<tool_call|>") + len("<tool_call|>")]
        assert parse_call(written) == ("f", arguments)
