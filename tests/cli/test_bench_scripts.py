"""The scripts of bench/: what they refuse, and how, and what they count."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli.command import TIMEOUT_S, Finished, assert_refused

from foretoken.bench import script
from foretoken.errors import InputError

ROOT = Path(__file__).parents[2]


def run(name, *arguments):
    """A script of bench/, to the end."""
    paths = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, str(ROOT / "bench" / f"{name}.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONPATH": paths}, timeout=TIMEOUT_S)
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["many", "--shape", "e3b"], ["e3b", "26b-a4b"]),
        (["many", "--shape", "tiny", "--horizons", "0,x"], ["'x'"]),
        (["acceptance", "nofile.jsonl"], ["nofile.jsonl"]),
        (["acceptance", "README.md"], ["line 1", "README.md", "JSON"]),
        (["perplexity", "README.md", "--formats", "f32,q7"], ["q7"]),
        (["perplexity", "nofile.txt"], ["nofile.txt"]),
        (["memory", "--shape", "tiny", "--tokens", "99999"], ["tokens is 99999", "4096"]),
        (["memory", "--horizon", "17"], ["17"]),
        (["wrong_drafters", "--drafter", "none"], ["drafting is off"]),
        (["second_source", "--drafter", "none"], ["drafting is off"]),
        (["second_source", "--drafter", "suffix"], ["suffix", "mtp=PATH,suffix"]),
        (["second_source", "--horizons", "2,x"], ["'x'"]),
        (["second_source", "--prompts", "x" * 300], ["cannot be read"]),
        (["other_clock", "README.md"], ["README.md", "verify-cost --json"]),
        (["other_clock", "bench/prompts"], ["bench/prompts", "verify-cost --json"]),
        (["floors", "nowhere", "--only", "q4,q5"], ["q5", "embedded-wrong"]),
        (["floors", "README.md"], ["README.md", "folder"]),
    ],
)
def test_wrong_input_is_one_line_and_code_2(arguments, words, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert_refused(run(*arguments), *words)


def test_sequences_together_share_passes():
    finished = run(
        "many", "--shape", "tiny", *["--sequences", "2", "--tokens", "4", "--horizons", "0", "--repeats", "1", "--json"]
    )
    assert finished.code == 0, finished.err
    (row,) = finished.json["cases"]
    assert (row["solo_passes"], row["together_passes"]) == (8, 4), "a prompt and three rounds, twice or once"
    assert row["solo_rows_per_pass"] == (40 + 64 + 2 * 3) / 8 and row["together_rows_per_pass"] == (40 + 64 + 2 * 3) / 4
    assert row["same_tokens"] and row["ratio_spread"] is None


def test_memory_says_first_what_it_takes():
    finished = run("memory", "--shape", "tiny", "--tokens", "20", "--new", "4", "--json")
    assert "tiny" in finished.err.splitlines()[0] and "MB of memory" in finished.err.splitlines()[0]
    assert finished.json["tokens"] == 24


def test_help_shows_defaults():
    finished = run("acceptance", "--help")
    assert finished.code == 0 and "(default: 200)" in finished.out and "default: None" not in finished.out


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("work", "code", "told"),
    [
        (lambda: None, 0, []),
        (lambda: 1, 1, []),
        (lambda: fail(InputError("wrong")), 2, ["wrong"]),
        (lambda: fail(KeyboardInterrupt()), 130, []),
    ],
)
def test_exit_codes(work, code, told):
    said = []
    assert script.run(work, said.append) == code
    assert said == told


def test_progress_is_a_line_now_and_then():
    said, now = [], iter((0.0, 3.0, 12.0, 12.0, 15.0, 30.0, 30.0))
    advance = script.progress("Measuring", said.append, lambda: next(now))
    for done in range(1, 5):
        advance(done, 8)
    assert said == ["Measuring: 25% done", "Measuring: 50% done"]


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5", "9" * 20])
def test_a_count_is_a_whole_number_of_at_least_1(text):
    with pytest.raises(SystemExit):
        parser = script.parser("Doc.")
        parser.add_argument("--n", type=script.count)
        parser.parse_args(["--n", text])


def test_drafters_that_are_wrong_change_no_text(tmp_path):
    prompts = tmp_path / "one.jsonl"
    prompts.write_text('{"domain": "code", "text": "def add(a, b):"}\n')
    finished = run("wrong_drafters", "--prompts", prompts, *["--max-tokens", "12", "--repeats", "1", "--json"])
    assert finished.code == 0, finished.err
    assert finished.json.keys() == {"random", "wrong from the second on"}
    assert all(found["code"]["same"] for found in finished.json.values())


def test_a_second_source_changes_no_text(tmp_path):
    prompts = tmp_path / "one.jsonl"
    prompts.write_text('{"domain": "code", "text": "def add(a, b):"}\n')
    finished = run(
        "second_source", "--prompts", prompts, *["--horizons", "2", "--max-tokens", "12", "--repeats", "1", "--json"]
    )
    assert finished.code == 0, finished.err
    assert finished.json["same_text"] and finished.json["domains"].keys() == {"code", "mix"}
    own = finished.json["domains"]["code"]
    assert own["both_over_alone"].keys() == {"2", "best"} and own["both"]["tokens_per_round"]["2"] >= 1.0


def test_on_another_clock_a_round_takes_what_the_report_says(tmp_path):
    prompts, report = tmp_path / "one.jsonl", tmp_path / "costs.json"
    prompts.write_text('{"domain": "code", "text": "def add(a, b):"}\n')
    report.write_text('{"ms": {"1": 2.0, "17": 2.0}}')  # rows are free, and so is the text itself: only rounds count
    options = ["--drafter", "suffix", "--horizon", "0,9", "--noise", "0", "--max-tokens", "60", "--repeats", "1"]
    finished = run("other_clock", report, "--prompts", prompts, *options, "--json")
    assert finished.code == 0, finished.err
    own = finished.json["domains"]["code"]
    assert own["tokens_per_round_by_horizon"]["9"] > 1.0
    assert own["speedup"]["9"] == pytest.approx(own["tokens_per_round_by_horizon"]["9"], rel=1e-6)
    assert own["plain_tok_per_s"] == pytest.approx(1e3 / (2.0 + 0.3))


def kept(folder, name, **report):
    (folder / f"{name}.json").write_text(json.dumps(report))


def floors(folder, *names):
    """Exit code, and (number, verdict) of each line."""
    finished = run("floors", folder, "--only", ",".join(names))
    return finished.code, [tuple(line.split()[-2:]) for line in finished.out.splitlines()]


def test_floors_hold_up_to_their_limit_or_are_missed(tmp_path):
    kept(tmp_path, "draft", share=0.02)
    kept(tmp_path, "tune", settings=[{"calibration_error": 0.0501}])
    assert floors(tmp_path, "draft") == (0, [("0.020", "holds")])
    assert floors(tmp_path, "tune", "draft") == (1, [("0.020", "holds"), ("0.050", "MISSED")])


def test_floors_count_the_worst_domain_and_other_texts(tmp_path):
    def domain(auto, over_best, same_text):
        return {"speedup": {"0": 1.0, "auto": auto}, "auto_over_best": over_best, "same_text": same_text}

    domains = {
        "code": domain(1.2, {"value": 0.969}, True),
        "chat": domain(0.98, {"value": 0.98}, False),
        "loops only": domain(None, None, True),
    }
    kept(tmp_path, "embedded", domains=domains, mix_auto_over_best={"value": 1.031})
    verdicts = [("0.980", "holds"), ("0.969", "MISSED"), ("1.031", "holds"), ("1.000", "MISSED")]
    assert floors(tmp_path, "embedded") == (1, verdicts)


def test_floors_keep_what_a_command_printed(tmp_path):
    code, lines = floors(tmp_path, "planner")
    us = json.loads((tmp_path / "planner.json").read_text())["us"]
    assert lines == [(f"{max(us.values()):.3f}", "holds" if max(us.values()) <= 20 else "MISSED")]
    assert code == (max(us.values()) > 20) and us.keys() == {"0", "1", "2", "4", "8"}
