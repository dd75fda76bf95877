"""Tokens behind which a text often becomes easier to guess: reasons to look at a draft soon."""

from __future__ import annotations

STARTS = (b"{", b"[", b'{"', b'["', b"[{", b'[{"', b"<")
FENCE = b"```"


def begins_pattern(piece: bytes) -> bool:
    """Whether a token's text opens a block of code, an object or list of JSON, or a tag."""
    return FENCE in piece or piece.strip() in STARTS
