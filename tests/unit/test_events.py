"""Kinds of text, and what is kept of each."""

import pytest

from foretoken.horizon.events import FENCES, NO_EVENT, OPENS, PROSE, Events, Kind, event_of
from foretoken.horizon.habit import MOST_KINDS, Habit

PIECES = {
    10: b"```",
    11: b"python",
    12: b"json",
    13: b"\n",
    14: b"{",
    15: b' [{"',
    16: b"word",
    17: b"```\n",
    18: b"<",
    19: b"```json",
}


@pytest.mark.parametrize(
    "piece, event",
    [(b"```", FENCES), (b"\n```\n", FENCES), (b"{", OPENS), (b" [", OPENS), (b"<", OPENS), (b"a{", NO_EVENT), (b"", 0)],
)
def test_what_an_event_is(piece, event):
    assert event_of(piece) == event


@pytest.mark.parametrize(
    "tokens, kinds",
    [
        ([16, 16], [PROSE, PROSE]),
        ([16, 10, 11, 13, 16], [PROSE, PROSE, 12, 12, 12]),  # the language of a block names it
        ([10, 11, 16, 10, 16], [PROSE, 12, 12, PROSE, PROSE]),  # a second fence ends it
        ([10, 11, 17, 10, 12, 16], [PROSE, 12, PROSE, PROSE, 13, 13]),
        ([10, 12, 14, 15, 16], [PROSE, 13, 13, 13, 13]),  # what opens within a block is no kind of its own
        ([14, 16, 15, 10, 11], [15, 15, 15, PROSE, 12]),  # without a fence what opens the answer does, up to one
        ([16, 14, 15, 18, 16], [PROSE] * 5),  # a bracket in prose begins nothing
        ([19, 13, 14, 10, 16], [PROSE, 14, 14, PROSE, PROSE]),  # a fence and its language in one token
        ([10, 10, 16], [PROSE, 11, 11]),  # a fence behind a fence is taken for its language
    ],
)
def test_the_kind_of_a_text_token_by_token(tokens, kinds):
    events = Events(lambda token: event_of(PIECES[token]))
    kind, found, turns = Kind(events), [], []
    for at in range(len(tokens)):
        turns.append(kind.turns(tokens[: at + 1], at))
        found.append(kind.value)
    assert found == kinds
    assert turns == [now != before for before, now in zip([PROSE, *kinds], kinds, strict=False)]
    at_once = Kind(events)
    assert at_once.turns(tokens, 0) == (kinds[-1] != PROSE) and at_once.value == kinds[-1]


def test_an_event_is_one_among_the_tokens_taken_in_last():
    """Also where it begins or names a block, and not a round later."""
    kind = Kind(Events(lambda token: event_of(PIECES[token])))
    text, found = [16, 10, 14, 16, 10, 16, 14, 16, 16], []
    for first, end in ((0, 1), (1, 2), (2, 3), (3, 4), (4, 6), (6, 8), (8, 9)):
        kind.turns(text[:end], first)
        found.append(kind.has_event)
    assert found == [False, True, True, False, True, True, False]


def test_what_stood_before_counts_for_nothing():
    kind = Kind(Events(lambda token: event_of(PIECES[token])))
    assert not kind.turns([10, 11, 16], 2) and kind.value == PROSE


def test_a_kind_has_shown_what_happened_in_it():
    habit = Habit()
    assert habit.of(PROSE) is habit and habit.of(7) is habit.of(7) is not habit
    habit.of(7).follow("mtp", [0.5, 0.25])
    habit.of(7).prove("mtp", 4)
    assert habit.of(7).worth == {"mtp": [0.5, 0.25]} and habit.of(7).reach_of("mtp") == 2
    assert habit.worth == {} and habit.reach == {} and habit.of(8).worth == {}


def test_of_too_many_kinds_the_one_that_rests_longest_is_forgotten():
    habit = Habit()
    kinds = {kind: habit.of(kind) for kind in range(1, MOST_KINDS + 1)}
    assert habit.of(1) is kinds[1]
    habit.of(MOST_KINDS + 1)
    assert habit.of(1) is kinds[1] and habit.of(3) is kinds[3]
    assert habit.of(2) is not kinds[2]


def test_a_kind_follows_its_first_drafts_at_once_and_later_ones_little():
    shown = Habit().of(3)
    found = []
    for number in range(1, 33):
        shown.follow("mtp", [1.0 if number <= 2 or number == 16 else 0.0, 0.5][: 1 + (number > 1)])
        found.append(round(shown.worth["mtp"][0], 4))
    assert found[:8] == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.0], "the drafter is hardly known in the first ones"
    assert [found[number - 1] for number in (16, 24, 32)] == [0.5, 0.3333, 0.25], "from the eighth on the mean"
    for _ in range(800):
        shown.follow("mtp", [0.25])
    before = shown.worth["mtp"][0]
    for _ in range(8):
        shown.follow("mtp", [1.25])
    assert before == pytest.approx(0.25, abs=1e-3) and shown.worth["mtp"][0] == pytest.approx(before + 0.1, abs=1e-3)
    assert shown.worth["mtp"][1] == 0.5
