"""What drafts take by their length."""

import pytest

from foretoken.drafters.line import Line


@pytest.mark.parametrize("first", [0.3, 1.0, 3.0])
def test_of_one_length_half_counts_as_paid_by_every_draft(first):
    """Else long drafts would look dear, and nobody would ever find out that they are not."""
    line = Line()
    line.add(2, first)
    for _ in range(400):
        line.add(2, 1.0)
    assert line.fitted == pytest.approx((0.5, 0.25))
    assert line.at(4) == pytest.approx(1.5)


def test_what_a_token_takes_is_not_forgotten_where_drafts_are_equally_long_for_long():
    line = Line()
    for _ in range(20):
        line.add(2, 0.7)
        line.add(6, 1.1)
    assert line.fitted == pytest.approx((0.5, 0.1))
    for _ in range(1000):
        line.add(2, 0.7)
    assert line.fitted == pytest.approx((0.5, 0.1))


@pytest.mark.parametrize("by_token", [0.0, 0.1])
def test_a_quick_while_changes_nothing_that_lengths_have_told(by_token):
    line = Line()
    for _ in range(20):
        line.add(2, 0.8 + 2 * by_token)
        line.add(6, 0.8 + 6 * by_token)
    usual = 0.8 + 4 * by_token
    for cost in (usual, 0.15, usual):
        for _ in range(1000):
            line.add(4, cost)
    assert line.fitted == pytest.approx((0.8, by_token), abs=1e-3)


def test_in_another_unit_the_slope_is_another_as_well():
    line = Line()
    for _ in range(20):
        line.add(2, 0.7)
        line.add(6, 1.1)
    for _ in range(1000):
        line.add(2, 0.7)
    line.scale(10.0)
    assert line.fitted == pytest.approx((5.0, 1.0))


def test_a_token_never_takes_less_than_nothing_nor_more_than_the_draft():
    falling, steep = Line(), Line()
    for _ in range(20):
        falling.add(2, 1.0)
        falling.add(6, 0.8)
        steep.add(2, 0.1)
        steep.add(3, 0.9)
    assert falling.fitted[1] == 0.0
    assert steep.fitted[0] == pytest.approx(0.0)
