"""Foretoken: Gemma 4 several tokens a step, with exactly the text of plain decoding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from foretoken.errors import ForetokenError

if TYPE_CHECKING:
    from foretoken.api import Model, load
    from foretoken.request import Options
    from foretoken.scheduler import Scheduler
    from foretoken.stats import Stats
    from foretoken.stream import Answer, Event, Logprob, Result, Stream
    from foretoken.turn import Part

__all__ = [
    "Answer",
    "Event",
    "ForetokenError",
    "Logprob",
    "Model",
    "Options",
    "Part",
    "Result",
    "Scheduler",
    "Stats",
    "Stream",
    "load",
]


def __getattr__(name: str) -> Any:
    """The rest is imported when first used, so that `foretoken --help` is quick and errors reach its handler."""
    if name == "__version__":
        from importlib.metadata import version

        return version("foretoken-mtp")
    if name in __all__:
        from foretoken import api, request, stream

        return {**vars(request), **vars(stream), **vars(api)}[name]
    raise AttributeError(f"module 'foretoken' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
