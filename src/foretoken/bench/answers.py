"""Greedy answers with their time, which is what `bench decode`, `tune` and the peers compare."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Any

from foretoken.api import Model
from foretoken.bench.prompts import Prompts
from foretoken.errors import DraftError, InputError
from foretoken.stream import Result

PLAIN, AUTO = "0", "auto"  # the horizons of plain decoding and of the planner


@dataclass(frozen=True)
class Timed:
    """An answer; its time and `timed_tokens` are without what the prompt's own row gave."""

    result: Result
    timed_tokens: int
    seconds: float


def timed(model: Model, horizon: str, max_tokens: int, prompt: Any = None, **options: Any) -> Timed:
    """One greedy answer; prompt or messages as in `Model.stream`. Raises DraftError where a drafter failed in it."""
    stream = model.stream(
        prompt, **options, horizon=horizon, max_tokens=max_tokens, temperature=0.0, top_k=0, top_p=1.0, seed=0
    )
    first_len = len(next(stream).tokens)  # drawn from the prompt's last row
    started = perf_counter()
    for _ in stream:
        pass
    seconds = perf_counter() - started
    if (error := stream.result.stats.drafter_error) is not None:
        raise DraftError(f"a drafter failed ({error}): from there on this would be plain decoding.")
    return Timed(stream.result, len(stream.result.tokens) - first_len, seconds)


def require_drafter(model: Model) -> None:
    """Raise InputError where nothing drafts, so that there is nothing to compare."""
    if model.drafter is None:
        raise InputError(f"drafting is off: {model.drafter_state.reason}. Name a drafter with --drafter.")


def require_prompts(model: Model, prompts: Prompts) -> None:
    """Raise InputError for prompts that the model cannot take, before anything is measured."""
    domains = [domain for domain, own in prompts.items() if any("messages" in prompt for prompt in own)]
    if model.chat_template is None and domains:
        raise InputError(
            f"model {model.name} has no chat template, and prompts of {', '.join(domains)[:80]} are conversations. "
            'Give --prompts with lines like {"text": "Once upon a time"}; a checkout has bench/prompts/continuation.'
        )
    for domain, own in prompts.items():
        for number, prompt in enumerate(own, 1):
            try:
                model.prompt_len(**prompt)
            except InputError as error:
                raise InputError(f"prompt {number} of {domain}: {error}") from error
