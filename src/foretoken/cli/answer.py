"""Shows one answer while it is written, for `generate`, `chat` and `demo`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from foretoken.cli.interrupt import Interrupt

if TYPE_CHECKING:
    from foretoken.stream import Result, Stream


def write(stream: Stream, is_quiet: bool = False) -> Result:
    """Print the pieces of an answer as they come; after Ctrl-C the result is what came so far.

    is_quiet  print nothing, for --json
    returns   the result; its finish_reason is "interrupted" after Ctrl-C
    """
    shown_len = 0
    with Interrupt() as interrupt:
        try:
            for event in stream:
                interrupt.is_writing = True
                if not is_quiet:
                    shown_len += sys.stdout.write(event.text)
                    sys.stdout.flush()
                if interrupt.requested:
                    break
        except KeyboardInterrupt:
            pass
        result = stream.close()
    if not is_quiet:
        sys.stdout.write(result.text[shown_len:] + "\n")
        sys.stdout.flush()
    return result
