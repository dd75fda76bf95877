"""What the scripts of bench/ share: errors in one line with an exit code, Ctrl-C, and progress that a file can hold."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from foretoken.errors import ForetokenError

EVERY_S = 10.0  # between lines of progress
Say = Callable[[str], None]


def run(work: Callable[[], int | None], say: Say) -> int:
    """Do it; the exit code: what it returns (None is 0), 2 for bad input, which `say` is told, 130 after Ctrl-C."""
    try:
        return work() or 0
    except ForetokenError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        return 130


def progress(label: str, say: Say, clock: Callable[[], float] = monotonic) -> Callable[[int, int], None]:
    """A function for (done, in all) that says, every ten seconds, what share is done."""
    last = clock()

    def advance(done: int, whole: int) -> None:
        nonlocal last
        if clock() - last >= EVERY_S:
            last = clock()
            say(f"{label}: {done / max(whole, 1):.0%} done")

    return advance
