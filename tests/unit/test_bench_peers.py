"""Peers: how their tools' output is read, who is skipped and why, ratios. No other runtime is needed here."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from foretoken.bench import peer_builds, peer_models, peer_report, peer_runs, peer_stack
from foretoken.bench.peer_linears import Foretoken
from foretoken.bench.peer_process import Child, Unavailable, steady
from foretoken.bench.timing import Times
from foretoken.errors import InputError
from foretoken.ops import native

CHILD = """
import os

class Peer:
    def __init__(self, number):
        if number < 0:
            raise ValueError("number is negative")
        print("chatter on stdout")
        self.info = {"number": number}

    def add(self, more):
        return self.info["number"] + more

    def spin(self):
        import threading
        def turn():
            while True:
                pass
        threading.Thread(target=turn, daemon=True).start()
        return os.getpid()

    def die(self):
        os.write(2, b"first\\nout of luck\\n")
        os._exit(3)

class Lacking:
    def __init__(self):
        import no_such_runtime.core
"""


@pytest.fixture
def peer_module(tmp_path, monkeypatch):
    (tmp_path / "some_peer.py").write_text(CHILD)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "some_peer"


# processes


def test_a_child_answers_and_a_failure_is_an_answer(peer_module):
    with Child(f"{peer_module}:Peer", {"number": 4}) as child:
        assert child.info == {"number": 4}
        assert child.ask("add", 3) == 7
        with pytest.raises(Unavailable, match="TypeError"):
            child.ask("add", "text")
        assert child.ask("add", 1) == 5


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads processor time from /proc")
def test_threads_of_a_child_stand_still_between_requests(peer_module):
    def ticks(pid):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[11]) + int(fields[12])

    with Child(f"{peer_module}:Peer", {"number": 1}) as child:
        pid = child.ask("spin")
        while ticks(pid)[0] != "T":  # the signal is on its way
            time.sleep(0.01)
        before = ticks(pid)
        time.sleep(0.05)
        assert ticks(pid) == before


def test_what_cannot_be_opened_says_why(peer_module):
    with pytest.raises(Unavailable, match="ValueError: number is negative"):
        Child(f"{peer_module}:Peer", {"number": -1})
    with pytest.raises(Unavailable, match=r"^no_such_runtime is not installed$"):
        Child(f"{peer_module}:Lacking", {})


def test_a_child_that_dies_is_quoted(peer_module):
    with (
        Child(f"{peer_module}:Peer", {"number": 1}) as child,
        pytest.raises(Unavailable, match=r"exit code 3.*out of luck"),
    ):
        child.ask("die")


def test_the_first_call_is_not_counted_and_own_seconds_are_believed():
    calls = iter([9.0, 1.0, 5.0, 2.0])
    assert steady(lambda: next(calls), 3) == 2.0


# tools of builds

TABLE = """
main: n_kv_max = 2048, n_batch = 2048
|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |
|-------|--------|------|--------|----------|----------|----------|----------|----------|----------|
|   512 |     16 |    4 |    576 |    1.000 |   512.00 |    0.320 |   200.00 |    1.320 |   436.36 |
"""
LINES = """ggml_init: {no json
{"n_kv_max": 2048, "pp": 512, "tg": 16, "pl": 4, "t_pp": 1.0, "t_tg": 0.32, "speed_tg": 200.0}
{"n_kv_max": 2048, "pp": 512, "tg": 16, "pl": 8, "t_pp": 1.0, "t_tg": 0.64, "speed_tg": 0.0}
"""


@pytest.mark.parametrize("text", [TABLE, LINES])
def test_batched_bench_is_read_as_lines_or_as_a_table(text):
    assert peer_builds.batched_seconds(text, 4) == pytest.approx(0.020)  # 4 sequences at 200 tokens a second
    with pytest.raises(Unavailable, match="no line for 2 sequences"):
        peer_builds.batched_seconds(text, 2)


def test_batched_bench_without_a_speed_is_read_by_its_time():
    assert peer_builds.batched_seconds(LINES, 8) == pytest.approx(0.040)  # 0.64 s for 16 passes


def test_llama_bench_is_read_by_its_samples():
    entries = [
        {"n_prompt": 4, "n_gen": 0, "avg_ns": 1, "samples_ns": [30_000_000, 20_000_000, 90_000_000]},
        {"n_prompt": 8, "n_gen": 0, "avg_ns": 1, "samples_ns": [70_000_000]},
    ]
    text = f"warning: slow\n{json.dumps(entries)}\nbuild: 1\n"
    assert peer_builds.single_seconds(text, 4) == pytest.approx(0.030)
    for broken in ("", "no json", "[]", '[{"n_prompt": 4}]', "[1]"):
        with pytest.raises(Unavailable, match="llama-bench printed no JSON"):
            peer_builds.single_seconds(broken, 4)


def tool(folder, name, script):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    return path


@pytest.mark.skipif(os.name == "nt", reason="the fake tool is a shell script")
def test_a_build_without_json_lines_is_asked_again_for_its_table(tmp_path):
    script = 'case "$*" in *--version*) echo "version: 77 (abc)" >&2;; *jsonl*) exit 1;; '
    tool(tmp_path / "build" / "bin", "llama-batched-bench", script + f"*) cat <<'X'\n{TABLE}X\n;; esac\n")
    build = peer_builds.Build(tmp_path, Path("m.gguf"), 512, 2)
    assert build.info == {"version": "77 (abc)", "tool": "llama-batched-bench"}
    assert build.ask("time", 4, 3) == pytest.approx(0.020)
    with pytest.raises(Unavailable, match="no line for 2"):
        build.ask("time", 2, 3)


@pytest.mark.skipif(os.name == "nt", reason="the fake tool is a shell script")
def test_a_build_with_llama_bench_only_says_whose_logits_it_gives(tmp_path):
    entry = json.dumps([{"n_prompt": 2, "n_gen": 0, "samples_ns": [5_000_000]}])
    tool(tmp_path / "bin", "llama-bench", f"echo '{entry}'\n")
    build = peer_builds.Build(tmp_path, Path("m.gguf"), 512, 2)
    assert build.info == {"version": "unknown", "tool": "llama-bench", "note": "logits of the last row only"}
    assert build.ask("time", 2, 3) == pytest.approx(0.005)


def test_a_folder_without_tools_is_named(tmp_path):
    with pytest.raises(Unavailable, match=f"^{tmp_path.name} holds neither"):
        peer_builds.Build(tmp_path, Path("m.gguf"), 512, 2)


# who takes part


class Fake:
    """Takes `ms` times the row count, and fails at `breaks` rows."""

    def __init__(self, ms, weights=10, breaks=None, **info):
        self.info = {"weights": weights, "error": 0.01, **info}
        self._ms, self._breaks = ms, breaks

    def ask(self, method, rows, calls):
        assert method == "time"
        if rows == self._breaks:
            raise Unavailable("out of /home/someone/memory")
        return self._ms * rows / 1e3


def missing():
    raise Unavailable("openvino is not installed")


def test_missing_and_failing_peers_are_named_and_the_others_measured():
    said = []
    makers = {
        "foretoken": lambda: Fake(2.0),
        "openvino i4": missing,
        "openvino u4": lambda: Fake(5.0),
        "onnxruntime": lambda: Fake(4.0, breaks=4),
        "openvino i4 in 128s": lambda: Fake(1.0, weights=9),
    }
    report = peer_runs.linears(makers, [1, 4], 3, said.append)
    assert report["skipped"] == {
        "openvino i4": "openvino is not installed",
        "openvino i4 in 128s": "its groups do not divide the inputs of some matrices",
        "onnxruntime": "out of memory",
    }
    assert "skipped openvino i4: openvino is not installed" in said
    assert list(report["cases"]) == list(report["peers"]) == ["foretoken", "openvino u4"]
    assert report["cases"]["openvino u4"]["over_ours"]["4"] == {"ratio": 2.5, "quartiles": (2.5, 2.5)}
    json.dumps(report, allow_nan=False)


def test_without_us_there_are_times_but_no_ratios():
    report = peer_runs.linears({"foretoken": missing, "onnxruntime": lambda: Fake(4.0)}, [1], 2, lambda line: None)
    assert report["cases"]["onnxruntime"]["ms"] == {"1": 4.0}
    assert "over_ours" not in report["cases"]["onnxruntime"] and "ratio" not in report["best"]["onnxruntime"]["1"]
    assert peer_runs.linears({"foretoken": missing}, [1], 2, lambda line: None)["cases"] == {}


def test_float_activations_are_noted():
    report = peer_runs.linears({"openvino i4": lambda: Fake(1.0, error=1e-7)}, [1], 1, lambda line: None)
    assert report["peers"]["openvino i4"]["note"] == "activations stay floats on this processor"


# ratios and reports


def test_ratios_pair_the_turns():
    slow_minute = Times((1.0, 2.0, 10.0, 3.0, 1.0)), Times((2.0, 3.0, 20.0, 6.0, 1.0))
    assert peer_report.ratio(slow_minute[1], slow_minute[0]) == {"ratio": 2.0, "quartiles": (1.5, 2.0)}
    assert peer_report.ratio(Times((3.0,)), Times((2.0,))) == {"ratio": 1.5, "quartiles": None}


def test_the_best_is_chosen_by_row_count():
    times = {
        ("foretoken", 1): Times((1.0, 1.0)),
        ("foretoken", 4): Times((2.0, 2.0)),
        ("a x", 1): Times((3.0, 3.0)),
        ("a x", 4): Times((3.0, 3.0)),
        ("a y", 1): Times((4.0, 4.0)),
        ("a y", 4): Times((1.0, 1.0)),
    }
    best = peer_report.best(times, [1, 4], {"foretoken": ["foretoken"], "a": ["a x", "a y"]})
    assert [best["a"][rows]["case"] for rows in ("1", "4")] == ["a x", "a y"]
    assert [best["a"][rows]["ratio"] for rows in ("1", "4")] == [3.0, 0.5]
    assert peer_report.compared(times, [1, 4], "foretoken")["a y"]["relative"] == {"1": 1.0, "4": 0.25}


def test_texts_are_compared_with_ours():
    answers = {"ours": [[1, 2, 3], [4, 5], [6]], "theirs": [[1, 2, 3], [4, 7], [6, 8, 9]]}
    assert peer_report.agreement(answers, "ours")["theirs"] == {"same": 1, "answers": 3, "parts_after": 1}
    assert peer_report.agreement(answers, "ours")["ours"] == {"same": 3, "answers": 3, "parts_after": None}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("no file /home/me/models/some.gguf here", "no file some.gguf here"),
        ("C:\\Users\\me\\m.gguf: broken", "m.gguf: broken"),
        ("3 tokens/s and/or 4 GB/s", "3 tokens/s and/or 4 GB/s"),
    ],
)
def test_paths_are_cut_down(text, kept):
    assert peer_report.without_paths(text) == kept


# the stack


def test_four_layers_of_a_shape_end_with_its_head():
    found, left_out = peer_stack.stack("e2b", 1, 32)
    assert [(m.name, m.n, m.k) for m in found] == [
        ("per_layer_model_projection", 35 * 256, 1536),
        ("layers.0.qkv", (8 + 1 + 1) * 256, 1536),
        ("layers.0.o", 1536, 8 * 256),
        ("layers.0.gate_up", 2 * 6144, 1536),
        ("layers.0.down", 1536, 6144),
        ("layers.0.per_layer_gate", 256, 1536),
        ("layers.0.per_layer_projection", 1536, 256),
        ("embed", 1 << 18, 1536),
    ]
    assert left_out == []
    assert "layers.0.per_layer_projection" in peer_stack.stack("tiny", 1, 32)[1], "16 inputs have no group of 32"
    with pytest.raises(InputError, match="36 layers asked of shape e2b, which has 35"):
        peer_stack.stack("e2b", 36, 32)
    with pytest.raises(InputError, match="expected one of"):
        peer_stack.stack("e3b", None, 32)


@pytest.mark.parametrize("bits", [4, 8])
def test_our_packing_keeps_every_number(bits):
    matrix = peer_stack.Matrix("some", 3, 48, 96)
    codes, scales = matrix.numbers(bits, 32)
    weight = np.empty((48, 96), np.float32)
    for n in range(48):
        for k in range(96):
            code = codes[n, k] if bits == 8 else (codes[n, k // 2] >> 4 * (k % 2)) & 15
            weight[n, k] = (int(code) - (128 if bits == 8 else 8)) * np.float32(scales[n, k // 32])
    np.testing.assert_array_equal(peer_stack.dequantised(codes, scales, bits), weight)
    np.testing.assert_array_equal(native.unpack(peer_stack.packed(matrix, bits)), weight)


def test_a_stack_that_computes_something_else_takes_no_part(monkeypatch):
    options = {"shape": "tiny", "layers": 1, "bits": 4, "group": 32, "threads": native.threads(), "max_rows": 2}
    assert 0 < Foretoken(**options).info["error"] < 0.03
    monkeypatch.setattr("foretoken.bench.peer_linears.packed", lambda m, bits: peer_stack.packed(m, 4 + bits))
    with pytest.raises(ValueError, match="its products are off"):
        Foretoken(**options)


# texts and answers


def test_likelihood_is_that_of_every_token_but_the_first():
    def scored(ids):
        for at in range(0, len(ids), 2):
            block = np.zeros((len(ids[at : at + 2]), 4), np.float32)
            block[:, 3] = np.log(5)  # of the odds 1 : 1 : 1 : 5
            yield block

    assert peer_models.nats([[0, 3, 1, 3]], scored) == pytest.approx(2 * np.log(8 / 5) + np.log(8))


def test_windows_begin_with_the_token_that_begins_texts():
    ids = [2, *range(100, 1200)]
    found = peer_models.windows(ids, 2)
    assert [window[0] for window in found] == [2, 2, 2]
    assert [token for window in found for token in window[1:]] == ids[1:]
    assert max(map(len, found)) == peer_models.WINDOW
    assert peer_models.windows([2], 2) == []


class Writer:
    """Writes its answers in turn, 10 tokens a second times `speed`."""

    def __init__(self, speed, tokens, **info):
        self.info, self._speed, self._tokens = info, speed, tokens

    def ask(self, method, *arguments):
        if method == "prompt_ids":
            return [1, 2, 3]
        assert method == "write"
        speed = self._speed[arguments[2]]
        return {"tokens": self._tokens, "timed": 5, "seconds": 5 / (10 * speed)}


def drafting(ours, llama, lookup):
    peers = peer_runs.Peers({"foretoken": lambda: ours, "llama-cpp-python": lambda: llama}, lambda line: None)
    found = peer_runs.drafting(peers, [{"prompt": "a"}, {"prompt": "b"}], 8, "4", lambda n_ctx: lookup)
    json.dumps(found, allow_nan=False)
    return found


def test_best_speeds_are_compared_and_texts_too():
    ours = Writer({"0": 1.0, "4": 3.0}, [7, 8, 9], drafts=True, drafter="on: there")
    found = drafting(ours, Writer({0: 1.5}, [7, 8]), Writer({4: 1.2, 10: 1.0}, [7, 8, 9]))
    assert found["best"] == {"foretoken": "foretoken drafted", "llama-cpp-python": "llama-cpp-python plain"}
    assert found["tok_per_s"]["foretoken drafted"] == pytest.approx(30.0)
    assert found["best_over_best"] == pytest.approx(2.0)
    assert found["texts"]["llama-cpp-python plain"] == {"same": 0, "answers": 2, "parts_after": 2}
    assert found["texts"]["llama-cpp-python lookup 4"]["same"] == 2


def test_loops_are_not_timed():
    ours = Writer({"0": 1.0}, [7] * 60, drafts=False, drafter="off: none")
    found = drafting(ours, Writer({0: 1.5}, [7]), Writer({4: 1.2, 10: 1.0}, [7]))
    assert (found["loops"], found["timed_prompts"], found["best"], found["best_over_best"]) == (2, 0, {}, None)


def test_answers_need_us_and_perplexity_needs_someone():
    with peer_runs.Peers({"foretoken": missing, "llama-cpp-python": missing}, lambda line: None) as peers:
        assert "skipped" in peer_runs.drafting(peers, [], 8, "4", lambda n_ctx: None)
        assert "skipped" in peer_runs.perplexity(peers, "text", 100)
