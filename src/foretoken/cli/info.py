"""`foretoken info`: what a model is, how it is packed, and which kernels run it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from foretoken.cli import options, terminal


def info(
    model: Annotated[
        str | None, typer.Argument(help="Model folder, GGUF file or hub name. Default: the small pair.")
    ] = None,
    drafter: options.Drafter = "auto",
    format: options.Format = "auto",
    drafter_format: options.DrafterFormat = "q8",
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Show what a model folder holds."""
    loaded = terminal.load_model(model, drafter, format, drafter_format, threads)
    fields = loaded.info()
    if json:
        terminal.print_json(fields)
        return
    for name, value in fields.items():
        print(f"{name.replace('_', ' '):<14}{_show(value)}")


def _show(value: Any) -> str:
    if isinstance(value, dict):  # the drafter: name, state, reason
        return f"{value['name']}, {value['state']} ({value['reason']})"
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
