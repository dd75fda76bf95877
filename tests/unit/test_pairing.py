"""What a user may name as drafter, and what is refused in words."""

import json
import shutil

import pytest
from pair import embedded

import foretoken
from foretoken.api import ASSETS
from foretoken.errors import ConfigError, InputError, WeightsError
from foretoken.pairing import Beside, find_drafter, named_sources
from foretoken.places import OFF, Place
from foretoken.tokenizer import Tokenizer

DRAFTER, TARGET = ASSETS / "drafter", ASSETS / "target"


def find(asked, own=DRAFTER, clusters=None):
    said = []
    model = embedded()
    place = own if isinstance(own, Place) else Place(own.name, own, "found beside the model")
    beside = Beside(model.target, model.tokenizer, place, "q8", clusters, said.append)
    drafter, state = find_drafter(asked, named_sources(asked, said.append), beside)
    return drafter, state, said


@pytest.mark.parametrize(
    ("asked", "sources", "name"),
    [
        ("auto", ("mtp", "suffix"), "drafter"),
        ("suffix", ("suffix",), "suffix"),
        (DRAFTER, ("mtp",), "drafter"),
        (str(DRAFTER), ("mtp",), "drafter"),
        (str(TARGET), ("model",), "target"),
        (f"{DRAFTER},suffix", ("mtp", "suffix"), "mtp+suffix"),
        (f"code={DRAFTER},prose={DRAFTER}", ("code", "prose"), "code+prose"),
        (f"suffix,small={TARGET},{DRAFTER}", ("small", "mtp", "suffix"), "small+mtp+suffix"),
    ],
)
def test_sources(asked, sources, name):
    drafter, state, said = find(asked)
    assert (state.state, state.sources, state.name) == ("on", sources, name)
    assert drafter.name == "+".join(sources) and not said


def test_none():
    drafter, state, _ = find("none")
    assert drafter is None and (state.state, state.sources) == ("off", ())


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (5, "drafter is 5"),
        ("", "expected auto, suffix"),
        ("suffix,suffix", "different sources"),
        (f"{DRAFTER},", "expected auto, suffix"),
        (f"=x,{DRAFTER}", "NAME=PATH"),
        ("suffix=x", "NAME=PATH"),
        ("auto,suffix", "auto stands alone"),
        (f"{DRAFTER},none", "none stands alone"),
        ("code=", "NAME=PATH"),
        (f"{DRAFTER},{DRAFTER}", "two drafters are called mtp"),
        (",".join(["suffix", *(f"a{i}=x" for i in range(9))]), "at most 8"),
    ],
)
def test_refused(asked, words):
    with pytest.raises(InputError, match=words):
        find(asked)


@pytest.mark.parametrize(
    ("asked", "is_said"), [("none", True), ("suffix", True), (TARGET, True), (f"{DRAFTER},suffix", False)]
)
def test_clusters_that_nobody_has_are_named(asked, is_said):
    said = find(asked, clusters=4)[2]
    assert [("draft_clusters 4 has no effect" in sentence) for sentence in said] == [True] * is_said


def test_a_least_chance_of_drafts_that_nobody_makes_is_named():
    said = []
    foretoken.load(drafter="none", draft_min_chance=0.5, warn=said.append)
    assert len(said) == 1 and "draft_min_chance 0.5 has no effect" in said[0]


def test_a_folder_that_is_not_there():
    with pytest.raises(InputError, match="nowhere"):
        find("code=nowhere")


def test_a_folder_whose_name_looks_like_a_list(tmp_path):
    folder = tmp_path / "a=b,suffix"
    shutil.copytree(DRAFTER, folder)
    assert find(str(folder))[1].sources == ("mtp",)


def test_auto_without_a_drafter_guesses_from_the_text(tmp_path):
    _, state, _ = find("auto", Place(OFF, None, "no folder x-assistant beside the model"))
    assert (state.state, state.sources) == ("on", ("suffix",))
    assert "no folder x-assistant" in state.reason


def test_auto_with_a_drafter_that_does_not_fit_says_so(tmp_path):
    folder = tmp_path / "x-assistant"
    shutil.copytree(DRAFTER, folder)
    config = json.loads((folder / "config.json").read_text())
    config["backbone_hidden_size"] += 32
    (folder / "config.json").write_text(json.dumps(config))
    _, state, said = find("auto", folder)
    assert state.sources == ("suffix",) and "does not fit" in state.reason
    assert len(said) == 1 and "does not fit" in said[0]
    with pytest.raises(WeightsError, match="does not fit"):
        find(folder)


def changed_tokenizer(folder, change):
    shutil.copytree(TARGET, folder)
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data["model"]["vocab"])
    path.write_text(json.dumps(data), encoding="utf-8")
    return folder


def test_a_model_with_other_tokens_is_refused(tmp_path):
    def swap(vocab):
        one, two = list(vocab)[-2:]
        vocab[one], vocab[two] = vocab[two], vocab[one]

    folder = changed_tokenizer(tmp_path / "other", swap)
    with pytest.raises(WeightsError, match="other tokens than the target"):
        find(folder)


def test_a_model_of_another_vocabulary_is_refused(tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(TARGET, folder)
    config = json.loads((folder / "config.json").read_text())
    (config.get("text_config") or config)["vocab_size"] += 64
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises((WeightsError, ConfigError), match=r"token ids|vocab"):
        find(folder)


def test_tokenizers_are_compared():
    one, two = Tokenizer.from_folder(TARGET), Tokenizer.from_folder(TARGET)
    assert one.difference(two) == ""


def test_info_names_the_sources():
    assert embedded().info()["drafter"]["sources"] == ["mtp", "suffix"]
    assert foretoken.load(drafter="suffix").info()["drafter"]["sources"] == ["suffix"]
