"""Shows one answer while it is written, for `generate`, `chat` and `demo`.

Answers and calls of tools go to stdout, thoughts to stderr, dimmed and under a heading: a pipe gets the answer alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from foretoken.cli.interrupt import Interrupt

if TYPE_CHECKING:
    from foretoken.stream import Result, Stream
    from foretoken.turn import Part

THOUGHT = "thought"


def write(stream: Stream, is_quiet: bool = False) -> Result:
    """Print the pieces of an answer as they come; after Ctrl-C the result is what came so far.

    is_quiet  print nothing, for --json
    returns   the result; its finish_reason is "interrupted" after Ctrl-C
    """
    screen = _Screen()
    with Interrupt() as interrupt:
        try:
            for event in stream:
                interrupt.is_writing = True
                if not is_quiet:
                    screen.show(event.parts)
                if interrupt.requested:
                    break
        except KeyboardInterrupt:
            pass
        result = stream.close()
    if not is_quiet:
        screen.show(_after(result.parts, screen.shown_len))
        screen.end()
    return result


def _after(parts: Iterable[Part], shown_len: int) -> Iterator[Part]:
    """What of the whole answer is not among its first `shown_len` characters."""
    for part in parts:
        if shown_len < len(part.text):
            yield type(part)(part.kind, part.text[shown_len:])
        shown_len = max(0, shown_len - len(part.text))


class _Screen:
    """Where an answer stands on the terminal."""

    def __init__(self) -> None:
        self.shown_len = 0  # characters of parts taken in
        self._console: Any = None
        self._is_thinking = False

    def show(self, parts: Iterable[Part]) -> None:
        for part in parts:
            self.shown_len += len(part.text)
            if part.kind == THOUGHT:
                self._think(part.text)
            else:
                self._stop_thinking()
                sys.stdout.write(part.text)
        sys.stdout.flush()

    def end(self) -> None:
        self._stop_thinking()
        sys.stdout.write("\n")
        sys.stdout.flush()

    def _think(self, text: str) -> None:
        if not self._is_thinking:
            text = text.lstrip()
            if not text:  # Gemma 4 writes an empty thought where it has none
                return
            self._is_thinking = True
            self._dim("── thought ──\n")
        self._dim(text)

    def _stop_thinking(self) -> None:
        if self._is_thinking:
            self._dim("\n── answer ──\n")
            self._is_thinking = False

    def _dim(self, text: str) -> None:
        if self._console is None:
            from rich.console import Console  # here, not above: most answers have no thought

            self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        sys.stdout.flush()
        self._console.print(text, style="dim", end="", markup=False, emoji=False)
