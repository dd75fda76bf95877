"""`foretoken tune`: what it reports for a few prompts, and the picture."""

import json

import pytest
from cli.command import assert_refused, foretoken
from pair import embedded

from foretoken.bench import tune, tune_plot
from foretoken.bench.calibration import calibration_error, foretold
from foretoken.errors import InputError

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
    speeds = {h: own["tok_per_s"] for h, own in report["settings"][0]["by_horizon"].items()}
    assert report["sweet_spot"]["tok_per_s"] == max(speeds.values())
    assert speeds[report["sweet_spot"]["horizon"]] == max(speeds.values())
    assert "fastest here: --format" in tune.advice(report)[0]


def test_the_model_is_left_without_a_trace(report):
    assert embedded().trace is None


def test_the_picture_is_drawn(report, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "tune.png"
    tune_plot.draw(path, report)
    assert path.read_bytes()[:4] == b"\x89PNG" and path.stat().st_size > 10_000


def test_calibration_counts_tokens_whose_fate_is_known():
    rounds = [
        {"chances": [0.9, 0.8, 0.7], "drafted": 3, "accepted": 1},  # the third was never judged
        {"chances": [0.6, 0.5], "drafted": 1, "accepted": 1},  # the second had no row
        {"chances": [], "drafted": 0, "accepted": 0},
    ]
    assert foretold(rounds) == ([0.9, 0.8, 0.6], [1.0, 0.0, 1.0])
    assert calibration_error([0.25, 0.25, 0.75, 0.75], [0, 1, 1, 1]) == pytest.approx(0.25)
    assert calibration_error([], []) is None


def test_plain_and_auto_are_always_compared():
    assert tune.check_horizons(["4", "0"]) == ["0", "4", "auto"]
    with pytest.raises(InputError, match="horizon is 17"):
        tune.check_horizons(["17"])


def test_the_command_refuses_what_it_cannot_measure():
    assert_refused(foretoken("tune", "--clusters", "x"), "clusters")
    assert_refused(foretoken("tune", "--horizon", "99"), "horizon")
    assert_refused(foretoken("tune", "--limit", "0"), "limit")
    assert_refused(foretoken("tune", "--plot", "a.txt"), "picture")
