"""What the choice between sources learns of a model's guesses."""

import numpy as np
import pytest

from foretoken.drafters.choice import ALL_STEP, PRIOR, STEP, Averages, Track
from foretoken.drafters.protocol import Draft


def noted(tokens, asked, text):
    """Averages of one text and of all after a guess of sure tokens, and what the target wrote."""
    everyone = Averages()
    track = Track(everyone)
    track.note(3, Draft(tokens, [1.0] * len(tokens)), asked)
    track.observe([0, 0, 0, *text])
    return track, everyone


def test_where_a_guess_ended_early_nothing_is_expected_behind_it():
    """Two right tokens of four that were asked for: the third was not kept, because nobody guessed it.

    A depth that was not seen before begins with what the one above it has.
    """
    track, everyone = noted([7, 8], 4, [7, 8, 9])

    def learned(step):
        first = PRIOR + step * (1 - PRIOR)
        second = first + step * (1 - first)
        return [first, second, second * (1 - step)]

    assert everyone.by_depth == pytest.approx(learned(ALL_STEP))
    assert track.expected(3) == pytest.approx(sum(np.cumprod(learned(STEP))))


@pytest.mark.parametrize(("tokens", "asked", "text"), [([7, 8], 2, [7, 8, 9]), ([7, 8], 4, [7, 1, 9]), ([], 4, [7])])
def test_nothing_is_missed_where_a_guess_was_whole_or_wrong(tokens, asked, text):
    _, everyone = noted(tokens, asked, text)
    assert len(everyone.by_depth) == max(len(tokens), 1)
