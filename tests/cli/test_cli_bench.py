"""`foretoken bench`: one JSON object on stdout, a table on stderr, and what is refused."""

import json
import os
from importlib.util import find_spec

import pytest
from cli.command import assert_refused, foretoken

PROMPT = '{"domain": "code", "text": "def add(a, b):"}\n'


@pytest.mark.parametrize(
    ("arguments", "fields", "shown"),
    [
        (["verify-cost", "--rows", "1,2"], {"ms", "relative", "roofline_ratio"}, "over roofline"),
        (["draft", "--chain", "2"], {"draft_ms", "plain_ms", "share"}, "a draft token"),
        (["prompt", "--tokens", "40"], {"tok_per_s", "peak_share", "linear_peak_share"}, "products alone"),
    ],
)
def test_a_shape_is_measured(arguments, fields, shown):
    context = [] if arguments[0] == "prompt" else ["--context", "30"]
    finished = foretoken("bench", *arguments, *context, "--shape", "tiny", "--repeats", "1", "--threads", "1", "--json")
    assert finished.code == 0, finished.err
    assert fields <= set(finished.json) and finished.json["shape"] == "tiny" and finished.json["threads"] == 1
    assert finished.out.count("\n") == 1 and shown in finished.err


def test_decode_measures_domains(tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text(PROMPT)
    arguments = ["--prompts", file, "--horizon", "0,2", "--max-tokens", "8", "--repeats", "1"]
    finished = foretoken("bench", "decode", *arguments, "--json")
    assert finished.code == 0, finished.err
    assert finished.json["domains"]["code"]["same_text"] is True
    assert {"mean_speedup", "best_speedup"} <= set(finished.json)
    assert "×2" in finished.err and "--repeats 3" in finished.err, "one run tells no best"


def test_a_report_is_kept(tmp_path):
    finished = foretoken("bench", "prompt", "--tokens", "8", "--shape", "tiny", "--repeats", "1", "--save", tmp_path)
    assert finished.code == 0, finished.err
    (file,) = tmp_path.iterdir()
    kept = json.loads(file.read_text())
    assert kept["what"] == "prompt tiny" and kept["tokens"] == 8 and kept["machine"]["processor"]
    assert file.name in finished.err and finished.out == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_picture_on_a_full_disk_costs_no_figures(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "p.png").symlink_to("/dev/full")
    arguments = ["prompt", "--tokens", "8", "--shape", "tiny", "--repeats", "1", "--json"]
    finished = foretoken("bench", *arguments, "--plot", tmp_path / "p.png", "--save", tmp_path)
    assert finished.code == 2 and "No space left on device" in finished.err
    assert finished.json["tokens"] == 8
    assert len(list(tmp_path.glob("*.json"))) == 1


def test_help_fits_80_columns():
    for command in ("verify-cost", "draft", "prompt", "decode"):
        finished = foretoken("bench", command, "--help", COLUMNS="80")
        assert max(map(len, finished.out.splitlines())) <= 80
        assert "26b-a4b" in finished.out or command == "decode", "in one piece"


def test_bench_alone_shows_its_commands():
    finished = foretoken("bench")
    assert finished.code == 0 and "verify-cost" in finished.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["verify-cost", "--shape", "e3b"], ["e3b", "26b-a4b"]),
        (["verify-cost", "--shape", "tiny", "--format", "q5"], ["q5"]),
        (["verify-cost", "--shape", "tiny", "--model", "x"], ["--model", "--shape"]),
        (["verify-cost", "--rows", "2,4"], ["lack 1"]),
        (["verify-cost", "--rows", "1,18"], ["18", "17"]),
        (["verify-cost", "--rows", "1,x"], ["'x'"]),
        (["verify-cost", "--shape", "tiny", "--context", "99999"], ["context is 99999", "4096"]),
        (["prompt", "--shape", "tiny", "--tokens", "99999"], ["tokens is 99999", "4096"]),
        (["decode", "--shape", "e2b"], ["--shape", "noise", "--model"]),
        (["draft", "--save", "nowhere/a.json"], ["nowhere"]),
        (["verify-cost", "--repeats", "0"], ["repeats"]),
        (["draft", "--chain", "0"], ["chain"]),
        (["draft", "--shape", "tiny", "--drafter", "x"], ["drafter"]),
        (["draft", "--shape", "tiny", "--drafter", "none"], ["drafter"]),
        (["prompt", "--tokens", "0"], ["tokens"]),
        (["prompt", "--shape", "tiny", "--threads", "0"], ["threads"]),
        (["decode", "--horizon", "1,2"], ["lack 0"]),
        (["decode", "--prompts", "nowhere.jsonl"], ["nowhere.jsonl"]),
        (["decode", "--limit", "0"], ["limit"]),
        (["decode", "--max-tokens", "1"], ["max-tokens"]),
        (["prompt", "--plot", "picture.txt"], ["picture.txt"]),
        (["nothing"], ["nothing"]),
    ],
)
def test_wrong_arguments_are_one_line_and_code_2(arguments, words):
    assert_refused(foretoken("bench", *arguments), *words)


def test_names_are_no_markup(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"text": "Once upon a time", "domain": "[/foo] $\\\\frac$"}\n')
    options = ["--max-tokens", "8", "--horizon", "00,1", "--repeats", "1", "--json"]
    picture = ["--plot", tmp_path / "p.png"] if find_spec("matplotlib") else []
    finished = foretoken("bench", "decode", "--prompts", tmp_path / "m.jsonl", *options, *picture)
    assert finished.code == 0, finished.err
    assert list(finished.json["domains"]) == ["[/foo] $\\frac$"] and "[/foo]" in finished.err


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "folder.png"])
def test_where_no_picture_can_be_nothing_is_measured(tmp_path, name):
    (tmp_path / "folder.png").mkdir()
    finished = foretoken("bench", "prompt", "--shape", "tiny", "--tokens", "8", "--plot", tmp_path / name)
    assert_refused(finished, "picture")
