import pytest

from foretoken.errors import InputError
from foretoken.horizon import MAX_HORIZON, NAMED, parse_horizon


@pytest.mark.parametrize(("value", "parsed"), [(0, 0), (16, 16), ("0", 0), ("16", 16), *((n, n) for n in NAMED)])
def test_good_values(value, parsed):
    assert parse_horizon(value) == parsed


@pytest.mark.parametrize("value", [17, -1, "17", "-1", "", "four", "²", True, 2.5, None, "00017"])
def test_bad_values(value):
    with pytest.raises(InputError, match=f"0 to {MAX_HORIZON}"):
        parse_horizon(value)
