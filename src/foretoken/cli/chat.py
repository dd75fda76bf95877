"""`foretoken chat`: turns by hand, streamed. /reset forgets the conversation, /exit or Ctrl-D ends it."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from foretoken.cli import answer, options, terminal
from foretoken.errors import InputError

if TYPE_CHECKING:
    from foretoken.api import Model
    from foretoken.scheduler import Scheduler

PROMPT = "> "


def chat(
    model: options.Model = None,
    drafter: options.Drafter = "auto",
    horizon: options.Horizon = "auto",
    format: options.Format = "auto",
    drafter_format: options.DrafterFormat = "q8",
    threads: options.Threads = None,
    chunk: options.Chunk = 512,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = 1.0,
    presence_penalty: options.PresencePenalty = 0.0,
    frequency_penalty: options.FrequencyPenalty = 0.0,
    seed: options.Seed = None,
    max_tokens: options.MaxTokens = 512,
    stop: options.Stop = None,
) -> None:
    """Talk with the model; Ctrl-C stops an answer, Ctrl-D or /exit ends."""
    options.check_horizon(horizon)
    loaded = terminal.load_model(model, drafter, format, drafter_format, threads, chunk)
    if loaded.chat_template is None:
        raise InputError(f"model {loaded.name} has no chat template. Use foretoken generate.")
    terminal.explain_drafting(loaded, drafter, horizon)
    settings = {
        "max_tokens": max_tokens,
        "horizon": horizon,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "presence_penalty": presence_penalty,
        "frequency_penalty": frequency_penalty,
        "seed": seed,
        "stop": stop or (),
    }
    if sys.stdin.isatty():
        terminal.say("/reset forgets the conversation, Ctrl-C stops an answer, /exit or Ctrl-D ends.")
    _converse(loaded, settings)


def _converse(model: Model, settings: dict[str, Any]) -> None:
    scheduler = model.scheduler(parallel=1)  # keeps what was read, so that a turn reads only what is new
    messages: list[dict[str, str]] = []
    while (line := _read_line()) is not None:
        text = line.strip()
        if text == "/exit":
            return
        if text == "/reset":
            messages.clear()
            terminal.say("the conversation starts anew.")
        elif text.startswith("/"):
            terminal.say(f"no command {text.split()[0]}; there are /reset and /exit.")
        elif text:
            _take_turn(scheduler, messages, text, settings)


def _take_turn(scheduler: Scheduler, messages: list[dict[str, str]], text: str, settings: dict[str, Any]) -> None:
    """Answer one turn and remember both sides; a turn that cannot be answered is forgotten."""
    turns = [*messages, {"role": "user", "content": text}]
    try:
        stream = scheduler.stream(messages=turns, **settings)
    except InputError as error:
        terminal.say(f"{error} /reset starts anew.")
        return
    result = answer.write(stream)
    terminal.summarize(result)
    messages[:] = [*turns, {"role": "assistant", "content": result.text}]


def _read_line() -> str | None:
    """The user's next line; None at the end of input. Ctrl-C at the prompt only clears the line."""
    while True:
        try:
            if not sys.stdin.isatty():
                return sys.stdin.buffer.readline().decode("utf-8") or None
            return _ask()
        except UnicodeDecodeError as error:
            raise InputError("stdin is not UTF-8. Convert it first.") from error
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            print(file=sys.stderr)
        except EOFError:
            print(file=sys.stderr)
            return None


def _ask() -> str:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (line editing and history for input(), where the system has it)
    return input(PROMPT)
