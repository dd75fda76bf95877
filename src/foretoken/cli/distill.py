"""`foretoken distill`: make or tune a drafter for a target. Options, a progress bar, exit codes; no training here."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foretoken.cli import options, terminal
from foretoken.cli.interrupt import Interrupt
from foretoken.errors import InputError

if TYPE_CHECKING:
    from foretoken.distill import Plan

DEFAULT_MINUTES = 10.0


def distill(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Gets the drafter, and all that a resume needs.")],
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", metavar="PATH", help="Folder or file of .txt passages or .jsonl prompts; repeatable."),
    ] = None,
    model: options.Model = None,
    start: Annotated[
        Path | None, typer.Option("--from", metavar="PATH", help="Tune this drafter instead of making a new one.")
    ] = None,
    format: options.Format = "auto",
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="Time for writing and training together. Default: 10.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="So many training steps instead.")] = None,
    tokens: Annotated[int, typer.Option("--tokens", help="After so many tokens the target stops writing.")] = 400_000,
    head_vocab: Annotated[
        int, typer.Option("--head-vocab", help="Guess only the N most frequent tokens of the data; 0 is all.")
    ] = 0,
    clusters: Annotated[int, typer.Option("--clusters", help="Clusters of the head; 0 is none, -1 what suits.")] = -1,
    hidden: Annotated[int, typer.Option("--hidden", help="Width of a new drafter.")] = 256,
    layers: Annotated[int, typer.Option("--layers", help="Layers of a new drafter, the last one full.")] = 4,
    mlp: Annotated[int, typer.Option("--mlp", help="Width of its MLPs.")] = 512,
    seed: Annotated[int, typer.Option("--seed", help="Decides texts, start and batches.")] = 1,
    threads: options.Threads = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in DIR; only --minutes or --steps may be given anew.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Make a drafter for a target on this processor: it writes texts, and a small model learns to guess on."""
    from foretoken import distill as work

    _check(minutes, steps, tokens, layers, mlp, seed)
    if resume:
        if data or model or start:
            raise InputError("--resume takes data, model and drafter from the run. Leave them out.")
        work.need_torch()
        plan = _again(work.prepare(out, None), minutes, steps)
        plan.save(out / "work")
    else:
        if not data:
            raise InputError("no data. Give --data a folder of .txt files, or a .jsonl file with prompts.")
        if steps is None and minutes is None:
            minutes = DEFAULT_MINUTES
        sizes = work.Sizes(hidden, layers, mlp, head_vocab, clusters)
        if start is not None and sizes != work.Sizes():
            raise InputError("a drafter given with --from keeps its own sizes. Leave the options for sizes out.")
        work.need_torch()
        names = [str(path.absolute()) for path in data]
        places = {"model": _absolute(model) if model and os.path.exists(model) else model, "start": _absolute(start)}
        plan = work.prepare(out, work.Plan(names, format=format, minutes=minutes, steps=steps, tokens=tokens, seed=seed,
                                           threads=threads, sizes=sizes, **places))  # fmt: skip
    _run(plan, out, json)


def _run(plan: Plan, out: Path, is_json: bool) -> None:
    from foretoken import distill as work

    loaded = terminal.load_model(plan.model, "none", plan.format, "q8", plan.threads)
    with Interrupt() as interrupt, terminal.stages() as (stage, advance):
        interrupt.is_writing = True
        listener = work.Listener(stage, advance, terminal.say, lambda: interrupt.requested)
        report = work.run(loaded, plan, out, listener)
    for note in report.notes:
        terminal.say(note)
    if is_json:
        terminal.print_json({"out": str(out), **asdict(report)})
    if not report.is_finished:
        terminal.say(f"stopped while {report.stage}; go on with: foretoken distill --out {out} --resume")
        raise typer.Exit(130)
    if report.survival:
        before, after = (work.spelled(shares) for shares in (report.survival_before, report.survival))
        terminal.say(f"held-out drafts accepted {after} by position; before training {before}")
    terminal.say(f"{out} holds a drafter of {report.bytes / 1e6:.1f} MB; use it with --drafter {out}")


def _again(plan: Plan, minutes: float | None, steps: int | None) -> Plan:
    """The plan of before; a new length replaces the old one."""
    if minutes is None and steps is None:
        return plan
    return replace(plan, minutes=minutes, steps=steps)


def _absolute(path: Any) -> str | None:
    return None if path is None else str(Path(path).absolute())


def _check(minutes: float | None, steps: int | None, tokens: int, layers: int, mlp: int, seed: int) -> None:
    if minutes is not None and steps is not None:
        raise InputError("--minutes and --steps exclude each other. Give one of them.")
    if minutes is not None and not 0.05 <= minutes <= 1e5:
        raise InputError(f"minutes is {minutes}, expected 0.05 to 100000.")
    for name, value, low, high in (
        ("steps", 1 if steps is None else steps, 1, 10**7),
        ("tokens", tokens, 1000, 10**9),
        ("layers", layers, 1, 32),
        ("mlp", mlp, 32, 1 << 16),
        ("seed", seed, 0, (1 << 31) - 1),
    ):
        if not low <= value <= high or (name == "mlp" and value % 32):
            what = "a multiple of 32" if name == "mlp" else "a whole number"
            raise InputError(f"{name} is {value}, expected {what} from {low} to {high}.")
