"""The text's own guesses against brute force on random texts, their bounded memory, and how they join a model's."""

import random
import subprocess
import sys
import weakref
from math import sqrt

import numpy as np
import pytest

from foretoken.drafters.protocol import Draft
from foretoken.drafters.suffix import STEP, SURE, UNSURE, WINDOW, SuffixDrafter, SuffixText
from foretoken.errors import ShapeError
from foretoken.ops.native import SuffixAutomaton


def new_automaton(text=()):
    automaton = SuffixAutomaton([*SURE, *UNSURE], STEP, WINDOW)
    automaton.observe(list(text))
    return automaton


class Text:
    """A sequence as far as this drafter looks at it."""

    def __init__(self, tokens):
        self.tokens, self.repeats = tokens, SuffixText()


def ends(text, part):
    """Where `part` occurs in `text`: the positions after it."""
    return [i + len(part) for i in range(len(text) - len(part) + 1) if text[i : i + len(part)] == part]


def longest_earlier_end(text):
    return next((n for n in range(len(text) - 1, 0, -1) if len(ends(text, text[-n:])) > 1), 0)


def random_texts(count, most):
    rng = random.Random(5)
    for _ in range(count):
        letters = rng.choice((1, 2, 3, 6))
        yield [rng.randrange(letters) for _ in range(rng.randrange(1, most))], rng


def draft(tokens, limit, head=(), chance=0.5):
    text = SuffixText()
    text.observe(tokens)
    return text.draft(limit, Draft(head, [chance] * len(head), "mtp"))


def test_the_longest_match_after_every_token():
    for text, _ in random_texts(250, 40):
        automaton = new_automaton()
        for i in range(1, len(text) + 1):
            automaton.observe(text[:i])
            assert automaton.place[1] == longest_earlier_end(text[:i]), text[:i]


def test_a_text_neither_guesses_its_end_nor_goes_on_behind_it():
    tokens, ended = [1, 2, 3, 4, 9, 5, 1, 2, 3], [1, 2, 3, 9, 5, 1, 2, 3]
    free, text = SuffixText(), SuffixText(stop_ids={9, 8})
    assert free.observe(tokens) == text.observe(tokens) > 0.5
    assert (free.draft(4).tokens, text.draft(4).tokens) == ([4, 9, 5, 1], [4])
    assert text.draft(4, Draft([4], [1.0], "mtp")).tokens == [4]
    free, text = SuffixText(), SuffixText(stop_ids={9, 8})
    assert free.observe(ended) > 0.5 and text.observe(ended) == 0.0 and not text.draft(4).tokens
    assert free.tells(ended, 0.5, 1 << 30) and not text.tells(ended, 0.5, 1 << 30)
    assert text.tells(ended, 2.0, 3), "that it repeats itself is an event all the same"


def test_what_the_text_tells_is_what_it_would_say_if_asked_every_time():
    told = 0
    for tokens, rng in random_texts(150, 60):
        chance, length = rng.choice([(0.55, 30), (0.3, 4), (2.0, 4), (2.0, 1), (0.9, 2)])
        text, other = SuffixText(), SuffixText()
        for end in range(1, len(tokens) + 1):
            expected = other.observe(tokens[:end]) >= chance or other.place[1] >= length
            if rng.random() < 0.8:
                assert text.tells(tokens[:end], chance, length) == expected
                told += expected
    assert told > 500


def test_a_text_that_hardly_repeats_itself_still_tells_where_it_does():
    """Where no pair of tokens comes again nothing is taken in, and nothing is missed."""
    fresh, once = SuffixText(), list(range(200, 0, -1))
    assert not any(fresh.tells(once[:end], 2.0, 2) for end in range(1, 200)) and fresh.size == 0
    assert fresh.tells([*once, 150, 149], 2.0, 2) and fresh.size == 202
    rng, told = random.Random(3), 0
    for _ in range(30):
        text, other, tokens = SuffixText(), SuffixText(), []
        length = rng.choice((1, 2, 3, 5))
        for _ in range(60):
            start = rng.randrange(max(len(tokens), 1))
            tokens += tokens[start : start + 6] if rng.random() < 0.1 else [rng.randrange(300)]
            other.observe(tokens)
            expected = other.place[1] >= length
            assert text.tells(tokens, 2.0, length) == expected
            told += expected
    assert told > 150


def test_the_guess_followed_most_often_and_last_among_equals():
    checked = 0
    for text, _ in random_texts(400, 14):  # so short that no end is left uncounted
        automaton = new_automaton(text)
        length = automaton.place[1]
        found = automaton.guess(automaton.place)
        assert automaton.observe(text) == (automaton.rates[found[1]] if found else 0.0)
        if not length:
            assert found is None
            continue
        followed = [(text[at], at) for at in ends(text, text[-length:]) if at < len(text)]
        counts = [token for token, _ in followed]
        best = max(followed, key=lambda pair: (counts.count(pair[0]), pair[1]))[0]
        assert found[0] == best, text
        checked += 1
    assert checked > 100 and SuffixAutomaton.COUNTED >= 14


def test_a_place_after_tokens_that_are_only_guessed():
    for text, rng in random_texts(200, 30):
        automaton = new_automaton(text)
        place, guessed = automaton.place, []
        for _ in range(6):
            guessed.append(rng.randrange(6))
            place = automaton.moved(place, guessed[-1])
            whole = text + guessed
            # The longest end of both together that occurs in the text.
            longest = next((n for n in range(len(whole), 0, -1) if ends(text, whole[-n:])), 0)
            assert place[1] <= longest
            assert not place[1] or ends(text, whole[-place[1] :])
        assert automaton.place[1] == longest_earlier_end(text)  # nothing of it was taken in


def test_a_copy_goes_on_and_a_period_goes_on_for_ever():
    line = list(range(100, 130))
    assert draft([*line, 1, *line[:20]], 6).tokens == line[20:26]
    assert draft([7, 8, 9] * 5, 9).tokens == [7, 8, 9] * 3


def test_nothing_is_guessed_from_nothing():
    found = draft([1, 2, 3], 4)
    assert not found.tokens and len(found.confidence) == 0


def test_chances_grow_with_the_match_and_fall_where_guesses_fail():
    line = list(range(100, 130))
    chances = draft([*line, 1, *line[:20]], 4).confidence
    assert min(chances) > 0.9 > draft([5, 6, 1, 5], 1).confidence[0] > 0
    always_wrong = [token for i in range(40) for token in (5, 10 + i)]
    assert draft([*always_wrong, 90, 91, 5, 6, 90], 1).confidence[0] > 0.3
    assert min(new_automaton(always_wrong).rates) < min(new_automaton().rates)


def test_a_model_draft_is_ended_by_the_text():
    line = list(range(100, 130))
    found = draft([*line, 1, 2], 8, head=[100, 101, 102], chance=0.9)
    assert found.own == 3 and draft([*line, 1, 2], 8).own is None
    assert found.tokens == line[:8] and found.source == "mtp+suffix"


def test_a_long_match_overrules_an_unsure_model_and_a_short_one_does_not():
    line = list(range(100, 130))
    long_match = draft([*line, 1, *line[:20]], 3, head=[5, 6, 7])
    assert long_match.tokens == line[20:23] and long_match.source == "mtp+suffix"
    assert long_match.own == 3  # what the model guessed, although none of it is left
    short_match = draft([5, 6, 1, 2, 5], 1, head=[9])
    assert short_match.tokens == [9] and short_match.source == "mtp"


def test_a_second_opinion_moves_the_odds_of_a_model():
    """Odds of 1 become 0.6 times the root of the text's where both agree, 0.6 over it where they do not."""
    line = list(range(100, 130))
    sure = [*line, 1, *line[:20]]
    text = draft(sure, 1).confidence[0]
    odds = 0.6 * sqrt(text / (1 - text))
    assert draft(sure, 1, head=[120]).confidence[0] == pytest.approx(odds / (1 + odds), rel=1e-5)
    unsure = [5, 6, 1, 5, 7, 2, 5]  # two tokens followed: below one in two
    text = draft(unsure, 1).confidence[0]
    assert text < 0.5
    odds = 0.6 / sqrt(text / (1 - text))
    found = draft(unsure, 1, head=[9])
    assert found.tokens == [9] and found.confidence[0] == pytest.approx(odds / (1 + odds), rel=1e-5)


def test_a_token_that_overrules_a_model_is_less_sure_than_one_that_nobody_disputes():
    line = list(range(100, 130))
    alone, against = draft([*line, 1, *line[:20]], 3), draft([*line, 1, *line[:20]], 3, head=[5], chance=0.8)
    assert against.tokens == alone.tokens
    text = alone.confidence[0] / (1 - alone.confidence[0])
    model = 2.5 * 4  # its odds count 2.5 times
    assert against.confidence[0] == pytest.approx(text / (1 + text + model), rel=1e-4)
    assert against.confidence[1:] == alone.confidence[1:]


def test_what_follows_such_a_token_ends_as_its_chance_says():
    """A draft ends where its survival falls below 0.2, be it the text's own or what a model leaves of it."""
    line = list(range(100, 130))
    for head in ([], [5]):
        found = draft([*line, 1, *line[:4]], 30, head=head, chance=0.55)
        survival = np.cumprod(found.confidence)
        assert len(found.tokens) < 26 and survival[-1] >= 0.2 > survival[-1] * found.confidence[-1], head


@pytest.mark.parametrize("window", [8, 50])
def test_memory_is_bounded(window):
    text = SuffixText(window)
    tokens = [i * i % 97 for i in range(400)]
    for end in range(1, len(tokens)):
        text.observe(tokens[:end])
        assert text.size <= 2 * window
    fresh = SuffixText(10**6)
    fresh.observe(tokens[:-1][-text.size :])
    assert text.place[1] == fresh.place[1]


BYTES = """
import random
from foretoken.drafters.suffix import SuffixText
rng = random.Random(1)
tokens = [rng.randrange(300) for _ in range(60000)]
def pages():
    return int(open("/proc/self/statm").read().split()[1])
text = SuffixText()
before = pages()
text.observe(tokens)
print((pages() - before) * 4096 / len(tokens))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads memory as Linux counts it")
def test_bytes_per_token():
    found = subprocess.run([sys.executable, "-c", BYTES], capture_output=True, text=True, check=True, timeout=300)
    assert 40 < float(found.stdout) < 400


def test_texts_are_taken_in_as_they_grow_and_anew_after_one_that_broke_off():
    tokens = [i % 7 for i in range(60)]
    text = SuffixText()
    for end in (10, 11, 30, 60):
        text.observe(tokens[:end])
    assert text.place == new_automaton(tokens).place
    with pytest.raises(RuntimeError, match="bad_cast"):
        text.observe([*tokens, 1, 2, None, 3])
    for more in ([1, 2], [1, 2, 4]):
        text.observe([*tokens, *more])
        assert text.place == new_automaton([*tokens, *more]).place
        assert text.size == len(tokens) + len(more)
    text.observe(tokens[:20])  # another text
    assert text.place == new_automaton(tokens[:20]).place and text.size == 20


@pytest.mark.parametrize("place", [(-1, 0), (3, 1), (0, -1), (0, 5), (1, 2**31 - 1)])
def test_a_place_of_another_text_is_refused(place):
    automaton = new_automaton([1, 2])
    with pytest.raises(ShapeError, match="none of this text"):
        automaton.guess(place)
    with pytest.raises(ShapeError, match="none of this text"):
        automaton.moved(place, 1)


def test_texts_do_not_see_each_other():
    secret = list(range(100, 120))
    drafter = SuffixDrafter()
    first, second = Text([*secret, 1, *secret[:5]]), Text([1, *secret[:5]])
    drafts = drafter.propose([first, second], [4, 4])
    assert drafts[0].tokens == secret[5:9] and not drafts[1].tokens
    kept = weakref.ref(first.repeats)
    del first
    assert not drafter.propose([second], [4])[0].tokens
    assert kept() is None  # what belongs to a text ends with it
