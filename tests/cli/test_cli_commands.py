"""chat, info, selftest and demo on the embedded pair."""

import pytest
from cli.command import assert_refused, foretoken

INFO_FIELDS = {"model", "kind", "format", "parameters", "packed_bytes", "drafter", "isa", "threads"}


def test_info_fields():
    finished = foretoken("info", "--json", "--threads", "1")
    assert finished.code == 0
    info = finished.json
    assert info.keys() >= INFO_FIELDS
    assert info["drafter"].keys() >= {"name", "state", "reason"}
    assert (info["format"], info["threads"]) == ("q8", 1)
    assert info["parameters"] > 1_000_000


def test_info_in_plain_words():
    finished = foretoken("info", "--format", "f32", "--drafter", "none")
    assert finished.code == 0
    assert "f32" in finished.out
    assert "off" in finished.out


def test_info_of_a_missing_folder(tmp_path):
    assert_refused(foretoken("info", tmp_path / "nowhere"), "nowhere")


def test_instruction_set_is_forced_by_the_environment():
    assert foretoken("info", "--json", FORETOKEN_ISA="scalar").json["isa"] == "scalar"
    assert_refused(foretoken("info", FORETOKEN_ISA="abacus"), "abacus")


def test_selftest_counts_and_compares():
    finished = foretoken("selftest", "--tokens", "48", "--format", "q8", "--json")
    assert finished.code == 0
    report = finished.json
    assert report["compared"] >= 48
    assert report["different"] == 0
    conditions = {"horizon", "threads", "chunk", "neighbours", "temperature", "isa", "drafter", "format", "prefix"}
    assert conditions <= report["cases"][0].keys()
    assert report["coverage"]["format"] == {"q8": report["compared"]}  # so few tokens end with the first model
    assert sum(case["compared"] for case in report["cases"]) == report["compared"]


def test_selftest_in_plain_words():
    finished = foretoken("selftest", "--tokens", "1")
    assert finished.code == 0
    assert finished.out.startswith("compared ")
    assert finished.out.endswith(": 0 different\n")


def test_demo_shows_both_texts_and_a_table():
    finished = foretoken("demo", "--max-tokens", "24")
    assert finished.code == 0
    assert "tokens per pass" in finished.out
    assert "speed-up" in finished.out
    assert "yes" in finished.out.splitlines()[-2]
    assert finished.err == "", "nobody named a drafter, so none is explained"


def test_an_answer_that_fills_the_context_says_so():
    long = foretoken("generate", "Once", "--max-tokens", "3000", "--ignore-eos", "--temperature", "0", "--horizon", "8")
    assert "the context of 2048 tokens is full" in long.err
    assert "context" not in foretoken("generate", "Once", "--max-tokens", "4", "--ignore-eos").err


@pytest.mark.parametrize("options", [("--drafter", "none"), ("--horizon", "0")])
def test_demo_without_drafts_claims_none(options):
    finished = foretoken("demo", "--max-tokens", "8", *options)
    assert finished.code == 0
    assert "Plain" in finished.out
    assert "nothing to compare" in finished.err
    assert not [word for word in ("draft", "Draft", "speed-up") if word in finished.out]


CHAT = ("chat", "--max-tokens", "8", "--temperature", "0", "--horizon", "4")


def test_chat_answers_each_turn_and_ends_with_the_input():
    finished = foretoken(*CHAT, stdin="Define «salt».\n\nAnd «pepper»?\n".encode())
    assert finished.code == 0
    assert finished.err.count("prompt of") == 2


def test_chat_remembers_until_reset():
    turns = foretoken(*CHAT, stdin=b"Hello.\nHello.\n/reset\nHello.\n/exit\nnever read\n")
    assert turns.code == 0
    prompts = [int(line.split("prompt of ")[1].split()[0]) for line in turns.err.splitlines() if "prompt of" in line]
    assert len(prompts) == 3
    assert prompts[1] > prompts[0] == prompts[2]


def test_chat_forgets_a_turn_that_does_not_fit():
    turns = foretoken(*CHAT, stdin=b"long " * 4000 + b"\nHello.\n/nonsense\n")
    assert turns.code == 0
    assert "context" in turns.err
    assert "no command /nonsense" in turns.err
    assert turns.err.count("prompt of") == 1


def test_a_line_that_ends_in_a_backslash_goes_on():
    def prompts(stdin):
        finished = foretoken(*CHAT, stdin=stdin)
        return [
            int(line.split("prompt of ")[1].split()[0]) for line in finished.err.splitlines() if "prompt of" in line
        ]

    one_line = prompts(b"Define\n")
    assert len(prompts(b"Define \\\nthe word\\\nsalt.\n")) == 1
    assert prompts(b"Define \\\nthe word\\\nsalt.\n") > one_line
    assert prompts(b"Define\\") == one_line


def test_chat_lists_its_commands_and_clears():
    finished = foretoken(*CHAT, stdin=b"Hello.\n/help\n/clear\nHello.\n")
    for word in ("/reset", "/clear", "/exit", "backslash", "starts anew"):
        assert word in finished.err
    prompts = [line.split("prompt of ")[1].split()[0] for line in finished.err.splitlines() if "prompt of" in line]
    assert prompts[0] == prompts[1]


def test_chat_without_a_line_says_so():
    finished = foretoken(*CHAT)
    assert (finished.code, finished.out) == (0, "")
    assert "nothing to answer" in finished.err


@pytest.mark.parametrize("data", [b"caf\xe9\n"])
def test_chat_refuses_input_that_is_not_utf8(data):
    assert_refused(foretoken(*CHAT, stdin=data), "UTF-8")


@pytest.mark.parametrize("command", [(), ("chat",), ("generate",), ("bench", "decode"), ("tune",)])
def test_help_names_options_whole_on_a_narrow_terminal(command):
    finished = foretoken(*command, "--help", COLUMNS="80")
    assert finished.code == 0 and "--help" in finished.out and "<bool>" not in finished.out
    if command == ("chat",):
        assert {"--repetition-penalty", "--draft-min-chance", "--frequency-penalty"} <= set(finished.out.split())
