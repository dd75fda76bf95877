"""A model given as GGUF files is the model of the folders that they were made from, through the whole of `load`."""

import shutil

import command
import gguf
import gguf_files
import numpy as np
import pytest
from command import assert_refused
from gguf import GGMLQuantizationType as Type
from pair import CODE, QUESTION, embedded

import foretoken
from foretoken import api
from foretoken.errors import ConfigError, WeightsError
from foretoken.source import open_source


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The embedded pair as two files, in the dtype of its folders."""
    folder = tmp_path_factory.mktemp("files")
    bf16 = lambda name, shape: Type.BF16  # noqa: E731
    gguf_files.write(api.ASSETS / "target", folder / "small.gguf", bf16, tokenizer=api.ASSETS / "target")
    gguf_files.write(
        api.ASSETS / "drafter", folder / "small-assistant.gguf", bf16, tokenizer=api.ASSETS / "target", change=suppress
    )
    return folder


def suppress(writer):
    writer.add_array("tokenizer.ggml.suppress_tokens", [7, 9])


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FORETOKEN_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def model(files):
    return foretoken.load(files / "small.gguf")


def test_the_same_answers_as_the_folders(model):
    theirs = embedded()
    assert model.name == "small" and model.info()["drafter"] == {
        "name": "small-assistant", "state": "on", "reason": "found beside the model", "sources": ["mtp", "suffix"],
    }  # fmt: skip
    same = ("format", "parameters", "packed_bytes", "context", "warnings")
    assert {name: model.info()[name] for name in same} == {name: theirs.info()[name] for name in same}
    sampled = {"messages": QUESTION, "seed": 5, "temperature": 1.0, "top_k": 64, "top_p": 0.95}
    for options in ({"prompt": CODE, "temperature": 0.0}, sampled):
        ours, expected = (one.generate(max_tokens=40, horizon=4, **options) for one in (model, theirs))
        assert ours.tokens == expected.tokens and ours.text == expected.text
        assert ours.stats.accepted > 0 and expected.stats.accepted > 0  # how many is a matter of measured times, too


def test_the_defaults_of_the_file(model):
    assert set(model.defaults.eos_ids) == {1, 106}  # <eos>, and the end of a turn, since there is a template
    assert model.defaults.temperature == 0.0 and model.defaults.suppress_ids == ()


def test_sampling_and_suppressed_ids(files, tmp_path):
    def change(writer):
        suppress(writer)
        writer.add_float32("general.sampling.temp", 0.7)
        writer.add_int32("general.sampling.top_k", 40)

    path = gguf_files.write(api.ASSETS / "drafter", tmp_path / "d.gguf", change=change)
    defaults = open_source(path).generation_defaults((1,))
    assert (defaults.temperature, defaults.top_k, defaults.suppress_ids, defaults.eos_ids) == (0.7, 40, (7, 9), (1,))


def test_a_drafter_with_another_tokenizer_is_refused(files, tmp_path):
    """Also one that the other runtimes would take: same size, same special ids."""

    def change(writer):
        tokens = writer.kv_data[0]["tokenizer.ggml.tokens"].value
        tokens[400], tokens[401] = tokens[401], tokens[400]

    path = gguf_files.write(api.ASSETS / "drafter", tmp_path / "d.gguf", tokenizer=api.ASSETS / "target", change=change)
    for target in (files / "small.gguf", api.ASSETS / "target"):
        with pytest.raises(WeightsError, match="another tokenizer than this target: id 400"):
            foretoken.load(target, drafter=path)


def test_a_drafter_file_for_a_folder_and_a_folder_for_a_file(files):
    """Whatever they come in, a pair is a pair; a drafter's file may have no tokenizer."""
    options = {"temperature": 0.0, "max_tokens": 20, "horizon": 4}  # what auto drafts is a matter of measured times
    expected = embedded(drafter=api.ASSETS / "drafter").generate(CODE, **options).stats.accepted
    for target, drafter in ((api.ASSETS / "target", "small-assistant.gguf"), (files / "small.gguf", None)):
        path = api.ASSETS / "drafter" if drafter is None else files / drafter
        found = foretoken.load(target, drafter=path).generate(CODE, **options)
        assert found.stats.accepted == expected


def test_a_target_may_draft_and_a_drafter_is_no_target(files):
    model = foretoken.load(files / "small.gguf", drafter=files / "small.gguf")
    assert model.drafter_state.sources == ("model",)
    with pytest.raises(ConfigError, match="'gemma4-assistant', expected gemma4 or gemma3"):
        foretoken.load(files / "small-assistant.gguf")


def test_a_damaged_drafter_beside_the_model_is_named(files, tmp_path):
    shutil.copy(files / "small.gguf", tmp_path / "m.gguf")
    (tmp_path / "m-assistant.gguf").write_bytes((files / "small-assistant.gguf").read_bytes()[:5000])
    said = []
    model = foretoken.load(tmp_path / "m.gguf", warn=said.append)
    assert model.drafter_state.sources == ("suffix",) and "m-assistant.gguf" in " ".join(said)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--model", "cut.gguf"], "cut off or damaged"),
        (["--model", "text.gguf"], "no GGUF file"),
        (["--model", "clip.gguf"], "architecture 'clip'"),
        (["--model", "small.gguf", "--drafter", "cut.gguf"], "cut off or damaged"),
        (["--model", "nan.gguf"], "NaN or infinite"),
    ],
)
def test_bad_files_are_one_clear_line_and_exit_code_2(arguments, words, files, tmp_path):
    sound = (files / "small.gguf").read_bytes()
    (tmp_path / "small.gguf").symlink_to(files / "small.gguf")
    (tmp_path / "cut.gguf").write_bytes(sound[: len(sound) // 2])
    (tmp_path / "text.gguf").write_text("This is no model.")
    writer = gguf.GGUFWriter(tmp_path / "clip.gguf", "clip")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    entry = open_source(files / "small.gguf").checkpoint().entries["model.layers.0.mlp.down_proj.weight"]
    broken = bytearray(sound)
    broken[entry.offset : entry.offset + 2] = b"\xff\x7f"
    (tmp_path / "nan.gguf").write_bytes(broken)
    paths = [tmp_path / one if one.endswith(".gguf") else one for one in arguments]
    assert_refused(command.foretoken("generate", "Once", "--max-tokens", "2", *paths), words)


def test_norms_of_gguf_files_are_complete(files):
    """Gemma 3's converter adds the 1 that its Hugging Face files leave out; nothing is to be added again."""
    assert open_source(files / "small.gguf").checkpoint().norms_are_complete
    assert not open_source(api.ASSETS / "target").checkpoint().norms_are_complete
    weight = open_source(files / "small.gguf").checkpoint().read("model.norm.weight")
    assert np.array_equal(weight, open_source(api.ASSETS / "target").checkpoint().read("model.norm.weight"))
