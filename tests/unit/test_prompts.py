"""The prompt sets of bench/prompts: format, sizes, no prompt twice, and scripts that are not Latin."""

import json
import unicodedata
from pathlib import Path

import pytest
from pair import embedded

from foretoken.bench import decode_speed, prompts, tune
from foretoken.errors import InputError

ROOT = Path(__file__).resolve().parents[2] / "bench" / "prompts"
DOMAINS = {"code", "code_edit", "json", "summary", "rewriting", "chat", "story", "scripts"}
PER_DOMAIN = {"small": 12, "real": 12, "continuation": 8}
NEW_TOKENS = 200
FILES = sorted(ROOT.glob("*/*.jsonl"))


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def text_of(prompt):
    return prompt["text"] if "text" in prompt else "\n".join(m["content"] for m in prompt["messages"])


def name_of(path):
    return f"{path.parent.name}/{path.name}"


@pytest.mark.parametrize("size", ["small", "real"])
def test_every_domain_is_there(size):
    assert {path.stem for path in (ROOT / size).iterdir()} == DOMAINS


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_format(path):
    prompts = read(path)
    assert len(prompts) == PER_DOMAIN[path.parent.name]
    for prompt in prompts:
        assert prompt.keys() in ({"domain", "messages"}, {"domain", "text"})
        assert prompt["domain"] == path.stem
        assert text_of(prompt) == unicodedata.normalize("NFC", text_of(prompt))
        if "text" in prompt:
            assert len(prompt["text"]) > 60
            continue
        roles = [message["role"] for message in prompt["messages"]]
        if roles[0] == "system":
            roles.pop(0)
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        for message in prompt["messages"]:
            assert message.keys() == {"role", "content"}
            assert message["content"] and message["content"] == message["content"].strip()


def test_no_prompt_stands_twice():
    texts = [text_of(prompt) for path in FILES for prompt in read(path)]
    assert len(set(texts)) == len(texts)
    starts = [text[:60] for text in texts if len(text) > 600]
    assert len(set(starts)) == len(starts)


@pytest.mark.parametrize("path", sorted(ROOT.glob("small/*.jsonl")), ids=name_of)
def test_small_prompts_fit_the_embedded_pair(path):
    model = embedded()
    for prompt in read(path):
        if "text" in prompt:
            ids = model.tokenizer.encode(prompt["text"])
        else:
            ids = model.tokenizer.encode(model.chat_template.render(prompt["messages"]), add_bos=False)
        assert len(ids) <= 400
        assert len(ids) + NEW_TOKENS <= model.context_len


@pytest.mark.parametrize("path", sorted(ROOT.glob("real/*.jsonl")), ids=name_of)
def test_real_prompts_are_of_natural_length(path):
    words = [len(text_of(prompt).split()) for prompt in read(path)]
    assert max(words) <= 1500
    if path.stem == "summary":
        assert min(words) > 250
    if path.stem == "code_edit":
        assert all(text_of(prompt).count("\n") > 25 for prompt in read(path))


@pytest.mark.parametrize("path", sorted(ROOT.glob("*/scripts.jsonl")), ids=name_of)
def test_other_scripts_are_not_latin(path):
    seen = set()
    for prompt in read(path):
        text = text_of(prompt)
        if path.parent.name == "small":
            text = text.split("\n\n", 1)[1]  # after the request, which is English
        letters = [unicodedata.name(c).split()[0] for c in text if c.isalpha()]
        assert letters and letters.count("LATIN") == 0
        seen.add(max(set(letters), key=letters.count))
    assert len(seen) >= 8


def test_only_scripts_need_them():
    for path in FILES:
        if path.stem != "scripts":
            letters = [c for prompt in read(path) for c in text_of(prompt) if c.isalpha()]
            assert all("LATIN" in unicodedata.name(c) for c in letters)


def test_lines_end_where_json_lines_do(tmp_path):
    """Other separators may stand in a text as they are."""
    path = tmp_path / "mine.jsonl"
    path.write_bytes('\ufeff{"text": "a\u2028b"}\r\n\n{"text": "c\x85d"}\n'.encode())
    assert prompts.load(path) == {"mine": [{"prompt": "a\u2028b"}, {"prompt": "c\x85d"}]}


@pytest.mark.parametrize("domain", ["a\ud800b", "a\nb", "\u001b[31m"])
def test_domains_can_be_printed(tmp_path, domain):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"text": "a", "domain": domain}))
    with pytest.raises(InputError, match="domain of line 1"):
        prompts.load(path)


def test_every_prompt_is_looked_at_before_any_is_measured():
    for wrong in ({"prompt": "word " * 4000}, {"prompt": ""}, {"messages": [{"role": "user", "content": 5}]}):
        asked = {"code": [{"prompt": "def add(a, b):"}, wrong]}
        for measure in (
            lambda asked=asked: decode_speed.measure(embedded(), asked, ["0", "2"], 8, 1, fail),
            lambda asked=asked: tune.measure([({"draft_clusters": None}, embedded)], asked, ["0", "auto"], 8, 1, fail),
        ):
            with pytest.raises(InputError, match="prompt 2 of code: "):
                measure()


def fail(*_):
    raise AssertionError("something was measured")
