"""`foretoken tune`: finds the fastest settings on the user's own prompts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foretoken.cli import options, terminal
from foretoken.errors import InputError

if TYPE_CHECKING:
    from foretoken.api import Model

CALIBRATION_MIN_TOKENS = 50  # fewer say nothing


def tune(
    model: options.Model = None,
    drafter: options.Drafter = "auto",
    formats: Annotated[str, typer.Option("--formats", help="Formats to compare, with commas.")] = "auto",
    drafter_format: options.DrafterFormat = "q8",
    clusters: Annotated[
        str | None, typer.Option("--clusters", help="Numbers for --draft-clusters to compare, with commas.")
    ] = None,
    threads: options.Threads = None,
    prompts: options.Prompts = None,
    limit: Annotated[int, typer.Option("--limit", help="Prompts of each domain.")] = 4,
    horizon: Annotated[str, typer.Option("--horizon", help="Horizons to compare, beside 0 and auto.")] = "1,2,3,4,6,8",
    max_tokens: options.MaxTokens = 120,
    repeats: Annotated[int, typer.Option("--repeats", help="Answers at every horizon, taken in turn.")] = 1,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="PNG", help="Draw a picture; needs matplotlib.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Find what is fastest on your prompts: horizon, clusters, format; and see what auto reaches there."""
    from foretoken.bench import plot as pictures
    from foretoken.bench import prompts as sets
    from foretoken.bench import tune as bench

    for name, value, least in (("limit", limit, 1), ("max-tokens", max_tokens, 2), ("repeats", repeats, 1)):
        if not least <= value <= 1 << 20:
            raise InputError(f"{name} is {value}, expected {least} to {1 << 20}.")
    horizons = bench.check_horizons(horizon.split(","))
    if plot is not None:
        pictures.check(plot)
    found = sets.load(prompts if prompts is not None else sets.default_set(model is None), limit)
    load = partial(_loaded, model, drafter, drafter_format, threads)
    ways = [
        ({"draft_clusters": count}, partial(load, format, count))
        for format in _formats(formats)
        for count in _counts(clusters)
    ]
    with terminal.progress("Measuring") as advance:
        report = bench.measure(ways, found, horizons, max_tokens, repeats, advance)
    _show(report, horizons)
    for sentence in bench.advice(report):
        terminal.say(sentence)
    if json:
        terminal.print_json(report)
    if plot is not None:
        from foretoken.bench import tune_plot

        tune_plot.draw(plot, report)
    if not all(setting["same_text"] for setting in report["settings"]):
        raise typer.Exit(1)


def _loaded(
    model: str | None, drafter: str, drafter_format: str, threads: int | None, format: str, clusters: int | None
) -> Model:
    """As `terminal.load_model`; raises InputError for clusters that no drafter has."""
    loaded = terminal.load_model(model, drafter, format, drafter_format, threads, draft_clusters=clusters)
    if clusters is not None and not loaded.tuned.has_clusters:
        raise InputError(f"clusters {clusters}: no drafter here has a head with clusters. Leave --clusters out.")
    return loaded


def _formats(formats: str) -> list[str]:
    """Each once, the largest first: one that does not fit in memory is refused before anything is measured."""
    from foretoken.api import FORMATS

    asked = formats.split(",")
    if unknown := [format for format in asked if format not in FORMATS]:
        raise InputError(f"formats are {formats[:40]!r}, but {unknown[0][:20]!r} is none of {', '.join(FORMATS)}.")
    return sorted(set(asked), key=FORMATS.index)


def _counts(clusters: str | None) -> Sequence[int | None]:
    """Each once, the most first: more than a drafter has are refused before anything is measured."""
    if clusters is None:
        return [None]
    parts = clusters.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) < 9 and int(part) for part in parts):
        raise InputError(f"clusters is {clusters[:40]!r}, expected whole numbers from 1 with commas between them.")
    return sorted({int(part) for part in parts}, reverse=True)


def _show(report: dict[str, Any], horizons: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(stderr=True, width=max(Console(stderr=True).width, 100))
    for setting in report["settings"]:
        clusters = "" if setting["draft_clusters"] is None else f", {setting['draft_clusters']} clusters"
        table = Table(title=Text(f"{report['model']} {setting['format']}{clusters}", "table.title"))
        for name in ("horizon", "tok/s", "× plain", "rejected", "tok/round"):
            table.add_column(name, justify="right")
        for h in horizons:
            own = setting["by_horizon"][h]
            rejected = own["rejection_rate"]
            table.add_row(
                h,
                _number(own["tok_per_s"], 1),
                _number(own["speedup"], 2) + "?" * (h in setting["noise"]),
                "–" if rejected is None else f"{rejected:.0%}",
                _number(own["tokens_per_round"], 2),
            )
        console.print(table)
        if setting["noise"]:
            terminal.say("? is noise: no speed-up can be larger than the tokens of a round. Give --repeats 3 or more.")
        error, count = setting["calibration_error"], setting["calibration_tokens"]
        if error is not None and count >= CALIBRATION_MIN_TOKENS:
            least = setting["calibration_error_by_chance"]
            terminal.say(
                f"expected calibration error on held-out answers: {error:.3f} ({count} draft tokens; "
                f"where every chance is true {least:.3f} is usual)"
            )
        else:
            terminal.say(f"auto gave rows to {count} draft tokens of held-out answers: too few to judge its chances by")


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
