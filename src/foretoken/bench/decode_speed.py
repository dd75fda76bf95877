"""`foretoken bench decode`: drafted against plain decoding by domain: same text or not, how fast, best horizon."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import mean
from time import perf_counter
from typing import Any

from foretoken.api import Model
from foretoken.bench.loops import is_loop
from foretoken.bench.prompts import Prompts
from foretoken.bench.timing import interleaved
from foretoken.errors import InputError
from foretoken.horizon import parse_horizon
from foretoken.ops import native

PLAIN = "0"
Progress = Callable[[int, int], None]


@dataclass
class _Runs:
    """What one prompt gave: median seconds and figures by horizon; `tokens` are the plain answer's."""

    tokens: list[int]
    is_same: bool
    seconds: dict[str, float] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)
    rounds: dict[str, int] = field(default_factory=dict)
    timed_tokens: int = 0  # without those of the prompt's own row

    @property
    def is_kept(self) -> bool:
        return self.timed_tokens > 0 and not is_loop(self.tokens)


def measure(
    model: Model,
    prompts: Prompts,
    horizons: Sequence[str],
    max_tokens: int,
    repeats: int,
    told: Progress | None = None,
) -> dict[str, Any]:
    """The fields of `bench decode --json` (design section 8); greedy, times without the prompt.

    Answers that fall into a loop are counted, compared, and left out of times. `fixed_horizon` is the number whose
    mean over domains is best; `mean_speedup` and `best_speedup` are the mean and the best domain at it.
    """
    check_horizons(horizons)
    if model.drafter is None:
        raise InputError(f"drafting is off: {model.drafter_state.reason}. Name a drafter with --drafter.")
    done, whole = 0, sum(map(len, prompts.values()))
    domains = {}
    for domain, own in prompts.items():
        runs = []
        for prompt in own:
            runs.append(_run(model, prompt, horizons, max_tokens, repeats, has_warm_up=not done))
            done += 1
            if told is not None:
                told(done, whole)
        domains[domain] = _figures(runs, horizons)
    means = _means(domains, horizons)
    fixed = {h: value for h, value in means.items() if h.isdigit() and value is not None}
    best = max(fixed, key=lambda h: fixed[h], default=None)
    speedups = [d["speedup"][best] for d in domains.values() if best is not None and d["speedup"][best] is not None]
    return {
        "model": model.name,
        "format": model.info()["format"],
        "isa": native.isa(),
        "threads": native.threads(),
        "max_tokens": max_tokens,
        "repeats": repeats,
        "domains": domains,
        "mean_by_horizon": means,
        "fixed_horizon": best,
        "mean_speedup": mean(speedups) if speedups else None,
        "best_speedup": max(speedups, default=None),
    }


def check_horizons(horizons: Sequence[str]) -> None:
    """Raise InputError for a horizon that does not exist, or where plain decoding is missing."""
    for horizon in horizons:
        parse_horizon(horizon)
    if PLAIN not in horizons:
        raise InputError(f"horizons {','.join(horizons)} lack 0, plain decoding, which the others are compared with.")


def _run(
    model: Model, prompt: dict[str, Any], horizons: Sequence[str], max_tokens: int, repeats: int, has_warm_up: bool
) -> _Runs:
    answers: dict[str, list[list[int]]] = {horizon: [] for horizon in horizons}
    rounds: dict[str, int] = {}
    first_len = 0

    def write(horizon: str) -> float:
        nonlocal first_len
        stream = model.stream(
            **prompt, horizon=horizon, max_tokens=max_tokens, temperature=0.0, top_k=0, top_p=1.0, seed=0
        )
        first_len = len(next(stream).tokens)  # drawn from the prompt's last row
        started = perf_counter()
        for _ in stream:
            pass
        seconds = perf_counter() - started
        answers[horizon].append(stream.result.tokens)
        rounds[horizon] = stream.result.stats.rounds
        return seconds

    times = interleaved({h: partial(write, h) for h in horizons}, repeats, has_warm_up=has_warm_up)
    plain = answers[PLAIN][0]
    return _Runs(
        tokens=plain,
        is_same=all(tokens == plain for found in answers.values() for tokens in found),
        seconds={h: own.ms / 1e3 for h, own in times.items()},
        spread={h: own.spread for h, own in times.items()},
        rounds=rounds,
        timed_tokens=len(plain) - first_len,
    )


def _figures(runs: Sequence[_Runs], horizons: Sequence[str]) -> dict[str, Any]:
    """Of one domain; None where every answer was a loop."""
    kept = [run for run in runs if run.is_kept]
    tokens = sum(run.timed_tokens for run in kept)
    seconds = {h: sum(run.seconds[h] for run in kept) for h in horizons}
    rounds = {h: sum(run.rounds[h] for run in kept) for h in horizons}
    speedup = {h: seconds[PLAIN] / seconds[h] if tokens else None for h in horizons}
    best = max(horizons, key=lambda h: speedup[h] or 0.0) if tokens else None
    per_round = {h: tokens / rounds[h] if rounds[h] else None for h in horizons}
    return {
        "answers": len(runs),
        "loops": sum(is_loop(run.tokens) for run in runs),
        "tokens": tokens,
        "plain_tok_per_s": tokens / seconds[PLAIN] if tokens else None,
        "speedup": speedup,
        "best_horizon": best,
        "tokens_per_round": per_round[best] if best is not None else None,
        "tokens_per_round_by_horizon": per_round,
        "spread": {h: mean(run.spread[h] for run in kept) if kept else None for h in horizons},
        "same_text": all(run.is_same for run in runs),
    }


def _means(domains: dict[str, Any], horizons: Sequence[str]) -> dict[str, float | None]:
    """Mean speed-up over domains by horizon."""
    found = {h: [d["speedup"][h] for d in domains.values() if d["speedup"][h] is not None] for h in horizons}
    return {h: mean(values) if values else None for h, values in found.items()}
