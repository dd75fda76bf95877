"""`foretoken generate` on the embedded pair: what goes where, and the exit code."""

import json
import os
import signal
import subprocess
import time

import pytest
from cli.command import RUN, SHORT, TIMEOUT_S, assert_refused, foretoken
from pair import CODE

FIELDS = {"text", "tokens", "finish_reason", "model", "drafter", "seed", "stats"}


@pytest.fixture(scope="module")
def plain():
    return foretoken("generate", CODE, *SHORT, "--horizon", "0", "--json").json


def test_text_on_stdout_figures_on_stderr(plain):
    finished = foretoken("generate", CODE, *SHORT)
    assert finished.code == 0
    assert finished.out == plain["text"] + "\n"
    assert "tok/s" in finished.err
    assert all(line.startswith("foretoken: ") for line in finished.err.splitlines())


def test_json_is_one_object_and_nothing_else(plain):
    finished = foretoken("generate", CODE, *SHORT, "--json", "--horizon", "4")
    assert finished.code == 0
    assert len(finished.out.splitlines()) == 1
    assert finished.json.keys() >= FIELDS
    assert finished.json["tokens"] == plain["tokens"]
    assert finished.json["text"] == plain["text"]
    assert finished.json["finish_reason"] == "length"
    assert finished.json["stats"]["completion_tokens"] == 12
    assert finished.json["drafter"]["state"] == "on"


def test_beside_the_figures_nothing_is_said_of_what_was_not_asked():
    assert len(foretoken("generate", CODE, *SHORT).err.splitlines()) == 1


def test_a_horizon_without_a_drafter_has_no_effect_and_says_so():
    finished = foretoken("generate", CODE, *SHORT, "--drafter", "none", "--horizon", "8")
    assert finished.code == 0
    assert finished.err.startswith("foretoken: horizon 8 has no effect: drafting is switched off with drafter none.\n")
    assert "no effect" not in foretoken("generate", CODE, *SHORT, "--drafter", "none", "--horizon", "0").err


def test_rounds_without_a_draft_are_counted_with_the_reason():
    assert " · 11 of 11 rounds plain (horizon-0) · " in foretoken("generate", CODE, *SHORT, "--horizon", "0").err
    assert " · 11 of 11 rounds plain (no-drafter) · " in foretoken("generate", CODE, *SHORT, "--drafter", "none").err
    assert "rounds plain" not in foretoken("generate", CODE, *SHORT, "--horizon", "4").err


def test_a_prompt_that_names_a_file_is_text_and_a_hint(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("x")
    finished = foretoken("generate", path, *SHORT, "--json")
    assert finished.json["stats"]["prompt_tokens"] > 5
    assert f"generate - < {path}" in finished.err


def test_trace_has_a_line_per_round(plain, tmp_path):
    path = tmp_path / "trace.jsonl"
    finished = foretoken("generate", CODE, *SHORT, "--json", "--horizon", "3", "--trace", path)
    assert finished.json["tokens"] == plain["tokens"]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    stats = finished.json["stats"]
    assert len(lines) == stats["rounds"]
    assert sum(line["accepted"] for line in lines) == stats["accepted"]
    assert [line["position"] for line in lines] == sorted({line["position"] for line in lines})
    assert lines[0]["source"] == "mtp" and len(lines[0]["confidence"]) == lines[0]["guessed"] == 3
    assert lines[0]["rows"] == 4 and lines[0]["verify_ms"] > 0 and lines[0]["reason"] is None
    assert_refused(foretoken("generate", CODE, *SHORT, "--trace", tmp_path / "no" / "t.jsonl"), "trace", "written")


def test_an_old_trace_is_replaced_by_a_new_one_only(tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_text("old\n")
    for wrong in (("--max-tokens", "0"), ("--model", tmp_path / "nowhere")):
        assert foretoken("generate", CODE, *wrong, "--trace", path).code == 2
        assert path.read_text() == "old\n"
    assert foretoken("generate", CODE, "--max-tokens", "1", "--trace", path).code == 0
    assert path.read_text() == "", "an answer of one token has no round"
    assert foretoken("generate", CODE, *SHORT, "--trace", path).code == 0
    assert json.loads(path.read_text().splitlines()[0])["position"] > 0


def test_a_cache_folder_that_cannot_be_looked_at_is_said_once(tmp_path):
    finished = foretoken("generate", CODE, *SHORT, FORETOKEN_CACHE_DIR=str(tmp_path / ("x" * 300)))
    assert finished.code == 0 and finished.err.count("cannot be kept") == 1, finished.err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_trace_on_a_full_disk_costs_no_text(plain):
    finished = foretoken("generate", CODE, *SHORT, "--json", "--trace", "/dev/full")
    assert finished.json["tokens"] == plain["tokens"]
    assert finished.code == 2
    assert "trace /dev/full is not whole" in finished.err and "No space left" in finished.err


def test_clusters_and_the_least_chance_change_no_text(plain):
    options = ("--draft-clusters", "1", "--draft-min-chance", "0.99", "--horizon", "4")
    finished = foretoken("generate", CODE, *SHORT, "--json", *options)
    assert finished.json["tokens"] == plain["tokens"]
    assert finished.json["stats"]["drafted"] < finished.json["stats"]["rounds"]
    assert_refused(foretoken("generate", CODE, *SHORT, "--draft-clusters", "0"), "draft_clusters", "from 1 to")
    assert_refused(foretoken("generate", CODE, *SHORT, "--draft-min-chance", "2"), "draft_min_chance", "from 0 to 1")


def test_prompt_from_stdin_is_taken_as_it_stands(plain):
    finished = foretoken("generate", "-", *SHORT, "--json", stdin=CODE.encode())
    assert finished.json["tokens"] == plain["tokens"]


def test_stop_string_cuts_the_text_and_may_be_given_twice(plain):
    stop = plain["text"][6:8]
    finished = foretoken("generate", CODE, *SHORT, "--json", "--stop", "never comes", "--stop", stop)
    assert finished.json["text"] == plain["text"][: plain["text"].index(stop)]
    assert finished.json["finish_reason"] == "stop"


def test_a_seed_is_reported_and_repeats_the_answer():
    options = ("--max-tokens", "20", "--temperature", "1", "--ignore-eos", "--json")
    first = foretoken("generate", CODE, *options).json
    again = foretoken("generate", CODE, *options, "--seed", first["seed"], "--horizon", "7").json
    assert again["tokens"] == first["tokens"]


def test_chat_makes_the_prompt_a_user_turn(plain):
    finished = foretoken("generate", "Define the word «harbor».", "--chat", *SHORT, "--json")
    assert finished.code == 0
    assert finished.json["stats"]["prompt_tokens"] > 5


def test_drafter_none_is_named_with_its_reason(plain):
    finished = foretoken("generate", CODE, *SHORT, "--drafter", "none", "--json")
    assert finished.json["tokens"] == plain["tokens"]
    assert finished.json["drafter"]["state"] == "off"
    assert finished.json["drafter"]["reason"]
    assert finished.json["stats"]["fallbacks"]


LONG = ("--max-tokens", "1900", "--temperature", "0", "--ignore-eos")


def start(*options):
    return subprocess.Popen([*RUN, "generate", CODE, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_ctrl_c_keeps_the_text_so_far(plain):
    process = start(*LONG)
    seen = process.stdout.read(10)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert b"Traceback" not in err
    text = (seen + out).decode()
    assert text.startswith(plain["text"][:5])
    assert text.endswith("\n")


def test_ctrl_c_gives_the_object_so_far():
    process = start(*LONG, "--json", "--drafter", "none", "--horizon", "8")
    assert b"no effect" in process.stderr.readline()  # said right before the first token
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert b"Traceback" not in err
    result = json.loads(out)
    assert result["finish_reason"] == "interrupted"
    assert len(result["tokens"]) == result["stats"]["completion_tokens"] < 1900


def test_a_reader_that_leaves_ends_it_quietly():
    process = start(*LONG)
    process.stdout.read(1)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(TIMEOUT_S) == 128 + signal.SIGPIPE
