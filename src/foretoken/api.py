"""What a program calls: `load` a model, then `generate` or `stream`. Wires every layer together; decides no token.

model = foretoken.load()                       # the embedded pair, or a Hugging Face folder
print(model.generate("Once", max_tokens=20).text)
for event in model.stream(messages=[{"role": "user", "content": "Define «salt»."}]):
    print(event.text, end="", flush=True)
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretoken import config as configs
from foretoken import engine, horizon, weights
from foretoken.cache import Cache
from foretoken.chat import ChatTemplate
from foretoken.drafters.mtp import MtpDrafter
from foretoken.drafters.protocol import Drafter
from foretoken.errors import ConfigError, InputError, WeightsError
from foretoken.models.gemma4 import Gemma4
from foretoken.models.gemma4_assistant import Assistant
from foretoken.ops import NUMERICS_VERSION, native
from foretoken.sampling import Sampler, Sampling
from foretoken.stream import Result, Stream
from foretoken.tokenizer import TextStream, Tokenizer

FORMATS = ("auto", *weights.FORMATS)
ASSETS = Path(__file__).parent / "assets"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class DrafterState:
    """Whether drafts are made, by what, and why or why not; nothing falls back in silence."""

    name: str
    state: str  # "on" or "off"
    reason: str


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
        self._figures = figures

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

    def generate(self, prompt: str | Sequence[int] | None = None, **options: Any) -> Result:
        """The whole answer at once; options as in `stream`."""
        stream = self.stream(prompt, **options)
        for _ in stream:
            pass
        return stream.result

    def stream(
        self,
        prompt: str | Sequence[int] | None = None,
        *,
        messages: Sequence[dict[str, Any]] | None = None,
        max_tokens: int = 256,
        horizon: int | str = "auto",
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
        ignore_eos: bool = False,
    ) -> Stream:
        """Begin an answer.

        prompt      text to continue, or token ids taken as they are; or else
        messages    chat turns, rendered by the model's own template
        max_tokens  the answer has at most so many tokens, never more
        horizon     draft tokens per round: "auto", "short", "long" or 0 … 16; it changes the time, never the text
        seed        with none given one is drawn and reported; same seed, same answer
        stop        strings that end the answer; they and what follows are not emitted
        raises      InputError for anything that cannot be honoured
        """
        sampling = self._sampling(temperature, top_k, top_p, min_p, seed)
        ids = self._prompt_ids(prompt, messages)
        limit = _horizon(horizon)
        return self.start(
            ids, sampling, _max_tokens(max_tokens), limit, _stops(stop), ignore_eos, self.chunk, self.drafter
        )

    def start(
        self,
        ids: list[int],
        sampling: Sampling,
        max_tokens: int,
        horizon_limit: int,
        stop: Sequence[str],
        ignore_eos: bool,
        chunk: int,
        drafter: Drafter | None,
    ) -> Stream:
        """Begin an answer from checked parts; `stream` and the self-test come through here."""
        end = min(len(ids) + max_tokens, self.context_len)
        runner = engine.Engine(self.target, chunk)
        sequence = engine.Sequence(
            ids,
            cache=Cache(runner.pool(end)),
            sampler=Sampler(sampling, self.target.ops),
            drafter=drafter,
            horizon=horizon.FixedHorizon(horizon_limit),
            end=end,
        )
        stop_ids = frozenset() if ignore_eos else frozenset(self.defaults.eos_ids)
        return Stream(runner, sequence, TextStream(self.tokenizer, stop), stop_ids, sampling.seed)

    def _sampling(
        self, temperature: float | None, top_k: int | None, top_p: float | None, min_p: float | None, seed: int | None
    ) -> Sampling:
        d = self.defaults
        return Sampling(
            temperature=d.temperature if temperature is None else temperature,
            top_k=d.top_k if top_k is None else top_k,
            top_p=d.top_p if top_p is None else top_p,
            min_p=0.0 if min_p is None else min_p,
            seed=secrets.randbits(63) if seed is None else seed,
        )

    def _prompt_ids(self, prompt: str | Sequence[int] | None, messages: Sequence[dict[str, Any]] | None) -> list[int]:
        if (prompt is None) == (messages is None):
            raise InputError("give either a prompt or messages, not both and not neither.")
        if messages is not None:
            if self.chat_template is None:
                raise InputError(f"model {self.name} has no chat template. Give a plain prompt instead.")
            ids = self.tokenizer.encode(self.chat_template.render(messages), add_bos=False)
        elif isinstance(prompt, str):
            ids = self.tokenizer.encode(_text(prompt), add_bos=True)
        else:
            ids = [self._checked_id(token) for token in prompt or ()]
        if not ids:
            raise InputError("the prompt is empty. Give at least one character.")
        if len(ids) >= self.context_len:
            raise InputError(
                f"the prompt has {len(ids)} tokens, the context of {self.name} is {self.context_len}. "
                f"Shorten it to {self.context_len - 1} tokens or fewer."
            )
        return ids

    def _checked_id(self, token: Any) -> int:
        size = self.target.config.vocab_len
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < size:
            raise InputError(f"token id {token!r} in the prompt, expected a whole number from 0 to {size - 1}.")
        return token


def load(
    model: str | Path | None = None,
    *,
    drafter: str | Path = "auto",
    format: str = "auto",
    drafter_format: str = "q8",
    threads: int | None = None,
    chunk: int = 512,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> Model:
    """Load a target and its drafter from Hugging Face folders; None is the pair that comes with Foretoken.

    drafter   "auto" (the pair's own, or a folder MODEL-assistant beside a model), "none", or a folder
    format    "f32", "bf16", "q8", "q4", or "auto" (q4 for files that are 4-bit already, else q8); also drafter_format
    threads   worker threads of this process, default one per core
    chunk     prompt rows per pass
    progress  called with bytes done and bytes in all while weights are packed
    warn      called with each plain sentence that the user should read once
    raises    ConfigError, WeightsError, InputError
    """
    _check_load(format, drafter_format, threads, chunk)
    warnings: list[str] = []

    def say(sentence: str) -> None:
        warnings.append(sentence)
        if warn is not None:
            warn(sentence)

    folder = ASSETS / "target" if model is None else Path(model)
    config = configs.load_target_config(folder)
    tokenizer = Tokenizer.from_folder(folder)
    if tokenizer.vocab_len > config.vocab_len:
        raise WeightsError(
            f"the tokenizer of {folder} has {tokenizer.vocab_len} ids, its config {config.vocab_len}. "
            "Use the tokenizer made for this model."
        )
    packed, info = weights.load(folder, config, format, native, progress)
    target = Gemma4(config, packed, native)
    proposer, state = _load_drafter(drafter, model, folder, target, drafter_format, say)
    for sentence in info.warnings:
        say(sentence)
    return Model(
        name="embedded" if model is None else folder.name,
        target=target,
        tokenizer=tokenizer,
        chat_template=ChatTemplate.from_folder(folder),
        defaults=configs.load_generation_defaults(folder),
        drafter=proposer,
        drafter_state=state,
        figures={
            "kind": config.model_type,
            "format": info.format,
            "parameters": info.parameters,
            "packed_bytes": info.packed_bytes,
        },
        warnings=warnings,
        chunk=chunk,
    )


def _check_load(format: str, drafter_format: str, threads: int | None, chunk: int) -> None:
    for name, value in (("format", format), ("drafter_format", drafter_format)):
        if value not in FORMATS:
            raise InputError(f"{name} is {value!r}, expected one of {', '.join(FORMATS)}.")
    if isinstance(chunk, bool) or not isinstance(chunk, int) or not 1 <= chunk <= 8192:
        raise InputError(f"chunk is {chunk!r}, expected a whole number from 1 to 8192.")
    if threads is not None:
        if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 256:
            raise InputError(f"threads is {threads!r}, expected a whole number from 1 to 256.")
        native.set_threads(threads)


def _load_drafter(
    asked: str | Path, model: str | Path | None, folder: Path, target: Gemma4, format: str, say: Callable[[str], None]
) -> tuple[Drafter | None, DrafterState]:
    """The drafter and its state. A drafter named by the user must fit; one found beside the model may fail, aloud."""
    if asked == "none":
        return None, DrafterState("none", "off", "switched off with drafter none")
    if asked != "auto":
        return _open_drafter(Path(asked), target, format, "named by the user", say)
    path = ASSETS / "drafter" if model is None else folder.with_name(folder.name + "-assistant")
    if not path.is_dir():
        return None, DrafterState("none", "off", f"no folder {path.name} beside the model")
    try:
        return _open_drafter(
            path, target, format, "the embedded one" if model is None else "found beside the model", say
        )
    except (ConfigError, WeightsError) as error:
        say(f"drafting is off: {error}")
        return None, DrafterState(path.name, "off", str(error))


def _open_drafter(
    path: Path, target: Gemma4, format: str, reason: str, say: Callable[[str], None]
) -> tuple[Drafter, DrafterState]:
    config = configs.load_drafter_config(path)
    problems = configs.pairing_problems(target.config, config)
    if problems:
        raise WeightsError(
            f"drafter {path} does not fit this target: {'; '.join(problems)}. Use the drafter made for it."
        )
    packed, info = weights.load(path, config, format, native, None)
    for sentence in info.warnings:
        say(sentence)
    return MtpDrafter(Assistant(config, packed, target, native)), DrafterState(path.name, "on", reason)


def _horizon(value: int | str) -> int:
    return horizon.parse_horizon(value)


def _max_tokens(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"max_tokens is {value!r}, expected a whole number of at least 1.")
    return value


def _stops(value: Sequence[str]) -> tuple[str, ...]:
    stops = (value,) if isinstance(value, str) else tuple(value)
    for stop in stops:
        if not isinstance(stop, str) or not stop:
            raise InputError(f"stop is {stop!r}, expected a text of at least one character.")
    return stops


def _text(prompt: str) -> str:
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError("the prompt is not valid UTF-8 text.") from error
    if not prompt:
        raise InputError("the prompt is empty. Give at least one character.")
    return prompt
