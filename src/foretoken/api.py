"""What a program calls: `load` a model, then `generate` or `stream`. Wires every layer together; decides no token.

model = foretoken.load()                       # the embedded pair, or a Hugging Face folder
print(model.generate("Once", max_tokens=20).text)
for event in model.stream(messages=[{"role": "user", "content": "Define «salt»."}]):
    print(event.text, end="", flush=True)
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from operator import index
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from foretoken import config as configs
from foretoken import engine, weights
from foretoken.cache import Cache, PagePool
from foretoken.chat import ChatTemplate
from foretoken.drafters.mtp import MtpDrafter
from foretoken.drafters.protocol import Drafter, DrafterState
from foretoken.errors import ConfigError, InputError, WeightsError, shown
from foretoken.horizon import Learned, Shelf, begins_pattern, parse_horizon, parse_min_chance
from foretoken.models.gemma4 import Gemma4
from foretoken.models.gemma4_assistant import Assistant
from foretoken.ops import NUMERICS_VERSION, native
from foretoken.prefix import PrefixStore
from foretoken.sampling import SEED_LIMIT, Sampler, Sampling, answer_seed, whole
from foretoken.scheduler import Scheduler
from foretoken.stream import Answer, Event, Result, Stream
from foretoken.tokenizer import TOOL_RESPONSE, Tokenizer
from foretoken.tools import check_tools

FORMATS = ("auto", *weights.FORMATS)
MAX_STOPS = 64  # every token is compared with all of them
ASSETS = Path(__file__).parent / "assets"
Progress = Callable[[int, int], None]
Opener = Callable[[Path, str], tuple[Drafter, DrafterState]]


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


class Model:
    """A target with its drafter, ready to write. Made by `load`; several threads may use one."""

    def __init__(
        self,
        name: str,
        target: Gemma4,
        tokenizer: Tokenizer,
        chat_template: ChatTemplate | None,
        defaults: configs.GenerationDefaults,
        drafter: Drafter | None,
        drafter_state: DrafterState,
        figures: dict[str, Any],
        warnings: list[str],
        chunk: int,
        learned: Callable[[], Learned] | None = None,
    ) -> None:
        self.name = name
        self.target = target
        self.tokenizer = tokenizer
        self.chat_template = chat_template
        self.defaults = defaults
        self.drafter = drafter
        self.drafter_state = drafter_state
        self.chunk = chunk
        self.warnings = warnings
        self.trace: Callable[[dict[str, Any]], None] | None = None  # gets every round of answers begun from now on
        self._figures = figures
        self._learned = learned or cache(Learned)

    @property
    def context_len(self) -> int:
        """Most tokens that prompt and answer may have together."""
        return self.target.config.max_positions

    def info(self) -> dict[str, Any]:
        """What was loaded: the fields of `foretoken info --json` (design section 8)."""
        state = self.drafter_state
        return {
            "model": self.name,
            **self._figures,
            "context": self.context_len,
            "drafter": {"name": state.name, "state": state.state, "reason": state.reason},
            "isa": native.isa(),
            "threads": native.threads(),
            "numerics": NUMERICS_VERSION,
            "warnings": self.warnings,
        }

    def generate(self, prompt: Any = None, **options: Any) -> Any:
        """The whole answer at once, or one per prompt for a list of prompts; options as in `stream`.

        prompt   text, token ids, or a list of those: then all are written together, and a list of results is given
        n        so many answers to one prompt, with seeds derived from `seed`; a list of results as well
        returns  `Result`, or a list of them in the order of the prompts or of n
        """
        if isinstance(prompt, (list, tuple)) and any(isinstance(one, (str, list, tuple)) for one in prompt):
            if "n" in options:
                raise InputError("n is for one prompt. Give a list of prompts, or n, not both.")
            return self._generate_all([(one, options) for one in prompt])
        if (n := options.pop("n", None)) is not None:
            seed = options.pop("seed", None)
            seed = whole("seed", secrets.randbits(63) if seed is None else seed, 0, SEED_LIMIT)
            seeds = [answer_seed(seed, i) for i in range(whole("n", n, 1, 129))]
            return self._generate_all([(prompt, {**options, "seed": s}) for s in seeds])
        stream = self.stream(prompt, **options)
        for _ in stream:
            pass
        return stream.result

    def _generate_all(self, requests: Sequence[tuple[Any, dict[str, Any]]]) -> list[Result]:
        """All at once. What prompts have in common at their beginning is read once."""
        scheduler = self.scheduler(len(requests))
        answers = [scheduler.submit(prompt, **options) for prompt, options in requests]
        for _ in scheduler:
            pass
        return [answer.result for answer in answers]

    def stream(self, prompt: str | Sequence[int] | None = None, **options: Any) -> Stream:
        """Begin an answer.

        prompt      text to continue, or token ids taken as they are; or else
        messages    chat turns, rendered by the model's own template, which gets every field as it is: role, content,
                    tool_calls, reasoning, …; `turn.message(result.parts)` is an answer as such a message
        thinking    True or False as the template's `enable_thinking`; with None it does what it does
        tools       functions that the model may call, as in OpenAI's API, see `tools.check_tools`
        max_tokens  the answer has at most so many tokens, never more; 256 by default
        horizon     draft tokens per round: "auto", "short", "long" or 0 … 16; it changes the time, never the text
        temperature, top_k, top_p, min_p  the model's own defaults where not given
        logit_bias, repetition_penalty, presence_penalty, frequency_penalty  see `sampling.Sampling`
        logprobs    0 … 20: log-probabilities of every token and of so many alternatives, in `Result.logprobs`
        seed        with none given one is drawn and reported; same seed, same answer
        stop        strings that end the answer; they and what follows are not emitted
        ignore_eos  write on after the model's stop ids
        raises      InputError for anything that cannot be honoured
        """
        return self.start(self._request(prompt, **options), self.chunk, self.drafter)

    def scheduler(self, parallel: int = 8, prefix_bytes: int = 256 << 20) -> Scheduler:
        """A place where up to `parallel` answers are written together, in passes that they share.

        prefix_bytes  memory for prompts and answers that later prompts may begin with; 0 keeps none
        """
        parallel = whole("parallel", parallel, 1, 1025)
        prefix_bytes = whole("prefix_bytes", prefix_bytes, 0, 1 << 50)

        def checked(prompt: Any = None, **options: Any) -> tuple[Request, Drafter | None]:
            return self._request(prompt, **options), self.drafter

        return self.schedule(checked, parallel, prefix_bytes, self.chunk, self.context_len)

    def schedule(
        self,
        checked: Callable[..., tuple[Request, Drafter | None]],
        parallel: int,
        prefix_bytes: int,
        chunk: int,
        positions: int,
        kept: int = 1,
    ) -> Scheduler:
        """A scheduler whose `submit` takes what `checked` does; `scheduler` and the self-test come through here.

        positions  prompt and answer have at most so many tokens together
        kept       there is memory for so many texts of that length beside those that are written
        """
        runner = engine.Engine(self.target, chunk, self._learned().costs)
        pool = runner.pool(positions, parallel + kept)

        def begin(*args: Any, **options: Any) -> Answer:
            request, drafter = checked(*args, **options)
            return self._answer(request, pool, drafter)

        store = PrefixStore(pool, prefix_bytes)
        return Scheduler(runner, pool, begin, parallel, store, frozenset(self.defaults.eos_ids))

    def start(self, request: Request, chunk: int, drafter: Drafter | None) -> Stream:
        """Begin an answer from a checked request; `stream` and the self-test come through here."""
        runner = engine.Engine(self.target, chunk, self._learned().costs)
        pool = runner.pool(min(len(request.ids) + request.max_tokens, self.context_len))
        answer = self._answer(request, pool, drafter)

        def step() -> Event | None:
            if answer.is_done:
                return None
            if not answer.is_behind:  # else an interrupt came between the pass and what follows
                runner.step([answer.sequence])
            return answer.advance()

        return Stream(answer, step)

    def _answer(self, request: Request, pool: PagePool, drafter: Drafter | None) -> Answer:
        sequence = engine.Sequence(
            request.ids,
            cache=Cache(pool),
            sampler=Sampler(request.sampling, self.target.ops, len(request.ids)),
            drafter=drafter,
            horizon=self._learned().horizon(request.horizon),
            end=min(len(request.ids) + request.max_tokens, self.context_len),
            num_logprobs=request.num_logprobs,
        )
        sequence.trace, sequence.no_drafter = self.trace, self.drafter_state.fallback
        sequence.no_room = "budget" if sequence.end < self.context_len else "context-end"
        stop_ids = frozenset() if request.ignore_eos else self._stop_ids(request.has_tools)
        return Answer(sequence, self.tokenizer, request.stop, stop_ids, request.sampling.seed)

    def _request(
        self,
        prompt: str | Sequence[int] | None = None,
        *,
        messages: Sequence[Mapping[str, Any]] | None = None,
        thinking: bool | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        max_tokens: int = 256,
        horizon: int | str = "auto",
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int | None = None,
        logit_bias: Mapping[int, float] | None = None,
        repetition_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        logprobs: int | None = None,
        stop: Sequence[str] = (),
        ignore_eos: bool = False,
    ) -> Request:
        """Everything a caller may ask for, checked; see `stream`."""
        if not isinstance(logit_bias, (Mapping, type(None))) or not isinstance(ignore_eos, bool):
            raise InputError("logit_bias must map token ids to numbers, and ignore_eos be true or false.")
        d = self.defaults
        bias = {self._checked_id(token, "logit_bias"): value for token, value in (logit_bias or {}).items()}
        sampling = Sampling(
            temperature=d.temperature if temperature is None else temperature,
            top_k=d.top_k if top_k is None else top_k,
            top_p=d.top_p if top_p is None else top_p,
            min_p=0.0 if min_p is None else min_p,
            seed=secrets.randbits(63) if seed is None else seed,
            logit_bias=bias,
            suppressed=tuple(i for i in d.suppress_ids if i < self.target.config.vocab_len),
            repetition_penalty=repetition_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
        )
        return Request(
            ids=self._prompt_ids(prompt, messages, thinking, tools),
            sampling=sampling,
            num_logprobs=None if logprobs is None else whole("logprobs", logprobs, 0, 21),
            max_tokens=whole("max_tokens", max_tokens, 1, 1 << 31),
            horizon=parse_horizon(horizon),
            stop=_stops(stop),
            ignore_eos=ignore_eos,
            has_tools=tools is not None and len(tools) > 0,
        )

    def _stop_ids(self, has_tools: bool) -> frozenset[int]:
        """What the model's files name. With tools also the token after a call, where the model waits for a result and
        would make one up; not every release lists it (specification 1.2)."""
        waits = self.tokenizer.id_of(TOOL_RESPONSE) if has_tools else None
        return frozenset(self.defaults.eos_ids) | (frozenset() if waits is None else {waits})

    def _prompt_ids(
        self,
        prompt: str | Sequence[int] | None,
        messages: Sequence[Mapping[str, Any]] | None,
        thinking: bool | None,
        tools: Sequence[Mapping[str, Any]] | None,
    ) -> list[int]:
        if (prompt is None) == (messages is None):
            raise InputError("give either a prompt or messages, not both and not neither.")
        if messages is not None:
            ids = self.tokenizer.encode(self._rendered(messages, thinking, tools), add_bos=False)
        elif thinking is not None or tools is not None:
            raise InputError("thinking and tools are for messages, which the chat template turns into a prompt.")
        elif isinstance(prompt, str):
            ids = self.tokenizer.encode(_text(prompt), add_bos=True)
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

    def _rendered(self, messages: Sequence[Mapping[str, Any]], thinking: Any, tools: Any) -> str:
        """The prompt that the model's template makes of messages."""
        if not isinstance(messages, (list, tuple)):
            raise InputError(f"messages are {shown(messages)}, expected a list of them.")
        if self.chat_template is None:
            raise InputError(f"model {self.name} has no chat template. Give a plain prompt instead.")
        if not isinstance(thinking, (bool, type(None))):
            raise InputError(f"thinking is {shown(thinking)}, expected true, false or nothing.")
        if tools is not None:
            tools = check_tools(tools) if not isinstance(tools, (list, tuple)) or tools else None
        if lacks := self.chat_template.lacks(thinking, tools):
            raise InputError(" ".join(lacks) + " Ask without.")
        options: dict[str, Any] = {} if thinking is None else {"enable_thinking": thinking}
        if tools:
            options["tools"] = tools
        return self.chat_template.render(messages, **options)

    def _checked_id(self, token: Any, where: str) -> int:
        size = self.target.config.vocab_len
        try:
            value = -1 if isinstance(token, bool) else index(token)  # NumPy integers are welcome
        except TypeError:
            value = -1
        if not 0 <= value < size:
            raise InputError(f"token id {shown(token)} in {where}, expected a whole number from 0 to {size - 1}.")
        return value


def load(
    model: str | Path | None = None,
    *,
    drafter: str | Path = "auto",
    format: str = "auto",
    drafter_format: str = "q8",
    threads: int | None = None,
    chunk: int = 512,
    draft_clusters: int | None = None,
    draft_min_chance: float | None = None,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> Model:
    """Load a target and its drafter from Hugging Face folders; None is the pair that comes with Foretoken.

    drafter   "auto" (the pair's own, or a folder MODEL-assistant beside a model), "none", or a folder
    format    "f32", "bf16", "q8", "q4", or "auto" (q4 for files that are 4-bit already, else q8); also drafter_format
    threads   worker threads of this process, default one per core; chunk: prompt rows per pass
    draft_clusters    clusters the drafter scores; draft_min_chance: the least chance worth a row; None: automatic
    progress  called with bytes done and bytes in all while weights are packed
    warn      called with each plain sentence that the user should read once
    raises    ConfigError, WeightsError, InputError
    """
    _check_load(format, drafter_format, threads, chunk, draft_min_chance)
    warnings: list[str] = []

    def say(sentence: str) -> None:
        warnings.append(sentence)
        if warn is not None:
            warn(sentence)

    folder = ASSETS / "target" if model is None else _path("model", model)
    config = configs.load_target_config(folder)
    tokenizer = Tokenizer.from_folder(folder)
    if tokenizer.vocab_len > config.vocab_len:
        raise WeightsError(
            f"the tokenizer of {folder} has {tokenizer.vocab_len} ids, its config {config.vocab_len}. "
            "Use the tokenizer made for this model."
        )
    defaults = _defaults(folder, config)
    packed, info = weights.load(folder, config, format, native, progress)
    target = Gemma4(config, packed, native)
    opener = partial(_open_drafter, target, drafter_format, draft_clusters, say)
    proposer, state = _load_drafter(drafter, model, folder, opener, say)
    for sentence in info.warnings:
        say(sentence)
    known_by = (folder.name, info.format, info.packed_bytes, state.name, drafter_format, draft_clusters)
    return Model(
        name="embedded" if model is None else folder.name,
        target=target,
        tokenizer=tokenizer,
        chat_template=ChatTemplate.from_folder(folder),
        defaults=defaults,
        drafter=proposer,
        drafter_state=state,
        figures={"kind": config.model_type, **_sizes(info)},
        warnings=warnings,
        chunk=chunk,
        learned=_learned(known_by, tokenizer, draft_min_chance, say),
    )


def _learned(
    key: tuple[Any, ...], tokenizer: Tokenizer, min_chance: float | None, say: Callable[[str], None]
) -> Callable[[], Learned]:
    def is_event(token: int) -> bool:
        return begins_pattern(tokenizer.token_bytes(token))

    shelf = Shelf(weights.cache_dir(), is_event, parse_min_chance(min_chance), say)
    return lambda: shelf.get(*key, native.isa(), native.threads())  # of the moment: they may change


def _sizes(info: weights.Info) -> dict[str, Any]:
    return {"format": info.format, "parameters": info.parameters, "packed_bytes": info.packed_bytes}


def _defaults(folder: Path, config: configs.TargetConfig) -> configs.GenerationDefaults:
    defaults = configs.load_generation_defaults(folder, config.eos_ids)
    if len({i for i in defaults.suppress_ids if i < config.vocab_len}) == config.vocab_len:
        raise ConfigError(f"suppress_tokens of {folder} leaves no token to draw. Copy generation_config.json again.")
    return defaults


def _path(name: str, value: Any) -> Path:
    """An absolute path, so that "." has a name and a folder beside it."""
    if not isinstance(value, (str, Path)):
        raise InputError(f"{name} is {shown(value)}, expected the path of a folder.")
    return Path(os.path.abspath(value))


def _check_load(format: str, drafter_format: str, threads: int | None, chunk: int, min_chance: float | None) -> None:
    parse_min_chance(min_chance)
    for name, value in (("format", format), ("drafter_format", drafter_format)):
        if not isinstance(value, str) or value not in FORMATS:
            raise InputError(f"{name} is {shown(value)}, expected one of {', '.join(FORMATS)}.")
    whole("chunk", chunk, 1, 8193)
    if threads is not None:
        native.set_threads(whole("threads", threads, 1, 257))


def _load_drafter(
    asked: str | Path, model: str | Path | None, folder: Path, open: Opener, say: Callable[[str], None]
) -> tuple[Drafter | None, DrafterState]:
    """The drafter and its state. A drafter named by the user must fit; one found beside the model may fail, aloud."""
    if not isinstance(asked, (str, Path)):
        raise InputError(f"drafter is {shown(asked)}, expected auto, none or the path of a folder.")
    if asked == "none":
        return None, DrafterState("none", "off", "switched off with drafter none")
    if asked != "auto":
        return open(_path("drafter", asked), "named by the user")
    path = ASSETS / "drafter" if model is None else folder.with_name(folder.name + "-assistant")
    if not path.is_dir():
        return None, DrafterState("none", "off", f"no folder {path.name} beside the model")
    try:
        return open(path, "the embedded one" if model is None else "found beside the model")
    except (ConfigError, WeightsError) as error:
        say(f"drafting is off: {error}")
        return None, DrafterState(path.name, "off", str(error), fallback="drafter-mismatch")


def _open_drafter(
    target: Gemma4, format: str, clusters: int | None, say: Callable[[str], None], path: Path, reason: str
) -> tuple[Drafter, DrafterState]:
    config = configs.load_drafter_config(path, clusters)
    problems = configs.pairing_problems(target.config, config)
    if problems:
        raise WeightsError(
            f"drafter {path} does not fit this target: {'; '.join(problems)}. Use the drafter made for it."
        )
    packed, info = weights.load(path, config, format, native, None)
    for sentence in info.warnings:
        say(sentence)
    return MtpDrafter(Assistant(config, packed, target, native)), DrafterState(path.name, "on", reason)


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


def _text(prompt: str) -> str:
    if not _is_unicode(prompt):
        raise InputError("the prompt is not valid UTF-8 text.")
    if not prompt:
        raise InputError("the prompt is empty. Give at least one character.")
    return prompt
