"""What a program calls: `load` a model, then `generate` or `stream`. Wires every layer together; decides no token.

model = foretoken.load()                       # the embedded pair, a Hugging Face folder, or a name on the hub
print(model.generate("Once", max_tokens=20).text)
for event in model.stream(messages=[{"role": "user", "content": "Define «salt»."}]):
    print(event.text, end="", flush=True)
"""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Never, Unpack, overload

from foretoken import config as configs
from foretoken import engine, places, weights
from foretoken.cache import Cache, PagePool
from foretoken.chat import ChatTemplate
from foretoken.drafters.protocol import Drafter, DrafterState
from foretoken.errors import ConfigError, InputError, WeightsError, shown
from foretoken.horizon import Learned, Shelf, Tuned, event_of, parse_min_chance
from foretoken.models.gemma4 import Gemma4
from foretoken.ops import NUMERICS_VERSION, native
from foretoken.pairing import Beside, find_drafter, named_sources
from foretoken.prefix import PrefixStore
from foretoken.request import (
    DEFAULTS,
    Checker,
    Ids,
    Messages,
    Options,
    Request,
    Text,
    refuse_unknown,
    texts_of,
    with_options,
)
from foretoken.sampling import SEED_LIMIT, Sampler, answer_seed, whole
from foretoken.scheduler import Scheduler
from foretoken.source import Source, open_source
from foretoken.stream import Answer, Event, Result, Stream
from foretoken.tokenizer import TOOL_RESPONSE, Tokenizer

MAX_PARALLEL = 1024  # answers in one pass
FORMATS = ("auto", *weights.FORMATS)
ASSETS = places.ASSETS
Progress = Callable[[int, int], None]


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
        tuned: Tuned | None = None,
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
        self.tuned = tuned or Tuned(None)
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
            "drafter": state.as_dict(),
            "isa": native.isa(),
            "threads": native.threads(),
            "numerics": NUMERICS_VERSION,
            "warnings": self.warnings,
        }

    @overload
    def generate(
        self,
        prompt: list[str] | tuple[str, ...] | Sequence[Ids] | Sequence[Messages],
        *,
        each: Sequence[Options] | None = None,
        **options: Unpack[Options],
    ) -> list[Result]: ...
    @overload
    def generate(self, prompt: Text | None = None, *, n: int, **options: Unpack[Options]) -> list[Result]: ...
    @overload
    def generate(self, prompt: Text | None = None, **options: Unpack[Options]) -> Result: ...

    @with_options
    def generate(self, prompt: Any = None, *, n: int | None = None, each: Any = None, **options: Any) -> Any:
        """The whole answer at once, or one per text for a list of texts, which are written together.

        prompt   text to continue, token ids taken as they are, a conversation as `messages`, or a list of such texts
        n        so many answers to one text, with seeds derived from `seed`
        each     for a list of texts: options of each one, which go before those for all
        returns  `Result`; a list of them in the order of the texts, or of n, where there are several
        raises   InputError for anything that cannot be honoured
        """
        refuse_unknown(options, (*DEFAULTS, "n", "each"))
        texts = [] if isinstance(prompt, (list, tuple)) and not prompt else texts_of(prompt, options.get("messages"))
        if texts is not None:
            if n is not None:
                raise InputError("n is for one text. Give a list of texts, or n, not both.")
            if prompt is None:
                del options["messages"]
            own = _each(each, texts)
            return self._generate_all([(t, {**options, **o}) for t, o in zip(texts, own, strict=True)], "text")
        if each is not None:
            raise InputError("each is for a list of texts. Give the options of one text by their names.")
        if n is not None:
            seed = options.pop("seed", None)
            seed = whole("seed", secrets.randbits(63) if seed is None else seed, 0, SEED_LIMIT)
            seeds = [answer_seed(seed, i) for i in range(whole("n", n, 1, 129))]
            return self._generate_all([(prompt, {**options, "seed": s}) for s in seeds], "answer")
        stream = self.stream(prompt, **options)
        for _ in stream:
            pass
        return stream.result

    def _generate_all(self, requests: Sequence[tuple[Any, dict[str, Any]]], kind: str) -> list[Result]:
        """All at once. What prompts have in common at their beginning is read once."""
        if not requests:
            return []
        with self.scheduler(min(len(requests), MAX_PARALLEL)) as scheduler:
            answers: list[Answer] = []
            for prompt, options in requests:
                try:
                    answers.append(scheduler.submit(prompt, **options))
                except InputError as error:
                    raise InputError(f"{kind} {len(answers) + 1} of {len(requests)}: {error}") from error
            for _ in scheduler:
                pass
        return [answer.result for answer in answers]

    @with_options
    def stream(self, prompt: Text | None = None, **options: Unpack[Options]) -> Stream:
        """Begin an answer; iterate over its events, then look at `result`.

        prompt   text to continue, token ids taken as they are, or a conversation as `messages`
        raises   InputError for anything that cannot be honoured
        """
        return self.start(self._request(prompt, **options), self.chunk, self.drafter)

    @with_options
    def prompt_len(self, prompt: Text | None = None, **options: Unpack[Options]) -> int:
        """Tokens of a prompt as `stream` would take it; raises InputError for anything that `stream` would refuse."""
        return len(self._request(prompt, **options).ids)

    def scheduler(self, parallel: int = 8, prefix_bytes: int = 256 << 20) -> Scheduler:
        """A place where up to `parallel` answers are written together, in passes that they share.

        prefix_bytes  memory for prompts and answers that later prompts may begin with; 0 keeps none
        """
        parallel = whole("parallel", parallel, 1, MAX_PARALLEL + 1)
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
            stop_ids=frozenset() if request.ignore_eos else self._stop_ids(request.has_tools),
        )
        sequence.trace, sequence.no_drafter = self.trace, self.drafter_state.fallback
        sequence.stats.hint = self.tuned.hint
        sequence.no_room = "budget" if sequence.end < self.context_len else "context-end"
        return Answer(sequence, self.tokenizer, request.stop, request.sampling.seed)

    def _request(self, prompt: Any = None, **options: Any) -> Request:
        """What a caller asks for, checked."""
        vocab_len = self.target.config.vocab_len
        checker = Checker(self.name, self.tokenizer, self.chat_template, self.defaults, vocab_len, self.context_len)
        return checker.request(prompt, options)

    def _stop_ids(self, has_tools: bool) -> frozenset[int]:
        """Tokens that the model's files name. With tools also the one after a call, where the model waits for a result
        and would make one up; not every release lists it (specification 1.2)."""
        waits = self.tokenizer.id_of(TOOL_RESPONSE) if has_tools else None
        named = (*self.defaults.eos_ids, *(() if waits is None else (waits,)))
        return frozenset(token for token in named if token < self.target.config.vocab_len)


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
    **unknown: Never,
) -> Model:
    """Load a target and its drafter; None is the pair that comes with Foretoken.

    model     a Hugging Face folder, a GGUF file, or a name on the hub, fetched where it is not here (`places.find`)
    drafter   "auto", "suffix", "none", as model, or several as "a=PATH,b=PATH,suffix": `pairing.find_drafter`
    format    "f32", "bf16", "q8", "q4", or "auto" (q4 for what is 4-bit already, else q8); also drafter_format
    threads   worker threads of this process, default one per core; `chunk` prompt rows go through a pass
    draft_clusters    clusters the drafter scores; draft_min_chance: the least chance worth a row; None: automatic
    progress  called with bytes done and bytes in all while weights are packed
    warn      called with each plain sentence that the user should read once
    raises    ConfigError, WeightsError, InputError
    """
    _check_load(format, drafter_format, threads, chunk, draft_min_chance, unknown)
    warnings, say = _said(warn)
    named = named_sources(drafter, warn)
    place, own = places.find(model, drafter == "auto", warn)
    source = open_source(place.where)
    config, tokenizer = source.target_config(), source.tokenizer()
    defaults = _defaults(source, config, tokenizer)
    packed, info = weights.load(source.checkpoint(), config, format, native, progress)
    target = Gemma4(config, packed, native)
    tuned = Tuned(weights.cache_dir(), info.fingerprint, native.isa(), native.threads())
    beside = Beside(target, tokenizer, own, drafter_format, draft_clusters, say, tuned.clusters)
    proposer, state = find_drafter(drafter, named, beside)
    tuned.load(info.format, beside.drafters)
    if draft_min_chance is not None and proposer is None:
        say(f"draft_min_chance {draft_min_chance} has no effect: drafting is {state.reason}.")
    list(map(say, (*info.warnings, *tuned.problems)))
    known_by = (info.format, info.fingerprint, state.sources, *beside.drafters.items(), drafter_format)
    return Model(
        name=place.name,
        target=target,
        tokenizer=tokenizer,
        chat_template=source.chat_template(),
        defaults=defaults,
        drafter=proposer,
        drafter_state=state,
        figures={"kind": config.model_type, **_sizes(info)},
        warnings=warnings,
        chunk=chunk,
        learned=_learned(known_by, tokenizer, draft_min_chance, say),
        tuned=tuned,
    )


def _said(warn: Callable[[str], None] | None) -> tuple[list[str], Callable[[str], None]]:
    """A list of sentences, and what adds one to it and passes it on."""
    warnings: list[str] = []

    def say(sentence: str) -> None:
        warnings.append(sentence)
        if warn is not None:
            warn(sentence)

    return warnings, say


def _learned(
    key: tuple[Any, ...], tokenizer: Tokenizer, min_chance: float | None, say: Callable[[str], None]
) -> Callable[[], Learned]:
    def event(token: int) -> int:
        return event_of(tokenizer.token_bytes(token))

    shelf = Shelf(weights.cache_dir(), event, parse_min_chance(min_chance), say)
    return lambda: shelf.get(*key, native.isa(), native.threads())  # of the moment: they may change


def _sizes(info: weights.Info) -> dict[str, Any]:
    return {"format": info.format, "parameters": info.parameters, "packed_bytes": info.packed_bytes}


def _defaults(source: Source, config: configs.TargetConfig, tokenizer: Tokenizer) -> configs.GenerationDefaults:
    if tokenizer.vocab_len > config.vocab_len:
        raise WeightsError(
            f"the tokenizer of {source.path} has {tokenizer.vocab_len} ids, its config {config.vocab_len}. "
            "Use the tokenizer made for this model."
        )
    defaults = source.generation_defaults(config.eos_ids)
    if len({i for i in defaults.suppress_ids if i < config.vocab_len}) == config.vocab_len:
        raise ConfigError(f"suppress_tokens of {source.path} leaves no token to draw. Copy the model's files again.")
    return defaults


def _check_load(
    format: str,
    drafter_format: str,
    threads: int | None,
    chunk: int,
    min_chance: float | None,
    unknown: Mapping[str, Any],
) -> None:
    refuse_unknown(unknown, [name for name in inspect.signature(load).parameters if name != "unknown"])
    parse_min_chance(min_chance)
    for name, value in (("format", format), ("drafter_format", drafter_format)):
        if not isinstance(value, str) or value not in FORMATS:
            raise InputError(f"{name} is {shown(value)}, expected one of {', '.join(FORMATS)}.")
    whole("chunk", chunk, 1, 8193)
    if threads is not None:
        native.set_threads(whole("threads", threads, 1, 257))


def _each(each: Any, texts: Sequence[Any]) -> list[Mapping[str, Any]]:
    """Options of each text of several; nothing where there are none of its own."""
    if each is None:
        return [{} for _ in texts]
    if not isinstance(each, (list, tuple)) or not all(isinstance(own, Mapping) for own in each):
        raise InputError(f"each is {shown(each)}, expected a list with a mapping of options per text.")
    if len(each) != len(texts):
        raise InputError(f"each has {len(each)} entries for {len(texts)} texts. Give one for each text.")
    return list(each)
