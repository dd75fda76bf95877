"""What the planner keeps between starts: read back, refused when damaged, never needed."""

import json

import pytest
from simulated import FLAT, World, paid

from foretoken.errors import InputError
from foretoken.horizon import FixedHorizon, Learned, Shelf, parse_min_chance
from foretoken.horizon.cost import Costs, cheapest_row


def trained(folder, key="k"):
    learned = Learned(folder, key)
    World(FLAT, 0.05, lambda position, depth: 0.9, length=600).auto(learned=learned)
    return learned


def test_costs_are_those_of_the_machine():
    learned = Learned()
    for limit in (0, 2, 4, 2):
        World(FLAT, 0.05, lambda position, depth: 0.9, length=300).run(FixedHorizon(limit), learned.costs)
    curve = learned.costs.curve(100)
    assert curve[3] / curve[1] == pytest.approx(FLAT[3], rel=0.05)
    start, step = learned.costs.draft("mtp")
    assert start + 4 * step == pytest.approx(4 * 0.05 * curve[1], rel=0.1)
    assert learned.costs.plain_s(paid(3, 1.0)) == pytest.approx(1 / FLAT[3], rel=0.05)
    assert learned.costs.plain_s(paid(1, 1.0)) == 1.0
    assert learned.costs.plain_s(paid(3, 1.0, prompt_rows=9)) is None
    assert learned.costs.plain_s(paid(60, 1.0)) is None  # never measured


def test_one_slow_pass_changes_little_and_a_slow_minute_nothing_that_is_compared():
    costs = Costs()
    for _ in range(40):
        costs.add(paid(1, 1.0))
        costs.add(paid(4, 1.3))
    before = costs.curve(100)[4] / costs.curve(100)[1]
    costs.add(paid(4, 30.0))
    assert costs.curve(100)[4] / costs.curve(100)[1] == pytest.approx(before, rel=0.05)
    for _ in range(60):
        costs.add(paid(1, 3.0))
        costs.add(paid(4, 3.9))
    assert costs.curve(100)[4] / costs.curve(100)[1] == pytest.approx(before, rel=0.05)
    assert costs.level * costs.curve(100)[1] == pytest.approx(3.0, rel=0.1)


@pytest.mark.parametrize("context", [100, 700])
@pytest.mark.parametrize("times", [0.5, 0.9, 2.0])
def test_a_faster_or_slower_machine_changes_no_cost_that_was_not_measured_since(times, context):
    """In the usual context, and in one that is not yet."""
    costs = Costs()
    for _ in range(50):
        costs.add(paid(1, 1.0))
    for _ in range(40):
        for rows, seconds in ((1, 1.0), (4, 1.3), (8, 2.0)):
            costs.add(paid(rows, seconds, context=context, drafters={"mtp": [4]}, draft_s=0.2))
    before = list(costs.curve(context))
    for _ in range(120):  # fewer than after which there is hope
        costs.add(paid(1, times, context=context))
        costs.add(paid(4, 1.3 * times, context=context))
    after = costs.curve(context)
    assert costs.level * after[1] == pytest.approx(times, rel=0.01)
    assert [before[rows] / before[1] for rows in (4, 8)] == pytest.approx([1.3, 2.0], rel=0.01)
    assert [after[rows] / after[1] for rows in (4, 8)] == pytest.approx([1.3, 2.0], rel=0.02)
    assert costs.draft("mtp") == pytest.approx((0.1, 0.025), rel=0.02)


def test_what_was_long_not_measured_may_cost_less_and_is_learnt_anew():
    costs = Costs()
    for _ in range(40):
        costs.add(paid(1, 1.0))
        costs.add(paid(4, 1.3))
    for _ in range(800):
        costs.add(paid(6, 1.6))
    curve = costs.curve(100)
    assert curve[4] / curve[6] == pytest.approx(0.9 * 1.3 / 1.6, rel=0.02)  # enough for a try, where it was nearly best
    assert costs.plain_s(paid(6, 1.6)) == pytest.approx(1.0, rel=0.02)  # figures tell what was measured
    costs.add(paid(4, 1.0))
    halfway = (1.0 * 1.3) ** 0.5  # the old cost counts once
    assert costs.curve(100)[4] / curve[6] == pytest.approx(halfway / 1.6, rel=0.02)


def test_a_unit_stays_a_plain_pass():
    costs = Costs()
    passes = {"0": {"1": [3.3, 9], "5": [6.6, 9]}, "3": {"1": [6.6, 9]}}
    costs.restore({"level": 0.1, "passes": passes, "drafts": {"mtp": [4.0, 8.0, 16.0, 13.2, 26.4]}})
    assert costs.level == pytest.approx(0.33)
    assert costs.curve(100)[1:6:4] == pytest.approx([1.0, 2.0]) and costs.curve(5000)[1] == pytest.approx(2.0)
    assert costs.draft("mtp") == pytest.approx((0.5, 0.25))
    for _ in range(1000):  # rows that become cheaper all the time move the level, plain passes follow
        costs.add(paid(5, 0.5 * costs.level * costs.curve(100)[5]))
        costs.add(paid(1, 0.33))
        assert 0.7 < costs.curve(100)[1] < 1.4
    assert costs.level * costs.curve(100)[1] == pytest.approx(0.33, rel=0.1)


@pytest.mark.parametrize(("behind_plain", "behind_draft"), [(0.5, 0.5), (0.2, 0.6)])
def test_what_comes_once_a_round_is_part_of_its_pass(behind_plain, behind_draft):
    costs = Costs()
    for _ in range(60):
        costs.add(paid(1, 1.0, other_s=behind_plain))
        costs.add(paid(4, 1.3, other_s=behind_draft))
    expected = (1.3 + behind_draft) / (1.0 + behind_plain)
    assert costs.curve(100)[4] / costs.curve(100)[1] == pytest.approx(expected, rel=0.02)
    assert costs.plain_s(paid(4, 1.3)) == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize(("before", "most", "units"), [(1, 5, 0.02), (4, 1, 0.44), (4, 2, 0.23)])
def test_where_rows_come_in_steps_the_cheapest_is_an_average(before, most, units):
    assert cheapest_row([0.0, 1.0, 1.02, 1.04, 1.06, 1.5, 1.52], before, most) == pytest.approx(units)


def test_long_contexts_have_their_own_costs():
    costs = Costs()
    for _ in range(60):
        for rows in (1, 3):
            costs.add(paid(rows, 1.0, context=100))
            costs.add(paid(rows, rows * 1.0, context=5000))
    short, long = costs.curve(100), costs.curve(5000)
    assert short[3] / short[1] == pytest.approx(1.0, abs=0.1)
    assert long[3] / long[1] == pytest.approx(3.0, abs=0.3)


def test_kept_and_read_back(tmp_path):
    learned = trained(tmp_path)
    learned.save()
    again = Learned(tmp_path, "k")
    assert again.problem == ""
    learned.costs._fill(0)  # which is made anew when it is read, and else once in some passes
    assert again.costs.curve(100) == pytest.approx(learned.costs.curve(100), rel=1e-3)
    learned.costs._drafts["mtp"]._fit()  # the same, once in eight drafts
    assert again.costs.draft("mtp") == pytest.approx(learned.costs.draft("mtp"), rel=0.02)
    assert again._chance("mtp").weights.values == pytest.approx(learned._chance("mtp").weights.values, abs=1e-5)
    kept, found = learned._chance("mtp").weights, again._chance("mtp").weights
    assert 0 < found.right <= found.drafts
    assert (found.drafts, found.right) == pytest.approx((kept.drafts, kept.right), abs=1e-3)
    assert Learned(tmp_path, "another").costs.level is None
    assert not list(tmp_path.glob("*.tmp"))


def test_how_long_ago_a_row_count_was_measured_is_kept(tmp_path):
    """Else commands of one answer each would never try again what one slow pass has made look dear."""
    learned = Learned(tmp_path, "k")
    for _ in range(9):
        learned.costs.add(paid(1, 1.0))
        learned.costs.add(paid(4, 1.3))
    for _ in range(10):
        for _ in range(60):
            learned.costs.add(paid(1, 1.0))
        learned.save()
        learned = Learned(tmp_path, "k")
    assert learned.costs.curve(100)[4] / learned.costs.curve(100)[1] == pytest.approx(0.9 * 1.3, rel=0.02)


def test_a_new_start_begins_where_the_last_one_ended(tmp_path):
    """As the next text of the same process would: from its first draft on, and in blocks of code as well."""
    learned = trained(tmp_path)
    block = learned._habit.of(7)
    block.worth["mtp"], block.reach["mtp"] = [0.9, 0.8, 0.25], 6.5
    learned.save()
    again = Learned(tmp_path, "k")
    kept, found = learned._habit, again._habit
    assert kept.reach_of("mtp") > 2 and len(kept.worth["mtp"]) > 2  # or nothing would be shown
    assert found.worth["mtp"] == pytest.approx(kept.worth["mtp"], abs=1e-5)
    assert found.reach["mtp"] == pytest.approx(kept.reach["mtp"], abs=1e-3)
    assert (found.tokens, found.time) == pytest.approx((kept.tokens, kept.time), abs=1e-3)
    assert (found.source, found._num_drafts) == ("mtp", kept._num_drafts)
    assert found.weights is again._chance("mtp").weights
    assert found.text.as_list() == kept.text.as_list()
    assert found.of(7).worth == {"mtp": [0.9, 0.8, 0.25]} and found.of(7).reach_of("mtp") == 6 == block.reach_of("mtp")
    assert again.horizon("auto").limit == learned.horizon("auto").limit > Learned().horizon("auto").limit


def test_a_drafter_that_is_never_right_begins_anew(tmp_path):
    """Or its guesses would be too few, start after start, for anyone to say that it is useless."""
    first = Learned(tmp_path, "k")
    World(FLAT, 0.05, lambda position, depth: 0.0, length=200).auto(learned=first)
    assert first._habit.reach["mtp"] < 2 and first.horizon("auto").limit < 2
    first.save()
    again = Learned(tmp_path, "k")
    assert again._habit.as_dict() == Learned()._habit.as_dict() and again.problem == ""
    assert again._chance("mtp").weights.drafts > 0
    assert again.horizon("auto").limit == 2


def test_where_no_model_was_asked_the_text_is_remembered(tmp_path):
    learned = Learned(tmp_path, "k")
    learned.costs.add(paid(1, 1.0))
    learned.costs.add(paid(1, 1.0))
    learned._habit.text.settle(-1.5, 0.125, 1.0)
    learned.save()
    kept = learned._habit.text.as_list()
    assert Learned(tmp_path, "k")._habit.text.as_list() == kept != Learned()._habit.text.as_list()


def test_a_file_of_before_has_no_habit(tmp_path):
    trained(tmp_path).save()
    (path,) = tmp_path.glob("horizon-*.json")
    kept = json.loads(path.read_text())
    del kept["habit"]
    path.write_text(json.dumps(kept))
    again = Learned(tmp_path, "k")
    assert again.problem == "" and again.costs.level is not None
    assert again._habit.worth == {} and again._habit.weights is None


DAMAGE = {
    "cut off": lambda text: text[: len(text) // 2],
    "no object": lambda text: "[1, 2]",
    "nothing": lambda text: "",
    "other version": lambda text: text.replace('"version": 2', '"version": 1'),
    "no passes": lambda text: text.replace('"passes"', '"posses"'),
    "a level that is none": lambda text: changed(text, "level", float("nan")),
    "a level below zero": lambda text: changed(text, "level", -1.0),
    "a huge number": lambda text: changed(text, "level", 10**400),
    "rows that are none": lambda text: changed(text, "passes", {"0": {"-3": [1.0, 2]}}),
    "a class that is none": lambda text: changed(text, "passes", {"99": {"1": [1.0, 2]}}),
    "an age below zero": lambda text: changed(text, "passes", {"0": {"1": [1.0, 2, -1]}}),
    "two ages": lambda text: changed(text, "passes", {"0": {"1": [1.0, 2, 3, 4]}}),
    "units as text": lambda text: changed(text, "passes", {"0": {"1": ["1", 2]}}),
    "short sums": lambda text: changed(text, "drafts", {"mtp": [1.0]}),
    "weights as text": lambda text: text.replace('"weights": {"mtp": [', '"weights": {"mtp": ["x", '),
    "tally too high": lambda text: text.replace('"tallies": {"mtp":', '"tallies": {"mtp": [0.0, 1.0], "x":'),
    "tally as text": lambda text: text.replace('"tallies": {"mtp":', '"tallies": {"mtp": "", "x":'),
    "worth that is none": lambda text: changed(text, "worth", {"mtp": [float("inf")]}, "habit"),
    "worth of too many": lambda text: changed(text, "worth", {"mtp": [0.5] * 17}, "habit"),
    "a reach beyond drafts": lambda text: changed(text, "reach", {"mtp": 1e9}, "habit"),
    "drafts that are none": lambda text: changed(text, "drafts", {"mtp": -1}, "habit"),
    "a source without a name": lambda text: changed(text, "source", 7, "habit"),
    "a rate of three": lambda text: changed(text, "rate", [1.0, 1.0, 1.0], "habit"),
    "a balance as text": lambda text: changed(text, "text", [0.0, "1"], "habit"),
    "a kind without a number": lambda text: changed(text, "kinds", {"python": {}}, "habit"),
    "an empty kind": lambda text: changed(text, "kinds", {"7": {}}, "habit"),
    "prose among the kinds": lambda text: in_kinds(text, "0"),
    "too many kinds": lambda text: changed(text, "kinds", {str(i): {} for i in range(65)}, "habit"),
    "no habit of ours": lambda text: text.replace('"habit": {', '"habit": [], "x": {'),
    "deep": lambda text: "[" * 100_000,
    "large": lambda text: text + " " * (1 << 20),
}


def changed(text, name, value, of="costs"):
    kept = json.loads(text)
    kept[of][name] = value
    return json.dumps(kept)


def in_kinds(text, kind):
    habit = json.loads(text)["habit"]
    shown = {name: habit[name] for name in ("worth", "reach", "drafts")}
    return changed(text, "kinds", {kind: shown}, "habit")


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named_and_not_used(tmp_path, damage):
    trained(tmp_path).save()
    (path,) = tmp_path.glob("horizon-*.json")
    path.write_text(DAMAGE[damage](path.read_text()))
    learned = Learned(tmp_path, "k")
    assert str(path) in learned.problem or "something else" in learned.problem
    assert learned.costs.level is None
    assert learned._weights == {} and learned._habit.as_dict() == Learned()._habit.as_dict()
    World(FLAT, 0.05, lambda position, depth: 0.9, length=100).auto(learned=learned)  # and it works without
    learned.save()
    assert Learned(tmp_path, "k").problem == ""


def test_a_folder_that_takes_no_files_costs_nothing(tmp_path):
    learned = trained(tmp_path / "missing")
    learned.save()
    assert not (tmp_path / "missing").exists()
    (tmp_path / "file").write_text("")
    told = []
    shelf = Shelf(tmp_path / "file", lambda token: False, 0.0, told.append)
    assert shelf.get("a") is shelf.get("a") is not shelf.get("b")
    assert told == []


def test_a_folder_in_its_place_is_no_file(tmp_path):
    trained(tmp_path).save()
    (path,) = tmp_path.glob("horizon-*.json")
    path.unlink()
    path.mkdir()
    trained(tmp_path).save()
    assert path.is_dir()


def test_nothing_measured_writes_nothing(tmp_path):
    Learned(tmp_path, "k").save()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("value", "parsed"), [(None, 0.0), (0, 0.0), (0.25, 0.25), (1, 1.0)])
def test_least_chances(value, parsed):
    assert parse_min_chance(value) == parsed


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "0.5", True])
def test_bad_least_chances(value):
    with pytest.raises(InputError, match="draft_min_chance"):
        parse_min_chance(value)


def test_a_new_row_count_is_run_once_what_it_would_have_saved_is_what_its_first_pass_takes(tmp_path):
    learned = Learned(tmp_path, "k")
    for rows, seconds in ((1, 1.0), (1, 1.0), (1, 1.0), (2, 4.9), (2, 1.0)):
        learned.costs.add(paid(rows, seconds))
    assert [learned.costs.is_new(rows) for rows in (1, 2, 3)] == [False, False, True]
    learned.save()
    again = Learned(tmp_path, "k").costs
    for rows in (1, 2):
        again.add(paid(rows, 1.0))
    for costs in (learned.costs, again):
        nets = [0.0, 0.5, 1.0]  # two draft tokens would save half a unit more than one
        assert [costs.instead(nets, 2, 1.0) for _ in range(9)] == [1] * 7 + [2] * 2


def test_where_first_passes_take_no_longer_every_row_count_is_run():
    costs = Costs()
    for rows in (1, 1, 2, 2):
        costs.add(paid(rows, 1.0))
    assert costs.is_new(5) and costs.instead([0.0, 0.1, 0.2, 0.3, 0.31], 4, 1.0) == 4
