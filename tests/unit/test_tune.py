"""`foretoken tune`: what it reports for a few prompts, and the picture."""

import gc
import json
import weakref

import numpy as np
import pytest
from cli.command import assert_refused, foretoken
from pair import embedded

from foretoken.api import load
from foretoken.bench import decode_speed, prompts, tune, tune_plot
from foretoken.bench.calibration import calibration_error, error_by_chance, foretold
from foretoken.errors import DraftError, InputError
from foretoken.stats import HOPELESS_MODEL

PROMPTS = {
    "code": [{"prompt": "def add(a, b):"}, {"prompt": "def sub(a, b):"}],
    "prose": [{"prompt": "In the morning"}],
}


@pytest.fixture(scope="module")
def report():
    horizons = tune.check_horizons(["2"])
    return tune.measure([({"draft_clusters": None}, embedded)], PROMPTS, horizons, 24, repeats=1)


def test_every_horizon_is_told_and_the_text_is_the_same(report):
    (setting,) = report["settings"]
    assert list(setting["by_horizon"]) == ["0", "2", "auto"]
    assert setting["same_text"] is True
    assert setting["by_horizon"]["0"]["rejection_rate"] is None
    assert setting["by_horizon"]["0"]["speedup"] == pytest.approx(1.0)
    assert sum(setting["by_horizon"]["2"]["horizon_rounds"].values()) > 0
    assert set(setting["domains"]) == {"code", "prose"}
    assert setting["best_horizon"] in ("0", "2")
    assert json.loads(json.dumps(report)) == report


def test_the_sweet_spot_is_the_fastest(report):
    (setting,) = report["settings"]
    speeds = {h: own["tok_per_s"] for h, own in setting["by_horizon"].items() if h not in setting["noise"]}
    assert report["sweet_spot"]["tok_per_s"] == max(speeds.values())
    assert speeds[report["sweet_spot"]["horizon"]] == max(speeds.values())
    assert "fastest here: --format" in tune.advice(report)[0]


def test_a_fast_minute_of_the_machine_is_no_merit_of_the_clusters_measured_in_it():
    def setting(clusters, plain, speedup):
        figures = {h: {"tok_per_s": plain * gain, "speedup": gain} for h, gain in (("0", 1.0), ("4", speedup))}
        return {"format": "q8", "draft_clusters": clusters, "by_horizon": figures, "noise": []}

    spot = tune._sweet_spot([setting(32, 15.0, 1.4), setting(8, 10.0, 1.6)])
    assert spot == {"format": "q8", "draft_clusters": 8, "horizon": "4", "tok_per_s": 16.0}


def test_what_cannot_be_true_is_not_the_fastest():
    figures = {
        "0": {"tok_per_s": 10.0, "speedup": 1.0, "tokens_per_round": 1.0},
        "2": {"tok_per_s": 15.0, "speedup": 1.5, "tokens_per_round": 2.2},
        "4": {"tok_per_s": 30.0, "speedup": 3.0, "tokens_per_round": 2.4},
    }
    assert tune._best(figures, ["0", "2", "4"]) == "2"
    spot = tune._sweet_spot([{"format": "q8", "draft_clusters": None, "by_horizon": figures, "noise": ["4"]}])
    assert spot["horizon"] == "2"


def test_the_model_is_left_without_a_trace(report):
    assert embedded().trace is None


def test_the_picture_is_drawn(report, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "tune.png"
    tune_plot.draw(path, report)
    assert path.read_bytes()[:4] == b"\x89PNG" and path.stat().st_size > 10_000


def test_the_picture_names_the_clusters_and_shows_all_of_its_highest_point(report, tmp_path, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure").Figure
    titles, tops = [], []
    monkeypatch.setattr(figure, "suptitle", lambda self, title: titles.append(title))
    monkeypatch.setattr(figure, "savefig", lambda self, path, **options: tops.append(self.axes[0].get_ylim()[1]))
    (setting,) = report["settings"]
    named = {**setting, "draft_clusters": 8}
    tune_plot.draw(tmp_path / "a.png", {**report, "settings": [named], "sweet_spot": {**report["sweet_spot"], **named}})
    assert "8 clusters" in titles[0]
    assert tops[0] > 1.05 * max(own["tok_per_s"] for own in setting["by_horizon"].values())


def test_the_sweet_spot_names_no_clusters_where_nothing_is_drafted(report):
    for horizon, is_named in (("0", False), ("2", True)):
        spot = {**report["sweet_spot"], "draft_clusters": 8, "horizon": horizon}
        assert ("--draft-clusters" in tune.advice({**report, "sweet_spot": spot})[0]) == is_named


def test_a_speed_up_above_the_tokens_of_a_round_is_noise(report):
    (setting,) = report["settings"]
    assert set(setting["noise"]) <= {"2", "auto"}
    assert tune._is_noise({"speedup": 1.5, "tokens_per_round": 1.4})
    assert not tune._is_noise({"speedup": 1.4, "tokens_per_round": 1.5})
    assert not tune._is_noise({"speedup": None, "tokens_per_round": None})


def test_a_drafter_that_is_never_right_is_named(report):
    (setting,) = report["settings"]
    assert setting["hopeless"] == ""
    hopeless = {**setting, "hopeless": HOPELESS_MODEL}
    assert any("another model" in sentence for sentence in tune.advice({**report, "settings": [hopeless]}))


def test_no_horizon_is_always_the_first_of_a_prompt(monkeypatch):
    orders = []

    def run(model, prompt, horizons, *rest, **options):
        orders.append(list(horizons))
        return real(model, prompt, horizons, *rest, **options)

    real = tune._run
    monkeypatch.setattr(tune, "_run", run)
    tune.measure([({"draft_clusters": None}, embedded)], {"code": PROMPTS["code"]}, ["0", "auto"], 8, repeats=1)
    assert orders == [["0", "auto"], ["auto", "0"]]


def test_prompts_need_no_domain(tmp_path):
    path = tmp_path / "mine.jsonl"
    lines = [{"text": "a"}, {"prompt": "b", "domain": "code"}, {"messages": [{"role": "user", "content": "c"}]}]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert prompts.load(path) == {"mine": [{"prompt": "a"}, lines[2]], "code": [{"prompt": "b"}]}


def test_conversations_need_a_template_before_anything_is_measured(monkeypatch):
    model = embedded()
    monkeypatch.setattr(model, "chat_template", None)
    talk = {"chat": [{"messages": [{"role": "user", "content": "Hello"}]}]}
    for measure in (
        lambda: tune.measure([({"draft_clusters": None}, lambda: model)], talk, ["0", "auto"], 8, repeats=1),
        lambda: decode_speed.measure(model, talk, ["0", "2"], 8, repeats=1),
    ):
        with pytest.raises(InputError, match="Give --prompts"):
            measure()


def test_calibration_counts_tokens_whose_fate_is_known():
    rounds = [
        {"chances": [0.9, 0.8, 0.7], "drafted": 3, "accepted": 1},  # the third was never judged
        {"chances": [0.6, 0.5], "drafted": 1, "accepted": 1},  # the second had no row
        {"chances": [], "drafted": 0, "accepted": 0},
    ]
    assert foretold(rounds) == ([0.9, 0.8, 0.6], [1.0, 0.0, 1.0])
    assert calibration_error([0.25, 0.25, 0.75, 0.75], [0, 1, 1, 1]) == pytest.approx(0.25)
    assert calibration_error([], []) is None


def test_error_by_chance_is_that_of_true_chances():
    rng = np.random.default_rng(3)
    chances = rng.uniform(size=250)
    errors = [calibration_error(chances, rng.uniform(size=250) < chances) for _ in range(400)]
    assert error_by_chance(chances) == pytest.approx(np.mean(errors), rel=0.03)
    assert error_by_chance([1.0, 0.0]) == 0.0
    assert error_by_chance([]) is None


def test_plain_and_auto_are_always_compared():
    assert tune.check_horizons(["4", "0"]) == ["0", "4", "auto"]
    assert tune.check_horizons(["auto", "long", "10", "4", "short", "04"]) == ["0", "4", "10", "short", "long", "auto"]
    with pytest.raises(InputError, match="horizon is 17"):
        tune.check_horizons(["17"])


def test_the_command_refuses_what_it_cannot_measure():
    assert_refused(foretoken("tune", "--clusters", "x"), "clusters")
    assert_refused(foretoken("tune", "--horizon", "99"), "horizon")
    assert_refused(foretoken("tune", "--limit", "0"), "limit")
    assert_refused(foretoken("tune", "--plot", "a.txt"), "picture")
    assert_refused(foretoken("tune", "--formats", "q8,q5"), "q5")
    assert_refused(foretoken("tune", "--clusters", "4,0"), "clusters")


def test_what_a_later_setting_lacks_is_refused_before_anything_is_measured():
    """The most clusters come first, and where nobody has any none is measured."""
    for options, word in ((("--clusters", "4,999999"), "999999"), (("--drafter", "suffix", "--clusters", "4"), "head")):
        refused = foretoken("tune", *options, "--limit", "1", "--max-tokens", "4")
        assert refused.code == 2 and word in refused.err and "tok/s" not in refused.err, refused.err


class Broken:
    name = "mtp"

    def propose(self, states, limits):
        raise OSError("its file is gone")


def test_a_drafter_that_fails_ends_the_measurement(monkeypatch):
    monkeypatch.setattr(embedded(), "drafter", Broken())
    for measure in (
        lambda: tune.measure([({"draft_clusters": None}, embedded)], PROMPTS, ["0", "2", "auto"], 8, repeats=1),
        lambda: decode_speed.measure(embedded(), PROMPTS, ["0", "2"], 8, repeats=1),
    ):
        with pytest.raises(DraftError, match="its file is gone"):
            measure()


def test_one_model_at_a_time_is_in_memory():
    alive = []

    def loaded():
        gc.collect()
        alive.append(sum(model() is not None for model in models))
        model = load(drafter="suffix")
        models.append(weakref.ref(model))
        return model

    models = []
    tune.measure([({"draft_clusters": None}, loaded)] * 2, {"code": PROMPTS["code"]}, ["0", "auto"], 4, repeats=1)
    assert alive == [0, 0]


def test_calibration_is_of_the_first_answers(monkeypatch):
    """Later ones know the answer: the planner and the choice of sources have seen it."""
    told = iter(range(100))
    answer = decode_speed.timed(embedded(), "0", 8, prompt="def add(a, b):")

    def timed(model, horizon, max_tokens, **prompt):
        if horizon == "auto":
            model.trace({"number": next(told)})
        return answer

    monkeypatch.setattr(tune, "timed", timed)
    runs = tune._run(embedded(), PROMPTS["code"][0], ["auto", "0"], 8, repeats=3, has_warm_up=False)
    assert runs["auto"].rounds == [{"number": 0}] and next(told) == 3
