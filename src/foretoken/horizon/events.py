"""Tokens behind which a text often becomes easier to guess, and the kinds of text that they begin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

STARTS = (b"{", b"[", b'{"', b'["', b"[{", b'[{"', b"<")
FENCE = b"```"
NO_EVENT: Final = 0
OPENS: Final = 1
FENCES: Final = 2
MOST_KEPT: Final = 16384  # tokens that are remembered
PROSE: Final = 0


def event_of(piece: bytes) -> int:
    """Whether a token's text opens or closes a block of code, opens an object or list of JSON or a tag, or nothing."""
    if FENCE in piece:
        return FENCES
    return OPENS if piece.strip() in STARTS else NO_EVENT


class Events(dict[int, int]):
    """Which event a token is; it is asked once and then looked up, for that is done in most rounds.

    event_of  token -> NO_EVENT, OPENS or FENCES
    """

    def __init__(self, event_of: Callable[[int], int]) -> None:
        super().__init__()
        self._event_of = event_of

    def __missing__(self, token: int) -> int:
        if len(self) >= MOST_KEPT:
            self.clear()
        found = self[token] = self._event_of(token)
        return found


NO_EVENTS = Events(lambda token: NO_EVENT)


class Kind:
    """The kind of text that is being written: PROSE, or what names the block that was begun.

    That is the token behind a fence, with which its language begins, or where an answer starts with an object, a list
    or a tag, the token that opens it: any number that is the same for the same token. A fence ends a block; in prose a
    bracket begins none. A prompt that ends within a fence is not seen: then blocks and prose change their places.

    has_event  an event is among the tokens that were taken in last
    """

    def __init__(self, events: Events) -> None:
        self.value = PROSE
        self.has_event = False
        self._events = events
        self._is_first = True
        self._is_fenced = self._is_begun = False  # within a fence; right behind one

    def turns(self, tokens: Sequence[int], first: int) -> bool:
        """Take in the answer's tokens from one on: whether the kind is another now."""
        before, self.has_event = self.value, False
        for at in range(first, len(tokens)):
            token = tokens[at]
            event = self._events[token]
            if event:
                self.has_event = True
            if self._is_begun:
                self.value, self._is_begun = token + 1, False
                continue
            if event == FENCES:
                self.value = PROSE
                self._is_fenced = self._is_begun = not self._is_fenced
            elif event == OPENS and self._is_first:
                self.value = token + 1
            self._is_first = False
        return self.value != before
