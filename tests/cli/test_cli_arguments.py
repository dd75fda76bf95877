"""Arguments that are refused before a model is loaded."""

import pytest
from cli.command import assert_refused, foretoken


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["generate"], "PROMPT"),
        (["generate", ""], "empty"),
        (["generate", "x", "--horizon", "17"], "17"),
        (["generate", "x", "--horizon", "-1"], "-1"),
        (["generate", "x", "--horizon", "sometimes"], "sometimes"),
        (["generate", "x", "--temperature", "warm"], "--temperature is 'warm', expected a number."),
        (["generate", "x", "--max-tokens", "1.5"], "--max-tokens is '1.5', expected a whole number."),
        (["generate", "x", "--repetition-penalty", "0"], "repetition_penalty"),
        (["generate", "x", "--format", "q3"], "q3"),
        (["generate", "x", "--drafter-format", "f8"], "f8"),
        (["generate", "x", "--chunk", "0"], "chunk"),
        (["generate", "x", "y"], "y"),
        (["chat", "--horizon", "17"], "17"),
        (["chat", "--system", " "], "--system is empty"),
        (["selftest", "--tokens", "0"], "tokens"),
        (["selftest", "--tokens", "all"], "--tokens is 'all', expected a whole number."),
        (["demo", ""], "empty"),
        (["serve-me"], "serve-me"),
        (["--nothing"], "--nothing"),
    ],
)
def test_wrong_arguments_are_one_line_and_code_2(arguments, word):
    assert_refused(foretoken(*arguments), word)


def test_stdin_that_is_not_utf8_is_refused():
    assert_refused(foretoken("generate", "-", stdin=b"caf\xe9"), "UTF-8", "0xe9")
    assert_refused(foretoken("generate", "-", stdin=b""), "empty")


@pytest.mark.parametrize("command", ["generate", "chat", "info", "selftest", "demo", "bench"])
def test_every_command_explains_itself(command):
    finished = foretoken(command, "--help")
    assert finished.code == 0
    assert "Usage: foretoken " + command in finished.out
    assert finished.err == ""


def test_no_command_shows_the_help():
    finished = foretoken()
    assert finished.code == 0
    assert "generate" in finished.out


def test_version():
    assert foretoken("--version").out.startswith("0.")
