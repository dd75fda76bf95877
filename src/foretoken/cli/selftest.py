"""`foretoken selftest`: is the text of plain decoding kept on this machine?"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from foretoken.cli import options, terminal
from foretoken.errors import InputError

MAX_TOKENS = 10_000_000


def selftest(
    tokens: Annotated[int, typer.Option("--tokens", help="Compare at least so many tokens.")] = 2000,
    model: options.Model = None,
    drafter: options.Drafter = "auto",
    format: options.Format = "auto",
    drafter_format: options.DrafterFormat = "q8",
    json: options.Json = False,
) -> None:
    """Compare drafted with plain decoding over horizons, threads, chunks, temperatures and instruction sets."""
    if not 1 <= tokens <= MAX_TOKENS:
        raise InputError(f"tokens is {tokens}, expected 1 to {MAX_TOKENS}.")
    from foretoken import selftest as comparison

    loaded = terminal.load_model(model, drafter, format, drafter_format, threads=None)
    with terminal.progress("Comparing") as advance:
        report = comparison.run(loaded, tokens, advance)
    if json:
        terminal.print_json(report)
    else:
        _show(report)
    if report["different"]:
        raise typer.Exit(1)


def _show(report: dict[str, Any]) -> None:
    cases = report["cases"]
    print(f"compared {report['compared']} tokens in {len(cases)} cases: {report['different']} different")
    for case in cases:
        if case["different"]:
            print("  differs: " + ", ".join(f"{name} {value}" for name, value in case.items()))
