"""Tokens behind which a text often becomes easier to guess: reasons to look at a draft soon."""

from __future__ import annotations

from collections.abc import Callable

STARTS = (b"{", b"[", b'{"', b'["', b"[{", b'[{"', b"<")
FENCE = b"```"
MOST_KEPT = 16384  # tokens that are remembered


def begins_pattern(piece: bytes) -> bool:
    """Whether a token's text opens a block of code, an object or list of JSON, or a tag."""
    return FENCE in piece or piece.strip() in STARTS


class Events(dict[int, bool]):
    """Whether a token is one of them; it is asked once and then looked up, for that is done in most rounds.

    is_event  token -> whether the text may become easier behind it
    """

    def __init__(self, is_event: Callable[[int], bool]) -> None:
        super().__init__()
        self._is_event = is_event

    def __missing__(self, token: int) -> bool:
        if len(self) >= MOST_KEPT:
            self.clear()
        found = self[token] = self._is_event(token)
        return found


NO_EVENTS = Events(lambda token: False)
