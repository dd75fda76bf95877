"""`foretoken tune`: what pays on these prompts (horizon, clusters of the drafter, format), and what auto reached.

Every prompt is answered at all horizons in turn. Calibration is that of `auto` in its first answers to every second
prompt, which nobody has answered before. What the planner learned is kept for later starts, as after every run, and so
is which clusters and which format were fastest (`foretoken.horizon.tuned`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import mean
from typing import Any

from foretoken.api import Model
from foretoken.bench.answers import AUTO, PLAIN, require_drafter, require_prompts, timed
from foretoken.bench.calibration import calibration_error, error_by_chance, foretold
from foretoken.bench.loops import is_loop
from foretoken.bench.prompts import Prompts
from foretoken.bench.timing import interleaved
from foretoken.horizon import NAMED, parse_horizon
from foretoken.stats import REJECTION_LIMIT, Stats

Progress = Callable[[int, int], None]


@dataclass
class _Case:
    """One horizon over all prompts."""

    seconds: float = 0.0
    tokens: int = 0
    stats: Stats = field(default_factory=Stats)

    def figures(self, plain_tok_per_s: float | None) -> dict[str, Any]:
        speed = self.tokens / self.seconds if self.seconds else None
        drafted = self.stats.drafted_by_position
        kept = zip(self.stats.accepted_by_position, drafted, strict=True)
        return {
            "tok_per_s": speed,
            "speedup": speed / plain_tok_per_s if speed and plain_tok_per_s else None,
            "rejection_rate": self.stats.rejection_rate,
            "tokens_per_round": self.stats.tokens_per_round,
            "accepted_by_position": [a / d for a, d in kept if d],
            "horizon_rounds": {str(k): n for k, n in sorted(self.stats.horizon_rounds.items())},
            "fallbacks": self.stats.fallbacks,
        }


def check_horizons(horizons: Sequence[str]) -> list[str]:
    """The horizons to compare, 0 and auto among them, numbers first; raises InputError for one that does not exist."""
    parsed = {parse_horizon(horizon) for horizon in horizons} - {AUTO}
    numbers = sorted({int(PLAIN), *(h for h in parsed if isinstance(h, int))})
    names = [h for h in NAMED if h in parsed]
    return [*map(str, numbers), *names, AUTO]


def measure(
    models: Sequence[tuple[dict[str, Any], Callable[[], Model]]],
    prompts: Prompts,
    horizons: Sequence[str],
    max_tokens: int,
    repeats: int,
    told: Progress | None = None,
) -> dict[str, Any]:
    """Every way to load the model, one after the other, so that one is in memory at a time.

    models   what to call each, such as {"format": "q8", "draft_clusters": None}, and how to load it
    returns  settings (a dict each: the name's fields, by_horizon, best_horizon, domains, calibration_error, …), and
             sweet_spot: the fields and the horizon of the fastest
    """
    settings: list[dict[str, Any]] = []
    whole = len(models) * sum(map(len, prompts.values()))
    for name, load in models:
        model = load()
        require_drafter(model)
        require_prompts(model, prompts)
        before = len(settings) * sum(map(len, prompts.values()))
        found = _setting(model, prompts, horizons, max_tokens, repeats, partial(_passed_on, told, before, whole))
        settings.append({**name, "format": model.info()["format"], **found})
        model.trace, model_name, tuned = None, model.name, model.tuned
        del model  # before the next one is loaded
    tuned.keep(settings)
    return {"model": model_name, "max_tokens": max_tokens, "settings": settings, "sweet_spot": _sweet_spot(settings)}


def _sweet_spot(settings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Fields, horizon and speed of the fastest, by what it gains over plain runs, which no number of clusters changes:
    a format that was measured with several has as many plain speeds, and their mean counts."""
    plain: dict[str, list[float]] = {}
    for setting in settings:
        plain.setdefault(setting["format"], []).append(setting["by_horizon"][PLAIN]["tok_per_s"] or 0.0)
    gains = {
        (i, horizon): (own["speedup"] or 0.0) * mean(plain[setting["format"]])
        for i, setting in enumerate(settings)
        for horizon, own in setting["by_horizon"].items()
        if horizon not in setting["noise"]
    }
    i, horizon = max(gains, key=gains.__getitem__)
    spot = {key: settings[i][key] for key in ("format", "draft_clusters")}
    return spot | {"horizon": horizon, "tok_per_s": settings[i]["by_horizon"][horizon]["tok_per_s"]}


def _passed_on(told: Progress | None, before: int, whole: int, done: int) -> None:
    if told is not None:
        told(before + done, whole)


def _setting(
    model: Model,
    prompts: Prompts,
    horizons: Sequence[str],
    max_tokens: int,
    repeats: int,
    told: Callable[[int], None],
) -> dict[str, Any]:
    """One way to load the model, over all prompts; answers that fall into a loop are left out."""
    cases = {horizon: _Case() for horizon in horizons}
    by_domain: dict[str, dict[str, _Case]] = {domain: {h: _Case() for h in horizons} for domain in prompts}
    rounds: list[dict[str, Any]] = []  # of auto on held-out prompts
    is_same, loops = True, 0
    for number, (domain, prompt) in enumerate(_each(prompts)):
        order = horizons[:: -1 if number % 2 else 1]  # or the first one would pay for what is new in every prompt
        runs = _run(model, prompt, order, max_tokens, repeats, has_warm_up=not number)
        answers = {tuple(run.tokens) for run in runs.values()}
        is_same = is_same and len(answers) == 1
        if any(map(is_loop, answers)):
            loops += 1
        else:
            for horizon, run in runs.items():
                for case in (cases[horizon], by_domain[domain][horizon]):
                    case.seconds += run.seconds
                    case.tokens += run.timed_tokens
                    case.stats.merge(run.stats)
            if number % 2:
                rounds += runs[AUTO].rounds
        told(number + 1)
    plain = _speed(cases[PLAIN])
    figures = {horizon: case.figures(plain) for horizon, case in cases.items()}
    chances, outcomes = foretold(rounds)
    return {
        "by_horizon": figures,
        "hopeless": next((case.stats.hopeless for case in cases.values() if case.stats.hopeless), ""),
        "noise": [h for h, own in figures.items() if h != PLAIN and _is_noise(own)],
        "best_horizon": _best(figures, horizons),
        "domains": {domain: _domain(own, horizons) for domain, own in by_domain.items()},
        "calibration_error": calibration_error(chances, outcomes),
        "calibration_error_by_chance": error_by_chance(chances),
        "calibration_tokens": len(chances),
        "same_text": is_same,
        "loops": loops,
    }


@dataclass
class _Run:
    """One answer at one horizon: seconds without the prompt, the median of its repeats."""

    tokens: list[int]
    timed_tokens: int
    stats: Stats
    rounds: list[dict[str, Any]]
    seconds: float = 0.0


def _run(
    model: Model, prompt: dict[str, Any], horizons: Sequence[str], max_tokens: int, repeats: int, has_warm_up: bool
) -> dict[str, _Run]:
    found: dict[str, _Run] = {}

    def write(horizon: str) -> float:
        rounds: list[dict[str, Any]] = []
        model.trace = rounds.append if horizon == AUTO else None
        answer = timed(model, horizon, max_tokens, **prompt)
        rounds = found[horizon].rounds if horizon in found else rounds  # later ones know the answer
        found[horizon] = _Run(answer.result.tokens, answer.timed_tokens, answer.result.stats, rounds)
        return answer.seconds

    times = interleaved({h: partial(write, h) for h in horizons}, repeats, has_warm_up=has_warm_up)
    for horizon, own in times.items():
        found[horizon].seconds = own.ms / 1e3
    return found


def _domain(own: dict[str, _Case], horizons: Sequence[str]) -> dict[str, Any]:
    figures = {horizon: case.figures(_speed(own[PLAIN])) for horizon, case in own.items()}
    return {"speedup": {h: figures[h]["speedup"] for h in horizons}, "best_horizon": _best(figures, horizons)}


def _is_noise(own: dict[str, Any]) -> bool:
    """A speed-up above the tokens of a round cannot be."""
    return own["speedup"] is not None and own["speedup"] > (own["tokens_per_round"] or 0.0)


def _best(figures: dict[str, Any], horizons: Sequence[str]) -> str:
    """The fastest fixed one whose speed-up can be true."""
    fixed = [h for h in horizons if h == PLAIN or (h.isdigit() and not _is_noise(figures[h]))]
    return max(fixed, key=lambda h: figures[h]["tok_per_s"] or 0.0)


def _speed(case: _Case) -> float | None:
    return case.tokens / case.seconds if case.seconds else None


def _each(prompts: Prompts) -> Iterator[tuple[str, dict[str, Any]]]:
    for domain, own in prompts.items():
        for prompt in own:
            yield domain, prompt


def advice(report: dict[str, Any]) -> list[str]:
    """Plain sentences: the sweet spot, and what stands in its way elsewhere."""
    spot = report["sweet_spot"]
    clusters = spot["draft_clusters"]
    is_plain = clusters is None or spot["horizon"] == PLAIN
    options = f"--format {spot['format']}" + ("" if is_plain else f" --draft-clusters {clusters}")
    sentences = [f"fastest here: {options} --horizon {spot['horizon']}, {spot['tok_per_s']:.1f} tok/s"]
    for setting in report["settings"]:
        own = setting["by_horizon"][AUTO]
        best = setting["by_horizon"][setting["best_horizon"]]
        if own["tok_per_s"] and best["tok_per_s"]:
            share = own["tok_per_s"] / best["tok_per_s"]
            sentences.append(
                f"{label_of(setting)}: auto reached {share:.2f} of the best fixed horizon, {setting['best_horizon']}"
            )
        if setting["hopeless"]:
            sentences.append(f"{label_of(setting)}: {setting['hopeless']}")
        rejected = best["rejection_rate"]
        if rejected is not None and rejected > REJECTION_LIMIT:
            sentences.append(
                f"{label_of(setting)}: at its best horizon the target still rejects {rejected:.0%} of drafts"
            )
    return sentences


def label_of(setting: dict[str, Any]) -> str:
    """Format and, where they were asked for, clusters."""
    clusters = setting["draft_clusters"]
    return setting["format"] + ("" if clusters is None else f", {clusters} clusters")
