"""What the commands say beside the text: messages, progress, a summary of figures. All of it goes to stderr."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from foretoken.places import EMBEDDED

if TYPE_CHECKING:
    from foretoken.api import Model
    from foretoken.stream import Result

PROGRESS_AFTER_S = 1.0
MAX_LINE_CHARS = 8000


def say(message: str) -> None:
    """One line on stderr, whatever the message holds."""
    line = "; ".join(part.strip() for part in message.splitlines() if part.strip())
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line[:MAX_LINE_CHARS])  # files may hold escapes
    with contextlib.suppress(OSError):  # nobody reads: that must not cost the answer
        print(f"foretoken: {line}", file=sys.stderr, flush=True)


def print_json(value: dict[str, Any]) -> None:
    """The one object of a --json run, as the last line of stdout."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False), flush=True)


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A function for (done, in all) that shows a bar once a second has passed; in a file a line now and then."""
    if not sys.stderr.isatty():
        from foretoken.bench import script

        yield script.progress(label, say)
        return
    started = time.perf_counter()
    bar: Any = None
    task: Any = None

    def advance(done: int, whole: int) -> None:
        nonlocal bar, task
        if bar is None and time.perf_counter() - started > PROGRESS_AFTER_S:
            from rich.console import Console
            from rich.progress import Progress

            bar = Progress(console=Console(stderr=True), transient=True)
            bar.start()
            task = bar.add_task(label, total=whole)
        if bar is not None:
            bar.update(task, completed=done, total=whole)

    try:
        yield advance
    finally:
        if bar is not None:
            bar.stop()


@contextmanager
def stages() -> Iterator[tuple[Callable[[str], None], Callable[[int, int, str], None]]]:
    """(stage, advance) for long work: stage(name) begins a part, advance(done, whole, note) moves its bar.

    Where stderr is a file there is no bar, only the names of stages; `say` may be called at any time.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:

        def stage(name: str) -> None:
            say(f"{name} …")
            for task in bar.task_ids:
                bar.remove_task(task)
            bar.add_task(name, total=None, note="")

        def advance(done: int, whole: int, note: str) -> None:
            bar.update(bar.task_ids[-1], completed=done, total=whole, note=note)

        yield stage, advance


def load_model(
    model: str | None,
    drafter: str,
    format: str,
    drafter_format: str,
    threads: int | None,
    chunk: int = 512,
    draft_clusters: int | None = None,
    draft_min_chance: float | None = None,
) -> Model:
    """Load what the options name, with a progress bar and each warning once."""
    import foretoken

    said: set[str] = set()

    def warn(sentence: str) -> None:
        if sentence not in said:
            said.add(sentence)
            say(sentence)

    with progress("Loading") as advance:
        return foretoken.load(
            model,
            drafter=drafter,
            format=format,
            drafter_format=drafter_format,
            threads=threads,
            chunk=chunk,
            draft_clusters=draft_clusters,
            draft_min_chance=draft_min_chance,
            progress=advance,
            warn=warn,
        )


def explain_drafting(model: Model, drafter: str, horizon: str) -> None:
    """Nothing silent: who drafts for a model that was named, or why nobody does, unless that alone was asked for."""
    state = model.drafter_state
    if horizon == "0":
        return
    if state.state == "on":
        if drafter == "auto" and state.sources == ("suffix",):
            is_said = state.fallback == "drafter-mismatch"  # why it is not the model's own drafter
            say("drafts come from the text itself" if is_said else f"drafts come {state.reason}")
        elif state.reason != EMBEDDED:
            say(f"drafts by {state.name}: {state.reason}")
        return
    if drafter != "none":
        say(f"drafting is off: {state.reason}")
    elif horizon != "auto":
        say(f"horizon {horizon} has no effect: drafting is {state.reason}.")


def for_template(model: Model, thinking: bool | None, tools: list[dict[str, Any]] | None) -> dict[str, Any]:
    """Options of `Model.stream` for these; what the model's template would ignore is said and left out."""
    options: dict[str, Any] = {}
    template = model.chat_template
    if template is None:
        return options
    for name, value, lacks in (
        ("thinking", thinking, template.lacks(thinking, None)),
        ("tools", tools, template.lacks(None, tools)),
    ):
        for sentence in lacks:
            say(f"{sentence} It goes without.")
        if not lacks and value is not None:
            options[name] = value
    return options


def summarize(model: Model, result: Result) -> None:
    """The figures of an answer on one line, and what they advise."""
    stats = result.stats
    parts = [f"{stats.completion_tokens} tokens"]
    if stats.tokens_per_round is not None:
        parts.append(f"{stats.tokens_per_round:.2f} per round")
    if stats.acceptance_rate is not None:
        parts.append(f"{stats.acceptance_rate:.0%} of drafts accepted")
    plain = sum(stats.fallbacks.values())
    if 2 * plain > stats.rounds:
        why = ", ".join(sorted(stats.fallbacks, key=stats.fallbacks.__getitem__, reverse=True))
        parts.append(f"{plain} of {stats.rounds} rounds plain ({why})")
    if stats.tok_per_s is not None:
        parts.append(f"{stats.tok_per_s:.1f} tok/s")
    parts.append(f"prompt of {stats.prompt_tokens} in {stats.prefill_s:.2f} s")
    parts.append(f"seed {result.seed}")
    say(" · ".join(parts))
    if result.finish_reason == "length" and result.prompt_tokens + len(result.tokens) >= model.context_len:
        say(f"the context of {model.context_len} tokens is full: the answer ends here.")
    for sentence in stats.advice:
        say(sentence)
