"""`foretoken bench decode`: drafted against plain decoding by domain: same text or not, how fast, best horizon.

A speed-up is the time of a plain run over that of the drafted run right beside it, turn by turn; the median counts, and
the quartiles say how far to believe it. Prompts of different domains follow each other, as they do in use: what the
planner learns in one text is no secret of that text. All of them together are the mix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean
from typing import Any

from foretoken.api import Model
from foretoken.bench.answers import AUTO, PLAIN, Timed, require_drafter, require_prompts, timed
from foretoken.bench.loops import is_loop
from foretoken.bench.prompts import Prompts
from foretoken.bench.prompts import places as places_of
from foretoken.bench.timing import Figure, Times, fields, interleaved
from foretoken.errors import InputError
from foretoken.horizon import parse_horizon
from foretoken.ops import native

Progress = Callable[[int, int], None]


@dataclass
class _Runs:
    """What one prompt gave.

    tokens        of the plain answer
    pairs         horizon → times of its runs, and of the plain runs beside them
    plain         times of all plain runs, turn after turn
    rounds        by horizon
    timed_tokens  without those of the prompt's own row
    """

    tokens: list[int]
    is_same: bool
    pairs: dict[str, tuple[Times, Times]]
    plain: Times
    rounds: dict[str, int]
    timed_tokens: int

    @classmethod
    def of(cls, answers: Mapping[str, Sequence[Timed]], times: Mapping[tuple[int, str], Times]) -> _Runs:
        """Answers by horizon, and times by case."""
        plain = answers[PLAIN][-1]
        turns = zip(*(own.seconds for (_, h), own in times.items() if h == PLAIN), strict=True)
        return cls(
            tokens=plain.result.tokens,
            is_same=all(one.result.tokens == plain.result.tokens for found in answers.values() for one in found),
            pairs={h: (own, times[i, PLAIN]) for (i, h), own in times.items()},
            plain=Times(tuple(seconds for turn in turns for seconds in turn)),
            rounds={h: found[-1].result.stats.rounds for h, found in answers.items()},
            timed_tokens=plain.timed_tokens,
        )

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
    mean over domains is largest; `mean_speedup` and `best_speedup` are the mean and the best domain at it.
    `mix_by_horizon` is of the time of all answers together. `best_horizon`, of a domain and of the mean, is None where
    the noise hides which one it is; `auto_over_best` is the planner's speed over that of the number that was fastest
    in hindsight.
    """
    check_horizons(horizons)
    require_drafter(model)
    require_prompts(model, prompts)
    runs = _run_all(model, prompts, horizons, max_tokens, repeats, told)
    kept = {domain: [run for run in own if run.is_kept] for domain, own in runs.items()}
    speedups = {domain: _speedups(own, horizons) for domain, own in kept.items()}
    means = _means([own for own in speedups.values() if own])
    mix = _speedups([run for own in kept.values() for run in own], horizons)
    fixed = _fastest_number(means)
    return {
        "model": model.name,
        "format": model.info()["format"],
        "isa": native.isa(),
        "threads": native.threads(),
        "max_tokens": max_tokens,
        "repeats": repeats,
        "domains": {domain: _figures(own, horizons, speedups[domain]) for domain, own in runs.items()},
        **_shown("mean_by_horizon", means, horizons),
        **_shown("mix_by_horizon", mix, horizons),
        "mix_auto_over_best": _auto_over_best(mix),
        "best_horizon": clear_best(means),
        "fixed_horizon": fixed,
        "mean_speedup": means[fixed].value if fixed is not None else None,
        "best_speedup": max((own[fixed].value for own in speedups.values() if own and fixed is not None), default=None),
    }


def default_horizons() -> list[str]:
    """Plain decoding, some numbers, and what the planner makes of them."""
    return [PLAIN, "1", "2", "4", "8", AUTO]


def check_horizons(horizons: Sequence[str]) -> None:
    """Raise InputError for a horizon that does not exist, or where plain decoding is missing."""
    for horizon in horizons:
        parse_horizon(horizon)
    if PLAIN not in horizons:
        raise InputError(f"horizons {','.join(horizons)} lack 0, plain decoding, which the others are compared with.")


def clear_best(speedups: Mapping[str, Figure]) -> str | None:
    """The horizon that is faster than every other, plain decoding among them, beyond the noise; None if none is."""
    best = max(speedups, key=lambda h: speedups[h].value, default=None)
    if best is None or not all(speedups[best].is_above(own) for h, own in speedups.items() if h != best):
        return None
    return best


def _fastest_number(speedups: Mapping[str, Figure]) -> str | None:
    """The fixed horizon that was fastest in hindsight, plain decoding among them."""
    return max((h for h in speedups if h.isdigit()), key=lambda h: speedups[h].value, default=None)


def _auto_over_best(speedups: Mapping[str, Figure]) -> dict[str, Any] | None:
    """The planner's speed over the fastest number's, turn by turn; None where one of them was not measured."""
    best = _fastest_number(speedups)
    if best is None or AUTO not in speedups:
        return None
    both = zip(speedups[AUTO].turns, speedups[best].turns, strict=True)
    return {"horizon": best, **fields("value", Figure(tuple(auto / fixed for auto, fixed in both)))}


def _cases(horizons: Sequence[str]) -> list[tuple[int, str]]:
    """(group, horizon) in the order of a turn or in reverse: drafted runs two by two, with a plain one between."""
    drafted = [h for h in dict.fromkeys(horizons) if h != PLAIN]
    groups = [drafted[at : at + 2] for at in range(0, len(drafted), 2)] or [[]]
    return [(i, h) for i, group in enumerate(groups) for h in (*group[:1], PLAIN, *group[1:])]


def _run_all(
    model: Model,
    prompts: Prompts,
    horizons: Sequence[str],
    max_tokens: int,
    repeats: int,
    told: Progress | None,
) -> dict[str, list[_Runs]]:
    """Every prompt in every case, by domain; a turn takes the first prompts of all domains, then the second ones …"""
    answers: dict[tuple[tuple[int, str], str], list[Timed]] = {}
    cases = _cases(horizons)
    places = places_of(prompts)

    def write(place: tuple[int, str], horizon: str) -> float:
        answer = timed(model, horizon, max_tokens, **prompts[place[1]][place[0]])
        answers.setdefault((place, horizon), []).append(answer)
        return answer.seconds

    for _, horizon in cases:  # the first run of a shape is slow
        write(places[0], horizon)
    # What ran just before is in the caches: each second prompt takes its cases in reverse, within a turn as well.
    in_order = [(place, case) for place in places for case in (cases[::-1] if place[0] % 2 else cases)]
    runs = {(place, *case): partial(write, place, case[1]) for place, case in in_order}
    times = interleaved(runs, repeats, told, has_warm_up=False)
    return {
        domain: [
            _Runs.of(
                {h: answers[(i, domain), h] for h in horizons}, {case: times[(i, domain), *case] for case in cases}
            )
            for i in range(len(own))
        ]
        for domain, own in prompts.items()
    }


def _speedups(kept: Sequence[_Runs], horizons: Sequence[str]) -> dict[str, Figure]:
    """By horizon: plain time of all answers over drafted time, within each turn; empty where no answer is kept."""
    if not kept:
        return {}

    def of(horizon: str, which: int) -> Times:
        turns = zip(*(run.pairs[horizon][which].seconds for run in kept), strict=True)
        return Times(tuple(map(sum, turns)))

    return {h: of(h, 1).over(of(h, 0)) for h in horizons}


def _figures(runs: Sequence[_Runs], horizons: Sequence[str], speedups: Mapping[str, Figure]) -> dict[str, Any]:
    """Of one domain; None where every answer was a loop. `noise` lists speed-ups above the tokens of a round."""
    kept = [run for run in runs if run.is_kept]
    tokens = sum(run.timed_tokens for run in kept)
    rounds = {h: sum(run.rounds[h] for run in kept) for h in horizons}
    per_round = {h: tokens / rounds[h] if rounds[h] else None for h in horizons}
    noise = [h for h, own in speedups.items() if h != PLAIN and own.value > (per_round[h] or 0.0)]
    best = clear_best(speedups)
    fastest = max((h for h in speedups if h != PLAIN), key=lambda h: speedups[h].value, default=None)
    return {
        "answers": len(runs),
        "loops": sum(is_loop(run.tokens) for run in runs),
        "tokens": tokens,
        "plain_tok_per_s": tokens / sum(run.plain.ms / 1e3 for run in kept) if kept else None,
        **_shown("speedup", speedups, horizons),
        "noise": noise,
        "auto_over_best": _auto_over_best(speedups),
        "best_horizon": None if best in noise else best,
        "tokens_per_round_horizon": fastest,
        "tokens_per_round": per_round[fastest] if fastest is not None else None,
        "tokens_per_round_by_horizon": per_round,
        "same_text": all(run.is_same for run in runs),
    }


def _means(speedups: Sequence[Mapping[str, Figure]]) -> dict[str, Figure]:
    """Mean speed-up over domains by horizon, within each turn."""
    horizons = speedups[0] if speedups else ()
    turns = {h: zip(*(own[h].turns for own in speedups), strict=True) for h in horizons}
    return {h: Figure(tuple(map(mean, own))) for h, own in turns.items()}


def _shown(name: str, figures: Mapping[str, Figure], horizons: Sequence[str]) -> dict[str, Any]:
    """The fields of a report, None by horizon where every answer was a loop."""
    none = dict.fromkeys(horizons)
    return fields(name, figures) if figures else {name: none, f"{name}_spread": none, f"{name}_quartiles": none}
