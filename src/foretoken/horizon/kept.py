"""What stands in a file of ours, checked as if a stranger wrote it; anything else raises InputError."""

from __future__ import annotations

from typing import Any, Final

from foretoken.errors import InputError

MAX_SOURCES: Final = 64  # of drafts


def items(value: Any, most: int) -> list[tuple[str, Any]]:
    """The entries of a table."""
    if not isinstance(value, dict) or len(value) > most:
        raise InputError(f"expected a table of at most {most} entries.")
    return list(value.items())


def number(value: Any, low: float, high: float) -> float:
    """A number in these bounds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise InputError(f"expected a number from {low:g} to {high:g}.")
    return float(value)


def whole(value: Any, low: int, high: int) -> int:
    """A whole number in these bounds, or its digits, as keys of a table are."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 8:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"expected a whole number from {low} to {high}.")
    return value


def numbers(value: Any, low: float, high: float, most: int) -> list[float]:
    """A list of at most so many numbers in these bounds."""
    if not isinstance(value, list) or len(value) > most:
        raise InputError(f"expected a list of at most {most} numbers.")
    return [number(one, low, high) for one in value]
