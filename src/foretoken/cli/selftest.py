"""`foretoken selftest`: is the text of plain decoding kept on this machine?"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foretoken.cli import options, terminal
from foretoken.errors import InputError

if TYPE_CHECKING:
    from foretoken.selftest import Subject

MAX_TOKENS = 10_000_000


def selftest(
    tokens: Annotated[int, options.whole("--tokens", help="Compare at least so many tokens.")] = 4000,
    model: options.Model = None,
    drafter: options.Drafter = "auto",
    format: options.Format = "auto",
    drafter_format: options.DrafterFormat = "q8",
    horizon: Annotated[
        str | None,
        typer.Option(
            "--horizon",
            metavar=options.HORIZONS,
            help="This one alone. Default: all, and drafts rejected at every index.",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Compare drafted with plain decoding: horizons, neighbours, reused prompts, threads, chunks, instruction sets.

    Without --model and --format the small pair is tested in every format, else the model in the one format that was
    asked for. Tiny random models with experts, of the unified kind, and of Gemma 3 follow.
    """
    if not 1 <= tokens <= MAX_TOKENS:
        raise InputError(f"tokens is {tokens}, expected 1 to {MAX_TOKENS}.")
    from foretoken import selftest as comparison
    from foretoken.horizon import parse_horizon

    horizons = comparison.HORIZONS if horizon is None else (parse_horizon(horizon),)
    subjects = _subjects(model, drafter, format, drafter_format)
    with terminal.progress("Comparing") as advance:
        report = comparison.run(subjects, tokens, advance, horizons)
    if json:
        terminal.print_json(report)
    else:
        _show(report)
    if report["different"] or report["errors"]:
        raise typer.Exit(1)


def _subjects(model: str | None, drafter: str, format: str, drafter_format: str) -> list[Subject]:
    """What is tested beside the tiny models; the small pair is loaded a format at a time."""
    from foretoken import api
    from foretoken.selftest import Subject

    if model is not None or format != "auto":
        loaded = terminal.load_model(model, drafter, format, drafter_format, threads=None)
        return [Subject(loaded.name, loaded.info()["format"], lambda: loaded)]
    say_once = cache(terminal.say)
    load = partial(api.load, drafter=drafter, drafter_format=drafter_format, warn=say_once)
    formats = [name for name in reversed(api.FORMATS) if name != "auto"]
    return [Subject("embedded", name, partial(load, format=name)) for name in formats]


def _show(report: dict[str, Any]) -> None:
    cases = report["cases"]
    print(f"compared {report['compared']} tokens in {len(cases)} cases: {report['different']} different")
    for case in cases:
        if case["different"] or case["error"]:  # an error is a drafter's, or what made the answer fail
            print("  differs: " + ", ".join(f"{name} {value}" for name, value in case.items()))
