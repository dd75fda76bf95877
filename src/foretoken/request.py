"""What an answer is to be: the options that a caller may give, defined once, and their check. Runs nothing."""

from __future__ import annotations

import difflib
import inspect
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, TypedDict, TypeGuard, TypeVar, get_type_hints

import numpy as np
import numpy.typing as npt

from foretoken.chat import ChatTemplate
from foretoken.config import GenerationDefaults
from foretoken.errors import InputError, shown
from foretoken.horizon import parse_horizon
from foretoken.sampling import Sampling, whole
from foretoken.tokenizer import Tokenizer
from foretoken.tools import check_tools

MAX_STOPS = 64  # every token is compared with all of them
Messages = Sequence[Mapping[str, Any]]
Ids = Sequence[int] | npt.NDArray[np.integer[Any]]
Text = str | Ids | Messages  # what one answer continues
Function = TypeVar("Function", bound=Callable[..., Any])


class Options(TypedDict, total=False):
    """What is None is as if it were not given.

    messages    a conversation, in place of a prompt: turns, rendered by the model's own template, which gets every
                field as it is: role, content, tool_calls, reasoning, …; `turn.message(result.parts)` is an answer as
                such a turn
    thinking    True or False as the template's `enable_thinking`; with None it does what it does
    tools       functions that the model may call, as in OpenAI's API, see `tools.check_tools`
    max_tokens  the answer has at most so many tokens, never more
    horizon     draft tokens per round: "auto", "short", "long" or 0 … 16; it changes the time, never the text
    temperature, top_k, top_p, min_p  the model's own defaults where not given
    seed        with none given one is drawn and reported; same seed, same answer
    logit_bias, repetition_penalty, presence_penalty, frequency_penalty  see `sampling.Sampling`
    logprobs    0 … 20: log-probabilities of every token and of so many alternatives, in `Result.logprobs`
    stop        strings that end the answer; they and what follows are not emitted
    ignore_eos  write on after the model's stop ids
    """

    messages: Messages | None
    thinking: bool | None
    tools: Sequence[Mapping[str, Any]] | None
    max_tokens: int | None
    horizon: int | str | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    seed: int | None
    logit_bias: Mapping[int, float] | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logprobs: int | None
    stop: str | Sequence[str] | None
    ignore_eos: bool | None


DEFAULTS = Options(
    messages=None,
    thinking=None,
    tools=None,
    max_tokens=256,
    horizon="auto",
    temperature=None,
    top_k=None,
    top_p=None,
    min_p=None,
    seed=None,
    logit_bias=None,
    repetition_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    logprobs=None,
    stop=(),
    ignore_eos=False,
)


def with_options(function: Function) -> Function:
    """Spell `**options: Unpack[Options]` out, so that `help` and completion at a prompt see every name and default."""
    signature, hints = inspect.signature(function), get_type_hints(Options)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    spelt = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=hints[name])
        for name, value in DEFAULTS.items()
    ]
    function.__signature__ = signature.replace(parameters=[*own, *spelt])  # type: ignore[attr-defined]  # PEP 362
    function.__doc__ = f"{inspect.getdoc(function)}\n\nOptions:\n\n{inspect.cleandoc(Options.__doc__ or '')}"
    return function


def refuse_unknown(given: Iterable[str], known: Collection[str]) -> None:
    """InputError for the first name that is no option; it says the nearest one, or all of them."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(known)}."
            raise InputError(f"there is no option {name}. {hint}")


def texts_of(prompt: Any, messages: Any) -> list[Any] | None:
    """The texts where several are given: a list of texts, of lists of token ids, or of conversations; None for one."""
    asked, kinds = (messages, (list, tuple)) if prompt is None else (prompt, (str, list, tuple, np.ndarray))
    if not isinstance(asked, (list, tuple)) or not any(isinstance(one, kinds) for one in asked):
        return None
    return list(asked)


@dataclass(frozen=True)
class Request:
    """What an answer is to be, every part checked."""

    ids: list[int]
    sampling: Sampling
    max_tokens: int
    horizon: int | str = 0
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    num_logprobs: int | None = None
    has_tools: bool = False


@dataclass(frozen=True)
class Checker:
    """Makes requests to one model of what its callers ask."""

    name: str
    tokenizer: Tokenizer
    chat_template: ChatTemplate | None
    defaults: GenerationDefaults
    vocab_len: int
    context_len: int

    def request(self, prompt: Any, options: Mapping[str, Any]) -> Request:
        """One request; raises InputError for anything that cannot be honoured."""
        self._refuse_several(prompt, options)
        refuse_unknown(options, DEFAULTS)
        asked: dict[str, Any] = {**DEFAULTS, **{name: value for name, value in options.items() if value is not None}}
        if not isinstance(asked["ignore_eos"], bool):
            raise InputError(f"ignore_eos is {shown(asked['ignore_eos'])}, expected true or false.")
        return Request(
            ids=self._prompt_ids(prompt, asked["messages"], asked["thinking"], asked["tools"]),
            sampling=self._sampling(asked),
            num_logprobs=None if asked["logprobs"] is None else whole("logprobs", asked["logprobs"], 0, 21),
            max_tokens=whole("max_tokens", asked["max_tokens"], 1, 1 << 31),
            horizon=parse_horizon(asked["horizon"]),
            stop=_stops(asked["stop"]),
            ignore_eos=asked["ignore_eos"],
            has_tools=asked["tools"] is not None and len(asked["tools"]) > 0,
        )

    @staticmethod
    def _refuse_several(prompt: Any, options: Mapping[str, Any]) -> None:
        """What only `Model.generate` takes."""
        for name in ("n", "each"):
            if name in options:
                raise InputError(f"{name} is for generate as a whole. Here ask for one answer, with a seed of its own.")
        if texts_of(prompt, options.get("messages")) is not None:
            raise InputError(
                "these are several texts, and one answer continues one. "
                "Give the list to generate, or submit each of them to a scheduler."
            )

    def _sampling(self, asked: Mapping[str, Any]) -> Sampling:
        bias = {} if asked["logit_bias"] is None else asked["logit_bias"]
        if not isinstance(bias, Mapping):
            raise InputError(f"logit_bias is {shown(bias)}, expected token ids with numbers.")
        own = self.defaults

        def given(name: str, default: float) -> Any:
            return default if asked[name] is None else asked[name]

        return Sampling(
            temperature=given("temperature", own.temperature),
            top_k=given("top_k", own.top_k),
            top_p=given("top_p", own.top_p),
            min_p=given("min_p", 0.0),
            seed=given("seed", secrets.randbits(63)),
            logit_bias={self._checked_id(token, "logit_bias"): value for token, value in bias.items()},
            suppressed=tuple(i for i in own.suppress_ids if i < self.vocab_len),
            repetition_penalty=asked["repetition_penalty"],
            presence_penalty=asked["presence_penalty"],
            frequency_penalty=asked["frequency_penalty"],
        )

    def _prompt_ids(self, prompt: Any, messages: Any, thinking: Any, tools: Any) -> list[int]:
        if (prompt is None) == (messages is None):
            raise InputError("give either a prompt or messages, not both and not neither.")
        if isinstance(prompt, (list, tuple)) and any(isinstance(one, Mapping) for one in prompt):
            prompt, messages = None, prompt
        if messages is not None:
            ids = self.tokenizer.encode(self._rendered(messages, thinking, tools), add_bos=False)
        elif thinking is not None or tools is not None:
            raise InputError("thinking and tools are for messages, which the chat template turns into a prompt.")
        elif isinstance(prompt, str):
            ids = self.tokenizer.encode(_unicode(prompt), add_bos=True)
        elif _is_list(prompt):
            ids = [self._checked_id(token, "the prompt") for token in prompt]
        else:
            raise InputError(f"the prompt is of type {type(prompt).__name__}, expected text or token ids.")
        if not ids:
            raise InputError("the prompt is empty. Give at least one character.")
        if len(ids) >= self.context_len:
            raise InputError(
                f"the prompt has {len(ids)} tokens, the context of {self.name} is {self.context_len}. "
                f"Shorten it to {self.context_len - 1} tokens or fewer."
            )
        return ids

    def _rendered(self, messages: Any, thinking: Any, tools: Any) -> str:
        """The prompt that the model's template makes of messages."""
        if self.chat_template is None:
            raise InputError(f"model {self.name} has no chat template. Give a plain prompt instead.")
        if not isinstance(thinking, (bool, type(None))):
            raise InputError(f"thinking is {shown(thinking)}, expected true, false or nothing.")
        _check_messages(messages)
        if tools is not None:
            tools = check_tools(tools) if not isinstance(tools, (list, tuple)) or tools else None
        if lacks := self.chat_template.lacks(thinking, tools):
            raise InputError(" ".join(lacks) + " Ask without.")
        options: dict[str, Any] = {} if thinking is None else {"enable_thinking": thinking}
        if tools:
            options["tools"] = tools
        return self.chat_template.render([_with_text(turn, self.chat_template) for turn in messages], **options)

    def _checked_id(self, token: Any, where: str) -> int:
        try:
            value = -1 if isinstance(token, bool) else index(token)  # NumPy integers are welcome
        except TypeError:
            value = -1
        if not 0 <= value < self.vocab_len:
            raise InputError(
                f"token id {shown(token)} in {where}, expected a whole number from 0 to {self.vocab_len - 1}."
            )
        return value


def _check_messages(messages: Any) -> None:
    """A list of turns that say who speaks and what; what else they hold is the template's business."""
    expected = 'expected a list of turns such as {"role": "user", "content": "Hello."}.'
    if not isinstance(messages, (list, tuple)):
        raise InputError(f"messages is {shown(messages)}, {expected}")
    for number, turn in enumerate(messages, 1):
        if not isinstance(turn, Mapping):
            raise InputError(f"message {number} is {shown(turn)}, {expected}")
        role = turn.get("role")
        if not isinstance(role, str):
            raise InputError(f"the role of message {number} is {shown(role)}, {expected}")
        if turn.get("content") is None and not turn.get("tool_calls"):
            raise InputError(f"message {number}, of role {role}, has no content, {expected}")
        if role != "tool":  # whose results may be objects, as the template likes them
            _check_content(turn.get("content"), f"message {number}, of role {role},")


def _check_content(content: Any, whose: str) -> None:
    """A text, nothing, or a list of parts that are texts."""
    if isinstance(content, (str, type(None))):
        return
    if not isinstance(content, (list, tuple)):
        raise InputError(f"{whose} has the content {shown(content)}, expected text.")
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            raise InputError(
                f"{whose} has the part {shown(part)}, expected {{'type': 'text', 'text': …}}: text is all that is read."
            )


def _with_text(turn: Mapping[str, Any], template: ChatTemplate) -> Mapping[str, Any]:
    """A turn whose parts are lines of one text, for a template that reads no parts."""
    content = turn.get("content")
    if not isinstance(content, (list, tuple)) or turn["role"] == "tool" or template.takes_parts:
        return turn
    return {**turn, "content": "\n".join(part["text"] for part in content)}


def _stops(value: Any) -> tuple[str, ...]:
    stops = (value,) if isinstance(value, str) else value
    if not isinstance(stops, (list, tuple)) or len(stops) > MAX_STOPS:
        raise InputError(f"stop is {shown(value)}, expected a text or a list of at most {MAX_STOPS} texts.")
    for stop in stops:
        if not isinstance(stop, str) or not stop or not _is_unicode(stop):
            raise InputError(f"stop is {shown(stop)}, expected a text of at least one character, valid as UTF-8.")
    return tuple(stops)


def _is_list(prompt: Any) -> TypeGuard[Sequence[Any]]:
    """Something of a known length, whose entries may be token ids."""
    if isinstance(prompt, np.ndarray):
        return prompt.ndim == 1
    return isinstance(prompt, Sequence) and not isinstance(prompt, (bytes, bytearray, memoryview))


def _is_unicode(text: str) -> bool:
    """False for lone surrogates, which no UTF-8 text holds."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _unicode(prompt: str) -> str:
    if not _is_unicode(prompt):
        raise InputError("the prompt is not valid UTF-8 text.")
    if not prompt:
        raise InputError("the prompt is empty. Give at least one character.")
    return prompt
