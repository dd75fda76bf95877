"""`foretoken bench`: measures on this machine. Sub-commands only open what is measured, and show what came out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foretoken.cli import options, terminal
from foretoken.errors import InputError

if TYPE_CHECKING:
    from foretoken.bench.subject import Subject

SHAPES = "e2b|e4b|12b|26b-a4b|31b|tiny"
MAX_REPEATS = 10_000
MIN_WIDTH = 100  # of tables, where the terminal is narrower or unknown

Shape = Annotated[
    str | None,
    typer.Option("--shape", metavar=SHAPES, help="Random weights in the shape of this model, in place of a folder."),
]
Format = Annotated[
    str | None,
    typer.Option("--format", metavar=options.FORMATS, help="Weights of the target. Default: auto; of a shape q4."),
]
Context = Annotated[int, typer.Option("--context", help="Tokens that stand before the passes.")]
Repeats = Annotated[int, typer.Option("--repeats", help="Runs of every case, taken in turn; medians are shown.")]
Plot = Annotated[Path | None, typer.Option("--plot", metavar="PNG", help="Draw a picture, too; needs matplotlib.")]

app = typer.Typer(
    help="Measure on this machine.",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("verify-cost")
def verify_cost(
    model: options.Model = None,
    shape: Shape = None,
    format: Format = None,
    threads: options.Threads = None,
    context: Context = 512,
    rows: Annotated[str, typer.Option("--rows", help="Rows of the passes, 1 among them.")] = "1,2,4,8,16,17",
    repeats: Repeats = 9,
    plot: Plot = None,
    json: options.Json = False,
) -> None:
    """What a pass over several rows costs, over one row and over the roofline of this machine."""
    counts = [_whole(text, "rows", 1, 17) for text in rows.split(",")]
    _check(repeats, plot)
    from foretoken.bench import plot as picture
    from foretoken.bench import verify_cost as bench

    bench.check_rows(counts)
    subject = _open(model, shape, "none", format, "q8", threads)
    with terminal.progress("Measuring") as advance:
        report = bench.measure(subject, context, counts, repeats, advance)
    names = ("ms", "spread", "relative", "roofline_ratio")
    table = [[count, *(report[name][count] for name in names)] for count in report["ms"]]
    _show(_title(report), ["rows", "ms", "spread", "over one row", "over roofline"], table)
    terminal.say(
        f"read ceiling {report['read_ceiling_gb_per_s']:.1f} GB/s, "
        f"peak {report['int_peak_gmac_per_s']:.0f} GMAC/s ({report['int_peak_source']})"
    )
    if plot is not None:
        series = {"over one row": report["relative"], "over the roofline": report["roofline_ratio"]}
        picture.lines(plot, _title(report), "rows of the pass", "times", series)
    _print(report, json)


@app.command("draft")
def draft(
    model: options.Model = None,
    shape: Shape = None,
    drafter: options.Drafter = "auto",
    format: Format = None,
    drafter_format: options.DrafterFormat = "q8",
    threads: options.Threads = None,
    context: Context = 512,
    chain: Annotated[int, typer.Option("--chain", help="Draft tokens in a row.")] = 4,
    repeats: Repeats = 15,
    plot: Plot = None,
    json: options.Json = False,
) -> None:
    """What a draft token costs, over a plain pass of the target."""
    _whole(chain, "chain", 1, 16)
    _check(repeats, plot)
    from foretoken.bench import draft_cost as bench
    from foretoken.bench import plot as picture

    subject = _open(model, shape, drafter, format, drafter_format, threads)
    with terminal.progress("Measuring") as advance:
        report = bench.measure(subject, context, chain, repeats, advance)
    ms, spread = {"draft": report["draft_ms"], "plain": report["plain_ms"]}, report["spread"]
    table = [["a draft token", ms["draft"], spread["draft"]], ["a plain pass", ms["plain"], spread["plain"]]]
    _show(_title(report), ["", "ms", "spread"], table)
    terminal.say(f"a draft token costs {report['share']:.1%} of a plain pass")
    if plot is not None:
        picture.bars(plot, _title(report), "ms", {"a draft token": {"ms": ms["draft"]}, "a pass": {"ms": ms["plain"]}})
    _print(report, json)


@app.command("prompt")
def prompt(
    model: options.Model = None,
    shape: Shape = None,
    format: Format = None,
    threads: options.Threads = None,
    tokens: Annotated[int, typer.Option("--tokens", help="Tokens of the prompt.")] = 512,
    repeats: Repeats = 5,
    plot: Plot = None,
    json: options.Json = False,
) -> None:
    """How fast a prompt is read, as a share of what the kernels reach at best."""
    _whole(tokens, "tokens", 1, 1 << 20)
    _check(repeats, plot)
    from foretoken.bench import plot as picture
    from foretoken.bench import prompt_speed as bench

    subject = _open(model, shape, "none", format, "q8", threads)
    with terminal.progress("Measuring") as advance:
        report = bench.measure(subject, tokens, repeats, advance)
    shares = {"the whole": report["peak_share"], "products alone": report["linear_peak_share"]}
    table = [
        ["the whole", report["prompt_ms"], report["spread"]["prompt"], shares["the whole"]],
        ["products alone", report["linears_ms"], report["spread"]["linears"], shares["products alone"]],
    ]
    _show(f"{_title(report)}, {tokens} tokens", ["", "ms", "spread", "of the peak"], table)
    peak = f"peak {report['int_peak_gmac_per_s']:.0f} GMAC/s ({report['int_peak_source']})"
    terminal.say(f"{report['tok_per_s']:.1f} tok/s; {peak}")
    if plot is not None:
        picture.bars(plot, _title(report), "of the peak", {name: {"share": share} for name, share in shares.items()})
    _print(report, json)


@app.command("decode")
def decode(
    model: options.Model = None,
    drafter: options.Drafter = "auto",
    format: options.Format = "auto",
    drafter_format: options.DrafterFormat = "q8",
    threads: options.Threads = None,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", metavar="PATH", help="JSON lines, or a folder of such files.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Prompts of each domain. Default: all.")] = None,
    horizon: Annotated[str, typer.Option("--horizon", help="Horizons to compare, 0 among them.")] = "0,1,2,4,8,auto",
    max_tokens: options.MaxTokens = 200,
    repeats: Repeats = 3,
    plot: Plot = None,
    json: options.Json = False,
) -> None:
    """Drafted against plain decoding by domain: same text or not, how fast, which horizon is best."""
    _whole(max_tokens, "max-tokens", 2, 1 << 20)
    _check(repeats, plot)
    from foretoken.bench import decode_speed as bench
    from foretoken.bench import plot as picture
    from foretoken.bench import prompts as sets

    horizons = horizon.split(",")
    bench.check_horizons(horizons)
    if limit is not None:
        _whole(limit, "limit", 1, 1 << 20)
    found = sets.load(prompts if prompts is not None else sets.default_set(model is None), limit)
    loaded = terminal.load_model(model, drafter, format, drafter_format, threads)
    with terminal.progress("Measuring") as advance:
        report = bench.measure(loaded, found, horizons, max_tokens, repeats, advance)
    drafted = [own for own in horizons if own != bench.PLAIN]
    table = [
        [name, d["plain_tok_per_s"], *(d["speedup"][own] for own in drafted), d["best_horizon"], d["tokens_per_round"]]
        for name, d in report["domains"].items()
    ]
    for row, d in zip(table, report["domains"].values(), strict=True):
        row += [f"{d['loops']}/{d['answers']}", "yes" if d["same_text"] else "NO"]
    means = report["mean_by_horizon"]
    table.append(["mean", None, *(means[own] for own in drafted), report["fixed_horizon"], None, "", ""])
    names = ["", "plain tok/s", *(f"×{own}" for own in drafted), "best", "tok/round", "loops", "same"]
    _show(f"{report['model']} {report['format']}: how many times as fast as plain, by horizon", names, table)
    if plot is not None:
        groups = {name: d["speedup"] for name, d in report["domains"].items()}
        picture.bars(plot, f"{report['model']}: drafted over plain", "times plain decoding", groups)
    _print(report, json)
    if not all(d["same_text"] for d in report["domains"].values()):
        raise typer.Exit(1)


def _whole(value: int | str, name: str, low: int, high: int) -> int:
    """A number out of a range, from an option; raises InputError."""
    text = str(value).strip()
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else -1
    if not low <= number <= high:
        raise InputError(f"{name} is {text[:40]!r}, expected a whole number from {low} to {high}.")
    return number


def _check(repeats: int, plot: Path | None) -> None:
    """Refuse what is wrong before anything is loaded."""
    _whole(repeats, "repeats", 1, MAX_REPEATS)
    if plot is not None:
        from foretoken.bench import plot as picture

        picture.check(plot)


def _open(
    model: str | None, shape: str | None, drafter: str, format: str | None, drafter_format: str, threads: int | None
) -> Subject:
    """The model or the shape that is measured."""
    from foretoken.bench import shapes, subject
    from foretoken.ops import native

    if shape is None:
        return subject.loaded(terminal.load_model(model, drafter, format or "auto", drafter_format, threads))
    if model is not None:
        raise InputError("--model and --shape exclude each other. Give one of them.")
    if drafter not in ("auto", "none"):
        raise InputError("a shape brings its own drafter. Give --drafter auto or none.")
    if threads is not None:
        native.set_threads(_whole(threads, "threads", 1, 256))
    with terminal.progress("Building") as advance:
        return shapes.build(shape, format or "q4", None if drafter == "none" else drafter_format, progress=advance)


def _title(report: dict[str, Any]) -> str:
    where = f", after {report['context']} tokens" if "context" in report else ""
    return f"{report['shape']} {report['format']}, {report['isa']}, {report['threads']} threads{where}"


def _show(title: str, names: list[str], rows: list[list[Any]]) -> None:
    """A table on stderr; shares are told from other numbers by their column's name."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    terminal.say(title)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for place, name in enumerate(names):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(_text(name, value) for name, value in zip(names, row, strict=True)))
    Console(stderr=True, width=max(Console(stderr=True).width, MIN_WIDTH)).print(table)


def _text(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if not isinstance(value, float):
        return str(value)
    if name in ("spread", "of the peak"):
        return f"{value:.1%}"
    return f"{value:.{1 if value >= 100 else 2 if value >= 0.1 else 4}f}"


def _print(report: dict[str, Any], is_json: bool) -> None:
    if is_json:
        terminal.print_json(report)
