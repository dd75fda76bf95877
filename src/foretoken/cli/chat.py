"""`foretoken chat`: turns by hand, streamed. /help lists the commands. A line that ends in a backslash goes on.

Where the model calls a tool, the next line is the tool's result, and the model goes on with its turn. What the model
thought goes into the history apart from what it said; the template drops it (see `foretoken.chat`).
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

from foretoken.cli import answer, options, terminal
from foretoken.errors import InputError

if TYPE_CHECKING:
    from foretoken.api import Model
    from foretoken.chat import ChatTemplate

PROMPT = "> "
GOES_ON = "… "
HELP = (
    "/reset or /clear forgets the conversation, but not --system",
    "/exit or Ctrl-D ends it",
    "Ctrl-C stops an answer, or clears the line",
    "a line that ends in a backslash goes on in the next one",
)


def chat(
    model: options.Model = None,
    drafter: options.Drafter = "auto",
    horizon: options.Horizon = "auto",
    format: options.Format = "auto",
    drafter_format: options.DrafterFormat = "q8",
    threads: options.Threads = None,
    chunk: options.Chunk = 512,
    draft_clusters: options.DraftClusters = None,
    draft_min_chance: options.DraftMinChance = None,
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
    thinking: options.Thinking = None,
    tools: options.Tools = None,
    system: options.System = None,
) -> None:
    """Talk with the model; Ctrl-C stops an answer, Ctrl-D or /exit ends, /help lists what else there is.

    A line that ends in a backslash goes on in the next one.
    """
    options.check_horizon(horizon)
    functions = options.read_tools(tools)
    loaded = terminal.load_model(
        model, drafter, format, drafter_format, threads, chunk, draft_clusters, draft_min_chance
    )
    if loaded.chat_template is None:
        raise InputError(f"model {loaded.name} has no chat template. Use foretoken generate.")
    _check_system(loaded.chat_template, system)
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
        **terminal.for_template(loaded, thinking, functions),
    }
    if sys.stdin.isatty():
        terminal.say("Ctrl-C stops an answer, /exit or Ctrl-D ends, /help lists what else there is.")
    _converse(_Conversation(loaded, settings, system))


def _check_system(template: ChatTemplate, system: str | None) -> None:
    """Refuse what the template refuses, or would leave out so that the model never saw it."""
    if system is None:
        return
    rendered = template.render([{"role": "system", "content": system}, {"role": "user", "content": "Hello."}])
    if not system.strip() or system.strip() not in rendered:
        raise InputError("--system is empty, or this model's chat template leaves it out. Say it in the first line.")


def _converse(conversation: _Conversation) -> None:
    is_empty = True
    while (text := _read_turn(conversation.prompt)) is not None:
        is_empty = False
        if text == "/exit":
            return
        if text in ("/reset", "/clear"):
            conversation.reset()
            terminal.say("the conversation starts anew.")
        elif text == "/help":
            for sentence in HELP:
                terminal.say(sentence)
        elif text.startswith("/"):
            terminal.say(f"no command {text.split()[0]}; there are /help, /reset, /clear and /exit.")
        elif text:
            conversation.take(text)
    if is_empty:
        terminal.say("stdin ended before the first line, so there was nothing to answer.")


class _Conversation:
    """What was said so far, and what the model waits for: the user's next turn, or results of the tools it called."""

    def __init__(self, model: Model, settings: dict[str, Any], system: str | None = None) -> None:
        self._model = model
        self._scheduler = model.scheduler(parallel=1)  # keeps what was read, so that a turn reads only what is new
        self._settings = settings
        self._system = [] if system is None else [{"role": "system", "content": system}]
        self._messages: list[dict[str, Any]] = [*self._system]
        self._called: list[str] = []  # names of tools whose results are still to come

    @property
    def prompt(self) -> str:
        return f"{self._called[0]} returns> " if self._called else PROMPT

    def reset(self) -> None:
        self._messages[:] = self._system
        self._called.clear()

    def take(self, text: str) -> None:
        """The user's turn, or the result of a tool; once nothing is missing the model writes."""
        if not self._called:
            self._messages.append({"role": "user", "content": text})
        else:  # beside the calls themselves: the one place that every release of the template reads
            responses = self._messages[-1].setdefault("tool_responses", [])
            responses.append({"name": self._called.pop(0), "response": _response(text)})
        if not self._called:
            self._answer()

    def _answer(self) -> None:
        """Let the model write, and remember it; a turn that cannot be answered is forgotten."""
        from foretoken.turn import message

        try:
            stream = self._scheduler.stream(messages=self._messages, **self._settings)
        except InputError as error:
            terminal.say(f"{error} /reset starts anew.")
            while self._messages.pop()["role"] != "user":
                pass
            return
        result = answer.write(stream)
        terminal.summarize(self._model, result)
        said = message(result.parts)
        self._messages.append(said)
        self._called = [call["function"]["name"] for call in said.get("tool_calls", ())]
        if len(self._called) < sum(part.kind == "call" for part in result.parts):
            terminal.say("a call of the model cannot be read, and is left out of the conversation.")
        if self._called:
            terminal.say(f"the model calls {', '.join(self._called)}: type what each returns, as JSON or as text.")


def _response(text: str) -> Any:
    """What a tool returned: an object where it is JSON of one, else the text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def _read_turn(prompt: str) -> str | None:
    """The user's next turn, of one line or of several where they end in a backslash; None at the end of input."""
    lines: list[str] = []
    while (line := _read_line(GOES_ON if lines else prompt)) is not None:
        lines.append(line.rstrip())
        if not lines[-1].endswith("\\"):
            break
        lines[-1] = lines[-1][:-1]
    return "\n".join(lines).strip() if lines else None


def _read_line(prompt: str) -> str | None:
    """The user's next line; None at the end of input. Ctrl-C at the prompt only clears the line."""
    while True:
        try:
            if not sys.stdin.isatty():
                return sys.stdin.buffer.readline().decode("utf-8") or None
            return _ask(prompt)
        except UnicodeDecodeError as error:
            raise InputError("stdin is not UTF-8. Convert it first.") from error
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            print(file=sys.stderr)
        except EOFError:
            print(file=sys.stderr)
            return None


def _ask(prompt: str) -> str:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (line editing and history for input(), where the system has it)
    return input(prompt)
