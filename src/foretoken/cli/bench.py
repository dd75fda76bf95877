"""`foretoken bench`: measures on this machine. Sub-commands only open what is measured, and show what came out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foretoken.cli import options, terminal
from foretoken.errors import InputError

if TYPE_CHECKING:
    from foretoken.bench.subject import Subject

MAX_REPEATS = 10_000
MIN_WIDTH = 100  # of tables, where the terminal is narrower or unknown

Shape = Annotated[
    str | None,
    typer.Option(
        "--shape",
        metavar="NAME",
        help="Random weights in the shape of e2b, e4b, 12b, 26b-a4b, 31b or tiny, in place of a folder.",
    ),
]
Format = Annotated[
    str | None,
    typer.Option("--format", metavar=options.FORMATS, help="Weights of the target. Default: auto; of a shape q4."),
]
Context = Annotated[int, typer.Option("--context", help="Tokens that stand before the passes.")]
Repeats = Annotated[int, typer.Option("--repeats", help="Runs of every case, taken in turn; medians are shown.")]
Save = Annotated[
    str | None,
    typer.Option(
        "--save",
        metavar="auto|PATH",
        help="Keep the report with date and processor, in a folder or a .json file; auto: bench/results of a checkout.",
    ),
]
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
    save: Save = None,
    json: options.Json = False,
) -> None:
    """What a pass over several rows costs, over one row and over the roofline of this machine."""
    counts = [_whole(text, "rows", 1, 17) for text in rows.split(",")]
    where = _check(repeats, plot, save)
    from foretoken.bench import plot as picture
    from foretoken.bench import verify_cost as bench

    bench.check_rows(counts)
    subject = _open(model, shape, "none", format, "q8", threads)
    with terminal.progress("Measuring") as advance:
        report = bench.measure(subject, context, counts, repeats, advance)
    table = [
        [rows, report["ms"][rows], report["spread"][rows], *_cells(report, ("relative", "roofline_ratio"), rows)]
        for rows in report["ms"]
    ]
    _show(_title(report), ["rows", "ms", "spread", "over one row", "spread", "over roofline", "spread"], table)
    terminal.say(
        f"read ceiling {report['read_ceiling_gb_per_s']:.1f} GB/s, "
        f"peak {report['int_peak_gmac_per_s']:.0f} GMAC/s ({report['int_peak_source']})"
    )
    _hand_out(report, f"verify-cost {report['shape']}", where, json)
    if plot is not None:
        labels = {"over one row": "relative", "over roofline": "roofline_ratio"}
        series = {label: _points(report, name) for label, name in labels.items()}
        ideal = "a pass as quick as that of one row, or as the machine can be"
        picture.lines(plot, _title(report), "rows of the pass", "time of the pass, as a multiple", series, ideal)


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
    save: Save = None,
    json: options.Json = False,
) -> None:
    """What a draft token costs, over a plain pass of the target."""
    _whole(chain, "chain", 1, 16)
    where = _check(repeats, plot, save)
    from foretoken.bench import draft_cost as bench
    from foretoken.bench import plot as picture

    subject = _open(model, shape, drafter, format, drafter_format, threads)
    with terminal.progress("Measuring") as advance:
        report = bench.measure(subject, context, chain, repeats, advance)
    names = {"a draft token": "draft", "a plain pass": "plain"}
    table = [[label, report[f"{case}_ms"], report["spread"][case]] for label, case in names.items()]
    _show(_title(report), ["", "ms", "spread"], table)
    spread = _text("spread", report["share_spread"])
    terminal.say(f"a draft token costs {report['share']:.1%} of a plain pass (spread {spread})")
    _hand_out(report, f"draft {report['shape']}", where, json)
    if plot is not None:
        bars = {label: {"": (report[f"{case}_ms"], report["quartiles_ms"][case])} for label, case in names.items()}
        picture.bars(plot, _title(report), "ms", bars)


@app.command("prompt")
def prompt(
    model: options.Model = None,
    shape: Shape = None,
    format: Format = None,
    threads: options.Threads = None,
    tokens: Annotated[int, typer.Option("--tokens", help="Tokens of the prompt.")] = 512,
    repeats: Repeats = 5,
    plot: Plot = None,
    save: Save = None,
    json: options.Json = False,
) -> None:
    """How fast a prompt is read, as a share of what the kernels reach at best."""
    _whole(tokens, "tokens", 1, 1 << 20)
    where = _check(repeats, plot, save)
    from foretoken.bench import plot as picture
    from foretoken.bench import prompt_speed as bench

    subject = _open(model, shape, "none", format, "q8", threads)
    with terminal.progress("Measuring") as advance:
        report = bench.measure(subject, tokens, repeats, advance)
    cases = {"the whole": ("prompt", "peak_share"), "products alone": ("linears", "linear_peak_share")}
    table = [
        [label, report[f"{case}_ms"], report["spread"][case], report[share], report[f"{share}_spread"]]
        for label, (case, share) in cases.items()
    ]
    _show(_title(report), ["", "ms", "spread", "of the peak", "spread"], table)
    peak = f"peak {report['int_peak_gmac_per_s']:.0f} GMAC/s ({report['int_peak_source']})"
    terminal.say(f"{report['tok_per_s']:.1f} tok/s; {peak}")
    _hand_out(report, f"prompt {report['shape']}", where, json)
    if plot is not None:
        bars = {label: {"": _percent(report, share)} for label, (_, share) in cases.items()}
        picture.bars(plot, _title(report), "% of the peak", bars)


@app.command("decode")
def decode(
    model: options.Model = None,
    drafter: options.Drafter = "auto",
    format: options.Format = "auto",
    drafter_format: options.DrafterFormat = "q8",
    threads: options.Threads = None,
    prompts: options.Prompts = None,
    shape: Annotated[str | None, typer.Option("--shape", hidden=True)] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Prompts of each domain. Default: all.")] = None,
    horizon: Annotated[
        str | None,
        typer.Option("--horizon", help="Horizons to compare, 0 among them. Default: 0,1,2,4,8,auto."),
    ] = None,
    max_tokens: options.MaxTokens = 200,
    repeats: Repeats = 3,
    plot: Plot = None,
    save: Save = None,
    json: options.Json = False,
) -> None:
    """Drafted against plain decoding by domain: same text or not, how fast, which horizon is best."""
    _whole(max_tokens, "max-tokens", 2, 1 << 20)
    where = _check(repeats, plot, save)
    from foretoken.bench import decode_speed as bench
    from foretoken.bench import plot as picture
    from foretoken.bench import prompts as sets
    from foretoken.horizon import parse_horizon

    if shape is not None:
        raise InputError(
            "decode takes no --shape: the text of random weights is noise, hardly any draft would be accepted, and a "
            "speed-up would say nothing. Give a model with --model, or none for the small pair that comes along."
        )
    horizons = bench.default_horizons() if horizon is None else [str(parse_horizon(h)) for h in horizon.split(",")]
    bench.check_horizons(horizons)
    if limit is not None:
        _whole(limit, "limit", 1, 1 << 20)
    found = sets.load(prompts if prompts is not None else sets.default_set(model is None), limit)
    loaded = terminal.load_model(model, drafter, format, drafter_format, threads)
    with terminal.progress("Measuring") as advance:
        report = bench.measure(loaded, found, horizons, max_tokens, repeats, advance)
    domains = report["domains"]
    drafted = [own for own in report["mean_by_horizon"] if own != bench.PLAIN]
    _hand_out(report, f"decode {report['model']}", where, json)
    _show_decode(report, drafted)
    if plot is not None:
        noise = sum(len(d["noise"]) for d in domains.values())
        groups = {name: {f"horizon {own}": _point(d, "speedup", own) for own in drafted} for name, d in domains.items()}
        picture.bars(
            plot,
            _pair_title(report["model"], report)
            + (f"\n{noise} speed-ups above the tokens of a round: noise" if noise else ""),
            "times as fast as plain decoding",
            groups,
            level="plain decoding",
        )
    if not all(d["same_text"] for d in domains.values()):
        raise typer.Exit(1)


def _show_decode(report: dict[str, Any], drafted: list[str]) -> None:
    """The table, and what it leaves blank or doubts."""
    rows = []
    for name, d in report["domains"].items():
        speeds = [_speedup(d, "speedup", own, own in d["noise"]) for own in drafted]
        horizon, per_round = d["tokens_per_round_horizon"], d["tokens_per_round"]
        per_round = None if per_round is None else f"{per_round:.2f} at {horizon}"
        rest = [
            _auto_over_best(d["auto_over_best"]),
            per_round,
            f"{d['loops']}/{d['answers']}",
            "yes" if d["same_text"] else "NO",
        ]
        rows.append([name, d["plain_tok_per_s"], *speeds, d["best_horizon"], *rest])
    over = _auto_over_best(report["mix_auto_over_best"])
    for name, ends in (("mean", [report["best_horizon"], ""]), ("mix", ["", over])):
        speeds = [_speedup(report, f"{name}_by_horizon", own) for own in drafted]
        rows.append([name, None, *speeds, *ends, None, "", ""])
    names = ["", "plain tok/s", *(f"×{own}" for own in drafted), "best", "auto/best", "tok/round", "loops", "same"]
    _show(f"{_pair_title(report['model'], report)}: times as fast as plain, by horizon; spread below", names, rows)
    if report["repeats"] < 3:
        terminal.say("fewer than 3 repeats show no spread, so no horizon is called the best. Give --repeats 3 or more.")
    elif any(row[2 + len(drafted)] is None for row in rows):
        terminal.say("best is blank where it is faster than another, or than plain decoding, by less than the spread.")
    if any(d["noise"] for d in report["domains"].values()):
        terminal.say("? is noise: no speed-up can be larger than the tokens of a round.")


def _speedup(report: dict[str, Any], name: str, horizon: str, is_noise: bool = False) -> str:
    """A number, and below it its spread."""
    value, spread = report[name][horizon], report[f"{name}_spread"][horizon]
    if value is None:
        return "–"
    return f"{value:.2f}{'?' * is_noise}\n{'–' if spread is None else f'{spread:.0%}'}"


def _auto_over_best(found: dict[str, Any] | None) -> str | None:
    """What the planner reached of the horizon that was best in hindsight."""
    return None if found is None else f"{found['value']:.2f} of {found['horizon']}"


def _cells(report: dict[str, Any], names: tuple[str, ...], key: str) -> list[Any]:
    """Of every name the value and its spread."""
    return [report[f"{name}{end}"][key] for name in names for end in ("", "_spread")]


def _point(report: dict[str, Any], name: str, key: str) -> tuple[float, tuple[float, float] | None] | None:
    """A value and its quartiles, as pictures take them; None where there is no value."""
    value = report[name][key]
    return None if value is None else (value, report[f"{name}_quartiles"][key])


def _percent(report: dict[str, Any], name: str) -> tuple[float, tuple[float, float] | None]:
    """A share as pictures take it, in percent."""
    quartiles = report[f"{name}_quartiles"]
    return 100 * report[name], None if quartiles is None else (100 * quartiles[0], 100 * quartiles[1])


def _points(report: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: _point(report, name, key) for key in report[name]}


def _whole(value: int | str, name: str, low: int, high: int) -> int:
    """A number out of a range, from an option; raises InputError."""
    text = str(value).strip()
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else -1
    if not low <= number <= high:
        raise InputError(f"{name} is {text[:40]!r}, expected a whole number from {low} to {high}.")
    return number


def _check(repeats: int, plot: Path | None, save: str | None) -> Path | None:
    """Refuse what is wrong before anything is loaded; where the report is to be kept, if it is."""
    _whole(repeats, "repeats", 1, MAX_REPEATS)
    if plot is not None:
        from foretoken.bench import plot as picture

        picture.check(plot)
    if save is None:
        return None
    from foretoken.bench import record

    return record.target(save)


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
    where = f", after {report['context']} tokens" if "context" in report else f", prompt of {report['tokens']} tokens"
    return f"{_pair_title(report['shape'], report)}{where}"


def _pair_title(name: str, report: dict[str, Any]) -> str:
    threads = report["threads"]
    return f"{name} {report['format']}, {report['isa']}, {threads} thread{'s' * (threads > 1)}"


def _show(title: str, names: list[str], rows: list[list[Any]]) -> None:
    """A table on stderr; shares are told from other numbers by their column's name."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal.say(title)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for place, name in enumerate(names):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(_text(name, value)) for name, value in zip(names, row, strict=True)))  # no markup
    Console(stderr=True, width=max(Console(stderr=True).width, MIN_WIDTH)).print(table)


def _text(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if not isinstance(value, float):
        return str(value)
    if name in ("spread", "of the peak"):
        return f"{value:.1%}"
    return f"{value:.{1 if value >= 100 else 2 if value >= 0.1 else 4}f}"


def _hand_out(report: dict[str, Any], what: str, where: Path | None, is_json: bool) -> None:
    """Print the report and keep it, where that was asked for; before any picture, which may find the disk full."""
    if is_json:
        terminal.print_json(report)
    if where is not None:
        from foretoken.bench import record

        terminal.say(f"kept as {record.save(report, what, where)}")
