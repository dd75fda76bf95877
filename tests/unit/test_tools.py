import json

import gemma_template
import pytest

from foretoken.errors import InputError
from foretoken.tools import MAX_FILE_BYTES, check_tools, read_tools


def tool(**function):
    return {"type": "function", "function": {"name": "f", **function}}


def test_a_list_or_an_object_with_one(tmp_path):
    path = tmp_path / "tools.json"
    for value in (gemma_template.TOOLS, {"tools": gemma_template.TOOLS}):
        path.write_text(json.dumps(value))
        assert read_tools(path) == gemma_template.TOOLS


def test_what_is_left_out_is_filled_in():
    assert check_tools([{"function": {"name": "f"}}]) == [tool(description="")]


def test_nothing_is_changed_in_place():
    value = [{"function": {"name": "f"}}]
    check_tools(value)
    assert value == [{"function": {"name": "f"}}]


def nested(depth):
    value = "x"
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("get_weather", "expected a list"),
        ([], "0 functions"),
        ([tool(name=f"f{i}") for i in range(129)], "129"),
        (["f"], "entry 1 is no function"),
        ([tool(), {"type": "retrieval", "function": {"name": "g"}}], "entry 2"),
        ([{"type": "function", "function": "f"}], "no function"),
        ([tool(name="")], "named"),
        ([tool(name=5)], "named 5"),
        ([tool(name="f<turn|>")], "named"),
        ([tool(), tool()], "twice"),
        ([tool(description=["x"])], "description"),
        ([tool(parameters="x")], "parameters"),
        ([tool(parameters={"properties": []})], "parameters"),
        ([tool(parameters=nested(40))], "deeper"),
        ([tool(parameters={"enum": [{1, 2}]})], "set"),
        ([tool(parameters={"default": float("nan")})], "float"),
        ([tool(parameters={1: 2})], "key 1"),
        ([tool(description="\udcff")], "UTF-8"),
    ],
)
def test_hostile_values(value, words):
    with pytest.raises(InputError, match=words):
        check_tools(value)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff\xfe", b"[NaN]", b"[" * 100_000, b"5", b'{"functions": []}', b"[{}]" + b" " * MAX_FILE_BYTES],
)
def test_hostile_files(tmp_path, data):
    path = tmp_path / "tools.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"tools\.json"):
        read_tools(path)


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "nowhere.json", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_tools(path)
