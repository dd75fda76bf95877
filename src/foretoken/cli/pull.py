"""`foretoken pull`: fetch a model of the hub with its drafter, or what is newer there."""

from __future__ import annotations

from typing import Annotated

import typer

from foretoken.cli import options, terminal
from foretoken.errors import InputError

DRAFTERS = ("auto", "none")


def pull(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="ORG/NAME, with @REVISION or :FILE.gguf behind it if you like.")
    ],
    drafter: Annotated[
        str, typer.Option("--drafter", metavar="auto|none", help="auto: the model's assistant comes with it.")
    ] = "auto",
    json: options.Json = False,
) -> None:
    """Fetch a model from the hub, with the drafter made for it; then --model NAME needs no network."""
    from foretoken import places

    if drafter not in DRAFTERS:
        raise InputError(
            f"drafter is {drafter!r}, expected {' or '.join(DRAFTERS)}; another one has a pull of its own."
        )
    target, own = places.pull(name, drafter == "auto", terminal.say)
    if json:
        state = {"name": own.name, "path": own.path and str(own.path), "reason": own.reason}
        terminal.print_json({"model": target.name, "path": str(target.path), "drafter": state})
        return
    print(f"model    {target.name}\n         {target.path}")
    print(f"drafter  {own.name} ({own.reason})" + (f"\n         {own.path}" if own.path else ""))
