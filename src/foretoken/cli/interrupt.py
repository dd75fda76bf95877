"""Ctrl-C during an answer: finish the pass, keep the text so far."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class Interrupt:
    """While entered, the first Ctrl-C sets `requested` once `is_writing`; before that, and the second time, it raises.

    A pass of the target takes milliseconds, so waiting for its end costs nothing and leaves every figure whole; a
    long prompt may take minutes and is given up at once.
    """

    def __init__(self) -> None:
        self.requested = False
        self.is_writing = False
        self._before: signal.Handlers | int | None = None

    def __enter__(self) -> Interrupt:
        self._before = signal.signal(signal.SIGINT, self._handle)  # type: ignore[assignment]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested or not self.is_writing:
            raise KeyboardInterrupt
        self.requested = True
