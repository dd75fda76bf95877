"""What the scripts of bench/ share: options, errors in one line with an exit code, Ctrl-C, progress a file can hold."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from foretoken.errors import ForetokenError

EVERY_S = 10.0  # between lines of progress
Say = Callable[[str], None]


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Names the default of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Of a script with that docstring; its help shows the first line and every default."""
    return argparse.ArgumentParser(description=(doc or "").split("\n")[0], formatter_class=_Defaults)


def answers_parser(doc: str | None) -> argparse.ArgumentParser:
    """Of a script that times answers of a model with its drafter."""
    made = parser(doc)
    made.add_argument("--model")
    made.add_argument("--drafter", default="auto")
    made.add_argument("--format", default="auto")
    made.add_argument("--prompts", type=Path)
    made.add_argument("--limit", type=count, default=2)
    made.add_argument("--max-tokens", type=count, default=100)
    made.add_argument("--repeats", type=count, default=5)
    made.add_argument("--json", action="store_true")
    return made


def count(text: str) -> int:
    """The type of an option that counts something: 1 or more."""
    if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no whole number of at least 1")
    return int(text)


def run(work: Callable[[], int | None], say: Say) -> int:
    """Do it, and give the exit code.

    What `work` returns (None is 0); 2 for bad input, which `say` is told; 130 after Ctrl-C; 1 if nobody reads stdout.
    """
    try:
        code = work() or 0
        sys.stdout.flush()
        return code
    except ForetokenError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still buffered
        return 1


def progress(label: str, say: Say, clock: Callable[[], float] = monotonic) -> Callable[[int, int], None]:
    """A function for (done, in all) that says, every ten seconds, what share is done."""
    last = clock()

    def advance(done: int, whole: int) -> None:
        nonlocal last
        if clock() - last >= EVERY_S:
            last = clock()
            say(f"{label}: {done / max(whole, 1):.0%} done")

    return advance
