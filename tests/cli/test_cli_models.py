"""Model folders that are missing, damaged or do not belong together: one line, code 2, nothing half-written."""

import json
import os
import shutil
import struct

import pytest
from cli.command import SHORT, assert_refused, foretoken

from foretoken.places import ASSETS

CACHE = "FORETOKEN_CACHE_DIR"


@pytest.fixture
def model(tmp_path):
    """A copy of the embedded target that a test may damage."""
    return shutil.copytree(ASSETS / "target", tmp_path / "model")


@pytest.fixture
def drafter(tmp_path):
    return shutil.copytree(ASSETS / "drafter", tmp_path / "drafter")


@pytest.fixture
def generate(tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()

    def run(*arguments, prompt="Once"):
        finished = foretoken("generate", prompt, *SHORT, *arguments, **{CACHE: str(cache)})
        assert finished.code == 0 or not [p for p in cache.rglob("*") if "model" in p.name and p.is_file()]
        return finished

    return run


def shard(folder):
    return next(iter(sorted(folder.glob("*.safetensors"))))


def change_config(folder, **fields):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    (config.get("text_config") or config).update(fields)
    path.write_text(json.dumps(config))


def split(path):
    """(header, data) of a safetensors file."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def join(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_missing_folder(generate, tmp_path):
    assert_refused(generate("--model", tmp_path / "nowhere"), "nowhere")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_missing_or_damaged_file(generate, model, name):
    path = model / name
    path.write_text('{"half": ')
    assert_refused(generate("--model", model), name)
    path.unlink()
    assert_refused(generate("--model", model), name)


def test_no_weights(generate, model):
    shard(model).unlink()
    assert_refused(generate("--model", model))


@pytest.mark.parametrize("size", [0, 4, 8, 200])
def test_truncated_header(generate, model, size):
    path = shard(model)
    path.write_bytes(path.read_bytes()[:size])
    assert_refused(generate("--model", model), "safetensors")


def test_truncated_data(generate, model):
    path = shard(model)
    path.write_bytes(path.read_bytes()[:-1000])
    assert_refused(generate("--model", model), "safetensors")


@pytest.mark.parametrize("size", [1 << 63, (1 << 64) - 1, 1 << 34])
def test_header_that_claims_a_monstrous_size(generate, model, size):
    path = shard(model)
    path.write_bytes(struct.pack("<Q", size) + path.read_bytes()[8:])
    assert_refused(generate("--model", model), "safetensors")


@pytest.mark.parametrize(
    "entry",
    [
        {"data_offsets": [0, 1 << 60]},
        {"data_offsets": [-8, 8]},
        {"data_offsets": [100, 0]},
        {"data_offsets": "all"},
        {"shape": [1 << 40, 1 << 40]},
        {"shape": [-1]},
        {"shape": "big"},
        {"dtype": "PICKLE"},
    ],
)
def test_hostile_header_entry(generate, model, entry):
    path = shard(model)
    header, data = split(path)
    name = next(n for n in header if n != "__metadata__")
    header[name].update(entry)
    join(path, header, data)
    assert_refused(generate("--model", model))


@pytest.mark.parametrize("text", [b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_header_that_is_no_table(generate, model, text):
    shard(model).write_bytes(struct.pack("<Q", len(text)) + text)
    assert_refused(generate("--model", model))


def test_every_missing_tensor_and_wrong_shape_is_named_at_once(generate, model):
    path = shard(model)
    header, data = split(path)
    names = sorted(n for n in header if n.endswith("input_layernorm.weight"))
    header[names[0] + "x"] = header.pop(names[0])
    header[names[1]]["shape"] = [1, *header[names[1]]["shape"]]
    join(path, header, data)
    assert_refused(generate("--model", model), names[0], names[0] + "x", names[1])


def test_nan_weights(generate, model):
    path = shard(model)
    header, data = split(path)
    entry = next(e for n, e in header.items() if n.endswith("layers.0.self_attn.o_proj.weight"))
    nan = {"BF16": b"\xc0\x7f", "F16": b"\x00\x7e", "F32": b"\x00\x00\xc0\x7f"}[entry["dtype"]]
    start = entry["data_offsets"][0]
    join(path, header, data[:start] + nan + data[start + len(nan) :])
    assert_refused(generate("--model", model), "o_proj")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_activation", "swish_of_the_future"),
        ("model_type", "gemma9"),
        ("sliding_window", 0),
        ("hidden_size", -4),
        ("num_attention_heads", "eight"),
        ("layer_types", ["sliding_attention", "diagonal_attention"]),
    ],
)
def test_unknown_config_value(generate, model, field, value):
    change_config(model, **{field: value})
    assert_refused(generate("--model", model))


def test_wrong_drafter(generate, drafter):
    path = drafter / "config.json"
    config = json.loads(path.read_text())
    config["backbone_hidden_size"] += 32
    path.write_text(json.dumps(config))
    assert_refused(generate("--drafter", drafter), str(config["backbone_hidden_size"]))


def test_a_target_may_draft_and_a_drafter_is_no_target(generate, model, drafter):
    finished = generate("--drafter", model, "--json")
    assert finished.code == 0 and finished.json["drafter"]["sources"] == ["model"]
    assert_refused(generate("--model", drafter))
    assert_refused(generate("--drafter", model / "nowhere"), "drafter", "nowhere")


def test_a_model_without_a_drafter_says_so_and_writes(generate, model):
    finished = generate("--model", model, "--json")
    assert finished.code == 0
    assert "from the text itself" in finished.err
    assert finished.json["drafter"]["sources"] == ["suffix"]


def test_prompt_longer_than_the_context(generate):
    assert_refused(generate(prompt="one two three " * 2000), "context")


def test_a_prompt_that_is_not_utf8(generate):
    assert_refused(generate(prompt=os.fsdecode(b"caf\xe9")), "UTF-8")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--temperature", "-1"),
        ("--temperature", "nan"),
        ("--top-p", "1.5"),
        ("--top-k", "-3"),
        ("--min-p", "2"),
        ("--seed", "-1"),
        ("--max-tokens", "0"),
        ("--threads", "0"),
        ("--stop", ""),
    ],
)
def test_values_out_of_range(option, value):
    finished = foretoken("generate", "Once", "--horizon", "4", option, value)
    assert_refused(finished, option.strip("-").replace("-", "_"))


def test_a_cache_directory_that_cannot_be_used_is_named_and_gone_without(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    finished = foretoken("generate", "Once", *SHORT, "--json", **{CACHE: str(blocked)})
    assert finished.code == 0
    assert len(finished.json["tokens"]) == 12
    lines = finished.err.splitlines()
    assert any(str(blocked) in line for line in lines)
    assert len(lines) == len(set(lines))
    assert blocked.read_text() == "not a folder"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_stdout_is_a_failure_in_one_line(unbuffered):
    import subprocess

    from cli.command import RUN, TIMEOUT_S

    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*RUN, "generate", "Once", *SHORT],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=TIMEOUT_S,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"No space left") == 1


def test_a_drafter_beside_the_model_that_does_not_fit_is_named_once(model, generate, drafter):
    folder = shutil.move(drafter, model.with_name("model-assistant"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "backbone_hidden_size": 512}))
    finished = generate("--model", model)
    assert finished.code == 0
    assert finished.err.count("does not fit this target") == 1
    assert "drafts come from the text itself\n" in finished.err
