"""The measuring commands: their fields, what they count, and what they refuse. No time is asserted."""

import json
import sys
from dataclasses import replace

import pytest
from pair import CODE, embedded

from foretoken.bench import decode_speed, draft_cost, limits, plot, prompt_speed, prompts, shapes, subject, verify_cost
from foretoken.bench.timing import Figure, Times
from foretoken.errors import InputError

SMALL = 1 << 20  # bytes of the buffer that is read


@pytest.fixture(scope="module")
def tiny():
    return shapes.build("tiny", "q4")


def with_experts(monkeypatch):
    shape = replace(shapes.SHAPES["tiny"], experts=(8, 2, 16), per_layer=0, num_shared=0, is_double_wide=False)
    monkeypatch.setitem(shapes.SHAPES, "experts", shape)
    return shapes.build("experts", "q8", None)


def test_verify_cost_has_every_field(tiny):
    told = []
    report = verify_cost.measure(tiny, 40, (1, 4), 2, lambda *done: told.append(done), SMALL)
    assert (report["shape"], report["format"], report["context"]) == ("tiny", "q4", 40)
    for name in (
        "ms",
        "spread",
        "relative",
        "relative_spread",
        "roofline_ms",
        "roofline_ratio",
        "roofline_ratio_spread",
    ):
        assert list(report[name]) == ["1", "4"]
    assert report["relative"]["1"] == 1.0
    assert report["read_ceiling_gb_per_s"] > 0 and report["int_peak_gmac_per_s"] > 0
    assert told[-1][0] == told[-1][1]
    json.dumps(report, allow_nan=False)


def test_draft_and_prompt_have_every_field(tiny):
    report = draft_cost.measure(tiny, 40, 4, 3)
    assert report["share"] > 0 and report["share_spread"] >= 0 and set(report["quartiles_ms"]) == {"draft", "plain"}
    report = prompt_speed.measure(tiny, 50, 2, read_bytes=SMALL)
    assert report["tok_per_s"] == 1e3 * 50 / report["prompt_ms"]
    assert report["peak_share"] > 0 and report["linear_peak_share"] > 0 and report["peak_share_spread"] is None


def drifting(calls_at_twice):
    """In place of `interleaved`: every case takes the seconds that it names, longer and longer, turn by turn."""

    def interleaved(cases, repeats, told=None, has_warm_up=True):
        drift = [1 + turn / calls_at_twice for turn in range(repeats)]
        return {case: Times(tuple(SECONDS[case[0]] * factor for factor in drift)) for case in cases}

    return interleaved


SECONDS = {"pass": 0.1, "limit: read": 0.01, "limit: multiply": 0.01, "limit: instructions": 0.01}


def test_ratios_of_reports_are_those_within_a_turn(tiny, monkeypatch):
    monkeypatch.setattr(verify_cost, "interleaved", drifting(2))
    report = verify_cost.measure(tiny, 40, (1, 4), 4, read_bytes=SMALL)
    assert report["spread"]["4"] > 0.4, "the machine drifts"
    assert report["relative"]["4"] == 1.0 and report["relative_spread"]["4"] == 0.0
    assert report["roofline_ratio_spread"]["4"] == pytest.approx(0.0, abs=1e-9)
    assert report["roofline_ratio"]["4"] == pytest.approx(report["ms"]["4"] / report["roofline_ms"]["4"])


def test_a_pass_reads_every_matrix_once_and_multiplies_it_by_every_row(tiny):
    weights, config = tiny.target.weights, tiny.target.config
    one, four = limits.work(tiny, 1), limits.work(tiny, 4)
    layers = [matrix for layer in weights.layers for matrix in (layer.qkv, layer.o, layer.gate_up, layer.down)]
    layers += [matrix for layer in weights.layers for matrix in (layer.per_layer_gate, layer.per_layer_projection)]
    every = [weights.embed, weights.per_layer_model_projection, *layers]
    assert one.weight_bytes == four.weight_bytes == sum(matrix.data.nbytes for matrix in every)
    assert (one.macs, four.macs) == tuple(rows * sum(m.n * m.k for m in every) for rows in (1, 4))
    stored = [m for layer in weights.layers[: config.first_shared] for m in (layer.qkv, layer.o)]
    first = limits.prompt_work(tiny, 10).macs - limits.prompt_work(tiny, 9).macs
    assert sum(m.n * m.k for m in stored) < first < one.macs - weights.embed.n * weights.embed.k


def test_experts_count_as_far_as_rows_take_them(monkeypatch):
    found = with_experts(monkeypatch)
    layers = found.target.weights.layers
    experts = sum(layer.experts.gate_up.data.nbytes + layer.experts.down.data.nbytes for layer in layers)
    rest = limits.work(found, 1).weight_bytes - experts * 2 / 8
    assert limits.work(found, 2).weight_bytes == pytest.approx(rest + experts * (1 - (6 / 8) ** 2))
    verify_cost.measure(found, 20, (1, 2), 1, read_bytes=SMALL)
    prompt_speed.measure(found, 20, 1, read_bytes=SMALL)


def test_the_roofline_is_the_longer_of_reading_and_multiplying():
    ceilings = limits.Ceilings(read_gb_per_s=2.0, gmac_per_s=100.0, kernel_gmac_per_s=60.0, peak_source="")
    assert ceilings.roofline_ms(limits.Work(1e9, 1e9)) == 500.0
    assert ceilings.roofline_ms(limits.Work(1e9, 100e9)) == 1000.0


def test_a_loaded_model_is_a_subject():
    found = subject.loaded(embedded())
    assert found.name == "embedded" and found.table_bytes == 0
    assert found.packed_bytes > embedded().info()["packed_bytes"], "the drafter's too"
    assert draft_cost.measure(found, 20, 2, 1)["draft_ms"] > 0


def test_decode_compares_and_counts():
    sets = {"code": [{"prompt": CODE}], "chat": [{"messages": [{"role": "user", "content": "Define «salt»."}]}]}
    told = []
    report = decode_speed.measure(embedded(), sets, ("0", "2", "auto"), 12, 1, lambda *done: told.append(done))
    assert list(report["domains"]) == ["code", "chat"]
    for found in report["domains"].values():
        assert found["same_text"] and found["answers"] == 1
        assert found["speedup"]["0"] == 1.0 and set(found["speedup"]) == {"0", "2", "auto"}
        assert found["best_horizon"] is None, "one turn tells no best"
        assert found["tokens_per_round_horizon"] in ("2", "auto") and found["plain_tok_per_s"] > 0
    best = report["fixed_horizon"]
    assert report["mean_speedup"] == report["mean_by_horizon"][best]
    assert report["best_speedup"] == max(found["speedup"][best] for found in report["domains"].values())
    assert told == [(i, 6) for i in range(1, 7)], "three runs a prompt"
    assert report["mix_auto_over_best"]["horizon"] in ("0", "2") and report["mix_by_horizon"]["0"] == 1.0
    json.dumps(report, allow_nan=False)


def runs(tokens, drafted, plain):
    """What a prompt of 61 tokens gave at horizon 4, in 20 rounds: drafted seconds, and the plain ones beside them."""
    pairs = {"0": (Times(plain), Times(plain)), "4": (Times(drafted), Times(plain))}
    return decode_speed._Runs(tokens, True, pairs, Times(plain), {"0": 60, "4": 20}, timed_tokens=60)


def figures(*found):
    kept = [own for own in found if own.is_kept]
    return decode_speed._figures(found, ("0", "4"), decode_speed._speedups(kept, ("0", "4")))


def test_loops_are_counted_and_left_out():
    loop, text = (runs(tokens, (1.0,) * 3, (2.0,) * 3) for tokens in ([7] * 61, list(range(61))))
    found = figures(loop, text)
    assert (found["answers"], found["loops"], found["tokens"]) == (2, 1, 60)
    assert (found["plain_tok_per_s"], found["speedup"]["4"]) == (30.0, 2.0)
    assert (found["tokens_per_round"], found["tokens_per_round_horizon"], found["best_horizon"]) == (3.0, "4", "4")
    found = figures(loop)
    assert (
        found["best_horizon"]
        is found["speedup"]["4"]
        is found["speedup_spread"]["4"]
        is found["plain_tok_per_s"]
        is None
    )


def test_the_planner_is_compared_with_the_number_that_was_fastest():
    def speeds(*turns):
        return Figure(tuple(map(float, turns)))

    found = decode_speed._auto_over_best({"0": speeds(1, 1, 1), "4": speeds(2, 2, 4), "auto": speeds(1.5, 3, 4)})
    assert (found["horizon"], found["value"], found["value_quartiles"]) == ("4", 1.0, (0.875, 1.25))
    assert decode_speed._auto_over_best({"0": speeds(1), "4": speeds(2)}) is None


def test_a_speedup_is_of_runs_beside_each_other():
    found = figures(runs(list(range(61)), (1.0, 2.0, 4.0), (1.5, 3.0, 6.0)))
    assert found["speedup"]["4"] == 1.5 and found["speedup_spread"]["4"] == 0.0
    assert found["best_horizon"] == "4"


@pytest.mark.parametrize("drafted", [(1.0, 1.9, 3.0), (2.0, 2.0, 1.99)])
def test_a_best_horizon_within_the_noise_is_none(drafted):
    assert figures(runs(list(range(61)), drafted, (2.0, 2.0, 2.0)))["best_horizon"] is None


def test_a_speedup_above_the_tokens_of_a_round_is_noise():
    found = figures(runs(list(range(61)), (0.5, 0.5, 0.5), (2.0, 2.0, 2.0)))
    assert found["speedup"]["4"] == 4.0 > found["tokens_per_round"] == 3.0
    assert found["noise"] == ["4"] and found["best_horizon"] is None


def test_every_drafted_run_stands_beside_a_plain_one():
    cases = decode_speed._cases(("0", "1", "2", "4"))
    assert cases == [(0, "1"), (0, "0"), (0, "2"), (1, "4"), (1, "0")]
    assert decode_speed._cases(("0",)) == [(0, "0")]


def test_prompt_sets(tmp_path):
    (tmp_path / "b.jsonl").write_text('{"domain": "b", "text": "x"}\n\n{"domain": "b", "text": "y"}\n')
    (tmp_path / "a.jsonl").write_text('{"domain": "a", "messages": [{"role": "user", "content": "z"}], "note": 1}\n')
    assert prompts.load(tmp_path, limit=1) == {
        "a": [{"messages": [{"role": "user", "content": "z"}]}],
        "b": [{"prompt": "x"}],
    }
    assert prompts.load(tmp_path / "b.jsonl") == {"b": [{"prompt": "x"}, {"prompt": "y"}]}


BROKEN = ("{", "[]", '{"text": "x", "prompt": "x"}', '{"domain": 1, "text": "x"}', '{"domain": "a"}', '{"text": 1}')


@pytest.mark.parametrize("line", BROKEN)
def test_a_broken_prompt_is_named(tmp_path, line):
    file = tmp_path / "a.jsonl"
    file.write_text('{"domain": "a", "text": "x"}\n' + line)
    with pytest.raises(InputError, match="line 2 of"):
        prompts.load(file)


def test_missing_prompts_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="cannot be read"):
        prompts.load(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match=r"no \.jsonl file"):
        prompts.load(tmp_path)
    monkeypatch.setattr(prompts, "SETS", tmp_path)
    with pytest.raises(InputError, match="--prompts"):
        prompts.default_set(is_embedded=True)


@pytest.mark.parametrize("horizons", [("1", "2"), ("0", "17"), ("0", "")])
def test_horizons_that_do_not_compare_are_refused(horizons):
    with pytest.raises(InputError, match="horizon"):
        decode_speed.check_horizons(horizons)


def test_what_has_no_drafter_or_no_first_row_is_refused(tiny):
    with pytest.raises(InputError, match="no drafter"):
        draft_cost.measure(replace(tiny, drafter=None), 20, 4, 1)
    with pytest.raises(InputError, match="lack 1"):
        verify_cost.check_rows((2, 4))


def test_a_picture_that_cannot_be_drawn_is_refused_before(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"matplotlib.*'foretoken-mtp\[plot\]'.*'\.\[plot\]'"):
        plot.check(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"should end in \.png"):
        plot.check(tmp_path / "a.txt")
    with pytest.raises(InputError, match="no folder"):
        plot.check(tmp_path / "none" / "a.png")


def test_pictures_are_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib draws the pictures")
    plot.lines(tmp_path / "lines.png", "t", "x", "y", {"a": {"1": (1.0, None), "4": (2.0, (1.8, 2.1))}}, "ideal")
    groups = {"code": {"2": (1.0, None), "4": None}, "story": {"2": (1.0, (0.9, 1.1)), "4": (2.0, None)}}
    plot.bars(tmp_path / "bars.png", "t", "y", groups, level="plain")
    for name in ("lines", "bars"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
