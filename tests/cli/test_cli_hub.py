"""`foretoken pull`, `--model NAME` and `foretoken quantize` as a shell runs them, with a hub of the tests' own."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest
from cli.command import RUN, SHORT, assert_refused, foretoken
from hub_server import Hub, serving

from foretoken.places import ASSETS

NAMES = {"o/small": ASSETS / "target", "o/small-assistant": ASSETS / "drafter"}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Environment variables: an own hub, an own cache."""
    folder, hub = tmp_path_factory.mktemp("hub"), Hub()
    for name, path in NAMES.items():
        hub.add(name, path)
    with serving(hub) as address:
        names = {"HF_HOME": "hf", "FORETOKEN_CACHE_DIR": "packed"}
        yield {"HF_ENDPOINT": address, **{name: str(folder / path) for name, path in names.items()}}


def test_pull_then_use_without_network(places):
    pulled = foretoken("pull", "o/small", "--json", **places)
    assert pulled.code == 0, pulled.err
    assert all(line.startswith("foretoken: downloading") for line in pulled.err.splitlines())
    assert pulled.json["model"] == "o/small" and pulled.json["drafter"]["name"] == "o/small-assistant"
    assert "model.safetensors" in os.listdir(pulled.json["path"])
    away = {**places, "HF_ENDPOINT": "http://127.0.0.1:9"}
    written = foretoken("generate", "Once", *SHORT, "--model", "o/small", "--json", **away)
    assert written.code == 0, written.err
    assert written.json["tokens"] == foretoken("generate", "Once", *SHORT, "--json").json["tokens"]
    state = {"name": "o/small-assistant", "state": "on", "reason": "the assistant on the hub"}
    state["sources"] = ["mtp", "suffix"]
    assert (written.json["model"], written.json["drafter"]) == ("o/small", state)
    assert "drafts by o/small-assistant: the assistant on the hub" in written.err
    told = foretoken("info", "o/small", **away)
    assert "o/small-assistant, on: mtp, suffix (the assistant on the hub)" in told.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pull", "o/nothing"), ["o/nothing", "HF_TOKEN"]),
        (("pull", "../../etc/passwd"), ["ORG/NAME"]),
        (("pull", "o/small", "--drafter", "o/other"), ["auto or none"]),
        (("generate", "Once", "--model", "x" * 300), ["no folder or file", "hub"]),
        (("generate", "Once", "--model", "o/nothing"), ["no folder or file o/nothing here", "no repository o/nothing"]),
        (("generate", "Once", "--drafter", "o/nothing"), ["o/nothing"]),
        (("quantize", "o/nothing", "--format", "q4", "--out", "x"), ["o/nothing"]),
        (("quantize", "o/small", "--format", "q5", "--out", "x"), ["q5", "q4 or q8"]),
        (("quantize", __file__, "--format", "q4", "--out", "x"), ["folder", f"--model {__file__} --format q4"]),
    ],
)
def test_bad_names(places, arguments, words):
    assert_refused(foretoken(*arguments, **places), *words)


def test_no_network(places):
    assert_refused(foretoken("pull", "o/small", **{**places, "HF_ENDPOINT": "http://127.0.0.1:9"}), "127.0.0.1:9")
    assert_refused(foretoken("pull", "o/small", HF_HUB_OFFLINE="1", **places), "HF_HUB_OFFLINE")


def test_quantize(places, tmp_path):
    out = tmp_path / "small-q4"
    done = foretoken("quantize", ASSETS / "target", "--format", "q4", "--out", out, "--json", **places)
    assert done.code == 0 and done.err == ""
    assert done.json["bytes_after"] < 0.3 * done.json["bytes_before"]
    ours = foretoken("generate", "Once", *SHORT, "--model", out, "--json", **places)
    assert (
        ours.json["tokens"]
        == foretoken("generate", "Once", *SHORT, "--format", "q4", "--json", **places).json["tokens"]
    )
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert_refused(foretoken("quantize", ASSETS / "target", "--format", "q8", "--out", out, **places), "already")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    checked = foretoken("selftest", "--tokens", "200", "--model", out, "--json", **places)
    assert checked.code == 0 and checked.json["different"] == 0


def test_a_drafter_is_quantised_too(places, tmp_path):
    out = tmp_path / "drafter"
    assert foretoken("quantize", ASSETS / "drafter", "--format", "q8", "--out", out, **places).code == 0
    fixed = ("--horizon", "4", "--json")  # what auto drafts is a matter of measured times
    written = foretoken("generate", "Once", *SHORT, *fixed, "--drafter", out, **places)
    expected = foretoken("generate", "Once", *SHORT, *fixed, "--drafter", ASSETS / "drafter", **places)
    assert written.json["stats"]["accepted"] == expected.json["stats"]["accepted"]


def test_neither_a_target_nor_a_drafter(places, tmp_path):
    folder = shutil.copytree(ASSETS / "target", tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    assert_refused(
        foretoken("quantize", folder, "--format", "q4", "--out", tmp_path / "x", **places), "llama", "gemma4"
    )
    assert not (tmp_path / "x").exists()


def test_ctrl_c_while_quantising_leaves_nothing(places, tmp_path):
    command = [*RUN, "quantize", str(ASSETS / "target"), "--format", "q4", "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, env={**os.environ, **places}, stderr=subprocess.PIPE) as running:
        while running.poll() is None and not list(tmp_path.glob(".foretoken-*")):
            time.sleep(0.001)
        running.send_signal(signal.SIGINT)
        _, error = running.communicate(timeout=60)
    left = [path.name for path in tmp_path.iterdir()]
    whole = (0, ["out"]), (130, ["out"])  # where it was quicker
    assert (running.returncode, left) in ((130, []), *whole), error
    assert error == b""
