"""What tune found is used and said at later starts, and only where it can be compared."""

import json

import pytest

import foretoken
from foretoken.api import ASSETS
from foretoken.bench import tune
from foretoken.horizon import Tuned
from foretoken.stats import ADVICE_MIN_ROUNDS, Stats

PROMPTS = {"code": [{"prompt": "def add(a, b):"}]}


def setting(format, clusters, tok_per_s, speedup=1.0):
    fast = {"tok_per_s": tok_per_s, "speedup": speedup}
    return {
        "format": format,
        "draft_clusters": clusters,
        "by_horizon": {"0": {"tok_per_s": 1.0, "speedup": 1.0}, "4": fast},
        "noise": [],
    }


def found(folder, *settings, drafters=None):
    tuned = Tuned(folder, "files")
    tuned.load("q8", {"d": 32, "model": 0} if drafters is None else drafters)
    tuned.keep(settings)
    return Tuned(folder, "files")


def test_the_faster_format_is_advised(tmp_path):
    tuned = found(tmp_path, setting("q8", None, 10.0), setting("q4", None, 15.0))
    tuned.load("q8", {})
    assert "format q4 ran 1.50 times as fast as q8" in tuned.hint
    tuned.load("q4", {})
    assert tuned.hint == ""
    tuned.load("bf16", {})
    assert tuned.hint == "", "nobody knows how fast that is"


def test_a_little_faster_is_no_advice(tmp_path):
    tuned = found(tmp_path, setting("q8", None, 10.0), setting("q4", None, 10.9))
    tuned.load("q8", {})
    assert tuned.hint == ""


def test_clusters_are_those_that_gained_most_over_their_own_plain_runs(tmp_path):
    """Plain decoding knows no clusters: where it was faster, the machine was."""
    tuned = found(tmp_path, setting("q8", 32, 20.0, 1.5), setting("q8", 8, 18.0, 1.8))
    assert tuned.clusters == {"d": 8}, "and a drafter without clusters has none"
    tuned.load("q8", {"d": 32})
    assert "8 clusters of a drafter were faster than 32" in tuned.hint
    tuned.load("q8", {"d": 8})
    assert tuned.hint == ""


def test_what_cannot_be_compared_leaves_what_was_found(tmp_path):
    found(tmp_path, setting("q8", 32, 20.0, 1.5), setting("q8", 8, 18.0, 1.8))
    assert found(tmp_path, setting("q8", None, 30.0)).clusters == {"d": 8}
    assert Tuned(tmp_path, "other files").clusters == {}
    assert found(tmp_path / "nowhere", setting("q8", 1, 1.0), setting("q8", 2, 2.0)).clusters == {}


@pytest.mark.parametrize("change", [{"clusters": {"d": 0}}, {"speeds": {"q8": -1}}, {"speeds": []}, {"version": 0}])
def test_a_damaged_file_is_named_and_not_used(tmp_path, change):
    found(tmp_path, setting("q8", 32, 20.0), setting("q4", 8, 18.0))
    (path,) = tmp_path.glob("tune-*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    tuned = Tuned(tmp_path, "files")
    assert (tuned.clusters, tuned.speeds) == ({}, {}) and "not used" in tuned.problems[0]


def test_a_hint_is_advice_for_an_answer_of_some_length():
    stats = Stats(hint="Take another.")
    assert stats.advice == []
    stats.rounds = ADVICE_MIN_ROUNDS
    assert stats.advice == ["Take another."]


def test_clusters_that_tune_found_are_used_where_the_user_names_none(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETOKEN_CACHE_DIR", str(tmp_path))

    def clusters(**options):
        model = foretoken.load(drafter=ASSETS / "drafter", **options)
        return model.drafter.assistant.config.top_clusters, model

    default, model = clusters()
    texts = {tuple(model.generate("def add(a, b):", max_tokens=20, temperature=0.0).tokens)}
    model.tuned.keep([setting("q8", 4, 18.0, 1.8), setting("q8", 16, 20.0, 1.5)])
    tuned, model = clusters()
    texts.add(tuple(model.generate("def add(a, b):", max_tokens=20, temperature=0.0).tokens))
    named, model = clusters(draft_clusters=16)
    assert (tuned, named) == (4, 16) and default != 4 and len(texts) == 1
    assert "4 clusters of a drafter were faster than 16" in model.tuned.hint


def test_tune_keeps_what_it_found(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETOKEN_CACHE_DIR", str(tmp_path))
    ways = [({"draft_clusters": n}, lambda n=n: foretoken.load(draft_clusters=n)) for n in (16, 4)]
    report = tune.measure(ways, PROMPTS, ["0", "2", "auto"], 12, repeats=1)
    (path,) = tmp_path.glob("tune-*.json")
    (count,) = json.loads(path.read_text())["clusters"].values()
    assert count in {own["draft_clusters"] for own in report["settings"]}
