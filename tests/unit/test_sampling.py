import pytest

from foretoken.errors import InputError
from foretoken.sampling import Sampling


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"temperature": "warm"},
        {"temperature": True},
        {"top_p": 0.0},
        {"top_p": 1.01},
        {"min_p": -0.1},
        {"min_p": 2},
        {"top_k": -1},
        {"top_k": 2.0},
        {"seed": -1},
        {"seed": 1 << 64},
    ],
)
def test_bad_values_raise(values):
    with pytest.raises(InputError, match=next(iter(values))):
        Sampling(**values)


def test_greedy_below_the_limit_of_temperature():
    assert Sampling(temperature=9e-6).is_greedy
    assert not Sampling(temperature=1e-5).is_greedy
