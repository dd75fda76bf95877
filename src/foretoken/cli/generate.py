"""`foretoken generate`: continue a text, or answer one user turn."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foretoken.cli import answer, options, terminal, tracing
from foretoken.errors import InputError

if TYPE_CHECKING:
    from foretoken.api import Model
    from foretoken.stream import Result, Stream

INTERRUPTED = 130


def generate(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="Text to continue; - reads stdin as UTF-8.")],
    chat: Annotated[bool, typer.Option("--chat", help="Take the prompt as one user turn.")] = False,
    thinking: options.Thinking = None,
    tools: options.Tools = None,
    model: options.Model = None,
    drafter: options.Drafter = "auto",
    horizon: options.Horizon = "auto",
    format: options.Format = "auto",
    drafter_format: options.DrafterFormat = "q8",
    threads: options.Threads = None,
    chunk: options.Chunk = 512,
    draft_clusters: options.DraftClusters = None,
    draft_min_chance: options.DraftMinChance = None,
    trace: options.Trace = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = 1.0,
    presence_penalty: options.PresencePenalty = 0.0,
    frequency_penalty: options.FrequencyPenalty = 0.0,
    seed: options.Seed = None,
    max_tokens: options.MaxTokens = 256,
    stop: options.Stop = None,
    ignore_eos: options.IgnoreEos = False,
    json: options.Json = False,
) -> None:
    """Continue a text."""
    options.check_horizon(horizon)
    text, functions = _text(prompt), options.read_tools(tools)
    if not chat and (thinking is not None or functions):
        raise InputError("--thinking and --tools are for a turn of a chat. Add --chat.")
    with tracing.opened(trace) as told:
        loaded = terminal.load_model(
            model, drafter, format, drafter_format, threads, chunk, draft_clusters, draft_min_chance
        )
        loaded.trace = told
        stream = loaded.stream(
            None if chat else text,
            messages=[{"role": "user", "content": text}] if chat else None,
            **(terminal.for_template(loaded, thinking, functions) if chat else {}),
            max_tokens=max_tokens,
            horizon=horizon,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            seed=seed,
            stop=stop or (),
            ignore_eos=ignore_eos,
        )
        terminal.explain_drafting(loaded, drafter, horizon)
        _show(loaded, stream, json)


def _show(model: Model, stream: Stream, json: bool) -> None:
    result = answer.write(stream, is_quiet=json)
    if json:
        terminal.print_json(_as_dict(model, result))
    else:
        terminal.summarize(model, result)
    if result.finish_reason == "interrupted":
        raise typer.Exit(INTERRUPTED)


def _text(prompt: str) -> str:
    text = _stdin() if prompt == "-" else prompt
    options.check_prompt(text)
    if prompt != "-" and os.path.isfile(prompt):
        terminal.say(f"the prompt is the text {prompt!r} as it stands; for what the file holds: generate - < {prompt}")
    return text


def _stdin() -> str:
    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = data[error.start]
        raise InputError(f"stdin is not UTF-8: byte 0x{byte:02x} at offset {error.start}. Convert it first.") from error


def _as_dict(model: Model, result: Result) -> dict[str, Any]:
    info = model.info()
    return {
        "text": result.text,
        "raw_text": result.raw_text,
        "tokens": result.tokens,
        "finish_reason": result.finish_reason,
        "model": info["model"],
        "drafter": info["drafter"],
        "seed": result.seed,
        "stats": result.stats.as_dict(),
    }
