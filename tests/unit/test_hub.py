"""Models by their name on the hub, fetched from a hub of the tests' own on loopback."""

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest
from checkpoints import GOLDEN
from hub_server import Hub, serving
from huggingface_hub import constants

from foretoken import hub, places
from foretoken.errors import InputError, NoRepositoryError

MODEL = {"config.json": b"{}", "tokenizer.json": b"[]", "model.safetensors": b"12345678" * 1000}
DRAFTER = {"config.json": b"{}", "model.safetensors": b"1"}
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def remote(monkeypatch, tmp_path):
    """An empty hub that huggingface-hub asks in place of the real one, with an empty cache."""
    served = Hub()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    with serving(served) as address:
        use(address, monkeypatch)
        yield served


def use(address, monkeypatch):
    """What HF_ENDPOINT does at the start of a process."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def names_in(path):
    return sorted(file.name for file in path.iterdir())


def refused(text, *words, action=None):
    with pytest.raises(InputError) as caught:
        (action or (lambda: places.find(text, True)))()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("google/gemma-4-E2B-it", hub.HubName("google/gemma-4-E2B-it")),
        ("a/b@refs/pr/4", hub.HubName("a/b", "refs/pr/4")),
        ("a/b:x-Q4_0.gguf", hub.HubName("a/b", None, "x-Q4_0.gguf")),
        ("a/b@v1:Q8_0", hub.HubName("a/b", "v1", "Q8_0")),
    ],
)
def test_names(text, expected):
    assert hub.parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "../b", "a/../b", "a/..", "/etc/passwd", "a/b/c", "a/b@../../x", "a/b@/x", "a/b:../x.gguf", "a/b:/x",
        "a/b@", "a/b:", "a b/c", "a/b\n", "C:\\x\\y", "a--b/c", "a/" + "b" * 100, "ä/b", "./a/b", "~/a", "-a/b",
    ],
)  # fmt: skip
def test_what_is_no_name_never_reaches_the_network(remote, text):
    assert hub.parse(text) is None
    refused(text, action=lambda: places.pull(text, True, print))
    assert not remote.requests


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("google/gemma-4-E2B-it", ["google/gemma-4-E2B-it-assistant"]),
        ("o/m-GGUF", ["o/m-assistant"]),
        ("o/m-it-qat-q4_0-unquantized", ["o/m-it-qat-q4_0-unquantized-assistant", "o/m-it-assistant"]),
        ("o/m-it-qat-q4_0-gguf", ["o/m-it-qat-q4_0-unquantized-assistant", "o/m-it-assistant"]),
        ("o/m-it-qat-w4a16-ct", ["o/m-it-qat-q4_0-unquantized-assistant", "o/m-it-assistant"]),
        ("o/m-assistant", []),
    ],
)
def test_which_drafters_are_looked_for(name, expected):
    assert hub.assistants(name) == expected


def test_pull_fetches_what_is_read_and_the_drafter(remote):
    extra = {"pytorch_model.bin": b"1", "README.md": b"1", "sub/config.json": b"1", "../evil.json": b"1", "a.py": b"1"}
    remote.repos = {"o/m": MODEL | extra, "o/m-assistant": DRAFTER}
    said = []
    target, drafter = places.pull("o/m", True, said.append)
    assert names_in(target.path) == sorted(MODEL)
    assert (target.path / "model.safetensors").read_bytes() == MODEL["model.safetensors"]
    assert (drafter.name, names_in(drafter.path)) == ("o/m-assistant", sorted(DRAFTER))
    assert sorted(remote.fetched()) == sorted([*MODEL, *DRAFTER])
    assert len(said) == 2 and "o/m" in said[0]


def test_shards_and_not_a_second_copy_of_them(remote):
    index = b'{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    shards = {"model-00001-of-00002.safetensors": b"1", "model-00002-of-00002.safetensors": b"2"}
    remote.repos = {"o/m": {**MODEL, **shards, "consolidated.safetensors": b"3", "model.safetensors.index.json": index}}
    assert names_in(places.find("o/m", False)[0].path) == sorted(MODEL)
    del remote.repos["o/m"]["model.safetensors"]
    target = places.pull("o/m", False, print)[0]
    assert names_in(target.path) == sorted({*MODEL, *shards, "model.safetensors.index.json"} - {"model.safetensors"})
    assert places.find("o/m", False)[0].path == target.path


def test_what_is_here_needs_no_network(remote, monkeypatch):
    remote.repos = {"o/m": MODEL, "o/m-assistant": DRAFTER}
    first = places.find("o/m", True)
    remote.requests.clear()
    assert places.find("o/m", True) == first
    assert not remote.requests
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert places.find("o/m", True) == first
    refused("o/n", "o/n", "HF_HUB_OFFLINE")


def test_find_keeps_a_version_and_pull_takes_the_newer(remote):
    remote.repos = {"o/m": dict(MODEL)}
    first = places.find("o/m", False)[0].path
    remote.repos["o/m"]["config.json"] = b'{"a": 1}'
    assert places.find("o/m", False)[0].path == first
    second = places.pull("o/m", False, print)[0].path
    assert second != first and (second / "config.json").read_bytes() == b'{"a": 1}'
    assert places.find("o/m", False)[0].path == second
    assert remote.fetched().count("model.safetensors") == 1


def test_a_revision(remote):
    remote.repos = {"o/m": MODEL}
    name = f"o/m@{remote.commit('o/m')}"
    assert places.find(name, False)[0].name == name
    refused("o/m@v9", "no revision v9")


def test_a_transfer_that_breaks_goes_on_where_it_was(remote, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    remote.repos = {"o/m": MODEL}
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what it asks for at once, else 10 MB
    remote.cut = {"model.safetensors": [3000]}
    target = places.find("o/m", False)[0]
    assert (target.path / "model.safetensors").read_bytes() == MODEL["model.safetensors"]
    assert [range for *_, range in remote.requests if range] == ["bytes=3000-"]


def test_a_download_that_fails_leaves_what_came_whole(remote, monkeypatch, tmp_path):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    remote.repos = {"o/m": MODEL}
    remote.cut = {"model.safetensors": [100] + [0] * 20}
    refused("o/m", "o/m", "again")
    assert not [path for path in tmp_path.rglob("*") if "incomplete" in path.name]
    assert hub.cached(hub.HubName("o/m")) is None
    remote.cut.clear()
    remote.requests.clear()
    places.find("o/m", False)
    assert remote.fetched() == ["model.safetensors"]


def test_a_broken_update_leaves_the_old_version(remote, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    remote.repos = {"o/m": dict(MODEL)}
    first = places.find("o/m", False)
    remote.repos["o/m"]["model.safetensors"] = b"new" * 1000
    remote.cut = {"model.safetensors": [0] * 20}
    refused("o/m", "o/m", action=lambda: places.pull("o/m", False, print))
    assert places.find("o/m", False) == first


def test_a_missing_assistant_is_said(remote):
    remote.repos = {"o/m": MODEL}
    _, drafter = places.find("o/m", True)
    assert drafter.path is None and drafter.name == "none" and "o/m-assistant" in drafter.reason
    remote.requests.clear()
    assert "foretoken pull o/m" in places.find("o/m", True)[1].reason
    assert not remote.requests
    remote.repos["o/m-assistant"] = DRAFTER
    assert places.pull("o/m", True, print)[1].path == places.find("o/m", True)[1].path


def test_models_of_4_bits_take_the_assistant_made_for_them(remote):
    remote.repos = {
        "o/m-it-qat-q4_0-unquantized": MODEL,
        "o/m-it-qat-q4_0-unquantized-assistant": DRAFTER,
        "o/m-it-assistant": DRAFTER,
    }
    assert places.find("o/m-it-qat-q4_0-unquantized", True)[1].name == "o/m-it-qat-q4_0-unquantized-assistant"
    del remote.repos["o/m-it-qat-q4_0-unquantized-assistant"]
    remote.repos["o/m-it-qat-w4a16-ct"] = MODEL
    constants.HF_HUB_CACHE += "2"
    assert places.find("o/m-it-qat-w4a16-ct", True)[1].name == "o/m-it-assistant"


def test_drafters_that_are_named_or_off(remote):
    remote.repos = {"o/m": MODEL, "o/m-assistant": DRAFTER, "o/d": DRAFTER}
    assert places.find("o/m", False)[1].path is None
    assert "o/m-assistant" not in [path.split("/resolve")[0][1:] for _, path, _ in remote.requests]
    assert places.find_drafter("o/d").name == "o/d"
    refused("o/m", "o/nothing", action=lambda: places.find_drafter("o/nothing"))


def test_a_folder_wins_over_a_name(remote, tmp_path):
    folder = shutil.copytree(GOLDEN / "12b", tmp_path / "o" / "m")
    remote.repos = {"o/m": MODEL}
    target, drafter = places.find("o/m", True)
    assert target.path == folder and not remote.requests
    assert drafter.path is None and "beside" in drafter.reason
    (tmp_path / "o" / "m-assistant").mkdir()
    assert places.find("o/m", True)[1].path == tmp_path / "o" / "m-assistant"


def test_no_folder_and_no_repository(remote):
    with pytest.raises(InputError, match=r"no folder or file o/m here.*no repository o/m"):
        places.find("o/m", True)
    with pytest.raises(NoRepositoryError):
        hub.fetch(hub.HubName("o/m"))
    refused(5, "5", "folder")


def test_gated_and_private(remote, monkeypatch):
    remote.repos, remote.gated = {"o/m": MODEL}, {"o/m"}
    refused("o/m", "gated", "HF_TOKEN", "/o/m")
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    assert places.find("o/m", False)[0].path is not None


def test_a_gated_assistant_costs_only_the_drafts(remote):
    remote.repos, remote.gated = {"o/m": MODEL, "o/m-assistant": DRAFTER}, {"o/m-assistant"}
    target, drafter = places.find("o/m", True)
    assert target.path is not None and drafter.path is None and "gated" in drafter.reason
    refused("o/m", "gated", action=lambda: places.pull("o/m", True, print))


def test_no_network(remote, monkeypatch):
    use(NOWHERE, monkeypatch)
    refused("o/m", NOWHERE, "network")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, ["config.json", "none"]),
        ({"config.json": b"{}", "pytorch_model.bin": b"1"}, ["model.safetensors", "Pickles"]),
        ({"config.json": b"{}", "model.safetensors": b"1"}, ["tokenizer.json"]),
        ({"a-Q4_0.gguf": b"1", "a-Q8_0.gguf": b"1"}, ["2 GGUF files", "a-Q4_0.gguf", "o/m:FILE.gguf"]),
        ({"a-00001-of-00002.gguf": b"1"}, ["split"]),
    ],
)
def test_repositories_without_a_model(remote, files, words):
    remote.repos = {"o/m": files}
    refused("o/m", *words)
    assert not remote.fetched()


def test_gguf_files_by_name_or_part_of_it(remote, monkeypatch):
    files = {"m-Q4_0.gguf": b"4", "m-Q8_0.gguf": b"8", "mmproj-Q8_0.gguf": b"0", "config.json": b"{}"}
    remote.repos = {"o/m": files, "o/m-assistant": DRAFTER}
    refused("o/m:Q5", "no GGUF", "m-Q4_0.gguf")
    target, drafter = places.find("o/m:m-Q4_0.gguf", True)
    assert target.path.read_bytes() == b"4" and drafter.name == "o/m-assistant"
    assert remote.fetched() == ["m-Q4_0.gguf", *DRAFTER] or sorted(remote.fetched()) == sorted(
        ["m-Q4_0.gguf", *DRAFTER]
    )
    assert places.find("o/m:q8_0", False)[0].path.read_bytes() == b"8"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert places.find("o/m:q8_0", False)[0].path.read_bytes() == b"8"


def test_a_disk_too_small_is_seen_before_anything_is_fetched(remote, monkeypatch):
    remote.repos = {"o/m": MODEL}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 99, 1))
    refused("o/m", "8,004 bytes", "1 are free")
    assert not remote.fetched()


def test_a_disk_that_fills_up(remote, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    remote.repos = {"o/m": MODEL}
    monkeypatch.setattr("huggingface_hub.snapshot_download", full)
    refused("o/m", "disk is full", action=lambda: hub.fetch(hub.HubName("o/m")))


def test_paths_in_objects_are_never_names(remote):
    assert places.find(Path("o/m"), False)[0].path == Path.cwd() / "o" / "m"
    assert not remote.requests


def test_ctrl_c_ends_a_download_at_once_and_leaves_no_half(remote, monkeypatch, tmp_path):
    remote.repos = {"o/m": {**MODEL, "model.safetensors": bytes(1 << 20)}}
    remote.stall = {"model.safetensors"}  # sends a half, then waits until the test is over
    remote.on_stall = lambda: os.kill(os.getpid(), signal.SIGINT)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            places.find("o/m", False)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 1 << 10]
    remote.stall.clear()
    remote.requests.clear()
    places.find("o/m", False)
    assert remote.fetched() == ["model.safetensors"]
