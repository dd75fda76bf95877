"""`foretoken demo`: the same text plain and drafted, live, and what it took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from foretoken.cli import answer, options, terminal

if TYPE_CHECKING:
    from foretoken.api import Model
    from foretoken.stream import Result, Stream

PROMPT = (
    "Write this dictionary entry as JSON.\n\n"
    "harbor (noun): a sheltered port where ships can take on or discharge cargo, and where sailors rest"
)
WARM_UP_TOKENS = 8


def demo(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to ask.")] = PROMPT,
    max_tokens: options.MaxTokens = 160,
    model: options.Model = None,
    drafter: options.Drafter = "auto",
    horizon: options.Horizon = "4",
    format: options.Format = "auto",
    threads: options.Threads = None,
) -> None:
    """Write one text twice, plain and drafted, and compare."""
    options.check_horizon(horizon)
    options.check_prompt(prompt)
    from foretoken.horizon import parse_horizon
    from foretoken.places import ASSETS

    is_own = model is None and drafter == "auto"
    if is_own:
        drafter = str(ASSETS / "drafter")  # alone: in so short passes choosing a source costs too much
    loaded = terminal.load_model(model, drafter, format, "q8", threads)
    _stream(loaded, prompt, max_tokens, horizon).close()  # refuses what is wrong before anything is written
    if not is_own:
        terminal.explain_drafting(loaded, drafter, horizon)
    has_drafts = loaded.drafter_state.state == "on" and parse_horizon(horizon) != 0
    for warm in ("0", horizon) if has_drafts else ("0",):  # so that no run pays for the first touch of the weights
        answer.write(_stream(loaded, prompt, WARM_UP_TOKENS, warm), is_quiet=True)
    print(f"── Prompt ──\n{prompt}\n")
    plain = _write(loaded, "Plain, one token a pass", prompt, max_tokens, "0")
    if not has_drafts:
        terminal.say("nothing drafts, so there is nothing to compare.")
        terminal.summarize(loaded, plain)
        return
    drafted = _write(loaded, "Drafted, several tokens a pass", prompt, max_tokens, horizon)
    is_same = plain.tokens == drafted.tokens
    _show_table(plain, drafted, is_same)
    if not is_same:
        raise typer.Exit(1)


def _stream(model: Model, prompt: str, max_tokens: int, horizon: str) -> Stream:
    """One user turn, or a text to continue where the model has no chat template."""
    has_turns = model.chat_template is not None
    return model.stream(
        None if has_turns else prompt,
        messages=[{"role": "user", "content": prompt}] if has_turns else None,
        max_tokens=max_tokens,
        horizon=horizon,
        temperature=0.0,
    )


def _write(model: Model, title: str, prompt: str, max_tokens: int, horizon: str) -> Result:
    print(f"── {title} ──", flush=True)
    result = answer.write(_stream(model, prompt, max_tokens, horizon))
    if result.finish_reason == "interrupted":
        raise KeyboardInterrupt
    print()
    return result


def _show_table(plain: Result, drafted: Result, is_same: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for name in ("", "plain", "drafted"):
        table.add_column(name, justify="right" if name else "left")
    rows = [(run.stats, run.stats.decode_s) for run in (plain, drafted)]
    table.add_row("tokens", *(str(stats.completion_tokens) for stats, _ in rows))
    table.add_row("passes of the target", *(str(stats.rounds) for stats, _ in rows))
    table.add_row("tokens per pass", *(_number(stats.tokens_per_round) for stats, _ in rows))
    table.add_row("accepted by position", "", _by_position(drafted))
    table.add_row("seconds", *(f"{seconds:.2f}" for _, seconds in rows))
    table.add_row("tokens per second", *(_number(stats.tok_per_s, 1) for stats, _ in rows))
    if plain.stats.tok_per_s and drafted.stats.tok_per_s:
        table.add_row("speed-up", "1.00", f"{drafted.stats.tok_per_s / plain.stats.tok_per_s:.2f}")
    table.add_row("same text", "", "yes" if is_same else "NO")
    Console().print(table)


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _by_position(result: Result) -> str:
    stats = result.stats
    pairs = zip(stats.accepted_by_position, stats.drafted_by_position, strict=True)
    return " ".join(f"{accepted / drafted:.0%}" for accepted, drafted in pairs) or "–"
