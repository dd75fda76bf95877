"""Compares plain and drafted decoding on this machine: same tokens, whatever the horizon, drafter, threads, chunking,
neighbours, reused prompts, temperature, instruction set and format (design promise P1). One different token is a fault
of Foretoken, never of the user.

`cases` draws what is compared, `texts` holds the prompts and their plain answers, `runner` writes, `drafters` are wrong
on purpose, `toys` are tiny models of the kinds that the given one is not. Here one is compared with the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

from foretoken.api import Model
from foretoken.horizon import MAX_HORIZON
from foretoken.ops import native
from foretoken.selftest.cases import HORIZONS, Case, Plan, Run
from foretoken.selftest.runner import Runner, Written
from foretoken.selftest.texts import Plain
from foretoken.selftest.toys import toy

TOYS = (("experts", "q4"), ("experts", "bf16"), ("unified", "q8"), ("gemma3", "q8"))
TOY_SHARE = 0.6  # of all tokens: they are cheap, and their text is the most sensitive
CONDITIONS = ("model", "format", "isa", "threads", "chunk", "neighbours", "temperature", "horizon", "drafter")
NUM_REJECTIONS = MAX_HORIZON * (MAX_HORIZON + 3) // 2  # (horizon, index) pairs: index 0 … horizon, horizons from 1


@dataclass(frozen=True)
class Subject:
    """A model in one format, loaded when its turn comes, so that one is in memory at a time."""

    name: str
    format: str
    load: Callable[[], Model]
    is_tiny: bool = False


def toys() -> list[Subject]:
    """Tiny random models with experts, of the unified kind, and of Gemma 3."""
    return [Subject(kind, format, partial(toy, kind, format), is_tiny=True) for kind, format in TOYS]


def run(
    subjects: Sequence[Subject],
    tokens: int,
    progress: Callable[[int, int], None] | None = None,
    horizons: Sequence[int | str] = HORIZONS,
) -> dict[str, Any]:
    """Compare at least `tokens` tokens of the subjects, then of `toys`, in cases that are the same every time.

    horizons  that take turns: all of them, or those that somebody wants to know more about
    returns  compared, different, errors, cases (a dict per answer), coverage (tokens by condition, and what else
             happened), plain (how the reference answers were made)
    """
    was = native.isa(), native.threads()
    report = _Report(tokens, progress)
    small = toys()
    shares = [(1 - TOY_SHARE) / len(subjects)] * len(subjects) + [TOY_SHARE / len(small)] * len(small)
    goals = [math.ceil(tokens * part) for part in accumulate(shares)]
    try:
        for number, (subject, goal) in enumerate(zip([*subjects, *small], goals, strict=True)):
            if report.compared < goal:  # few tokens end with the first model
                _compare(subject, number, report, goal, horizons)
    finally:
        native.set_isa(was[0])
        native.set_threads(was[1])
    return report.as_dict()


def _compare(subject: Subject, number: int, report: _Report, goal: int, horizons: Sequence[int | str]) -> None:
    """Runs on one subject until so many tokens are compared in all."""
    model = subject.load()
    plain = Plain(model)
    runner = Runner(model, plain)
    for planned in Plan(model, plain, native.isas(), subject.is_tiny, number, horizons).runs():
        written = runner.write(planned)
        for case, got in zip(planned.cases, written, strict=True):
            count = max(case.leaves, len(got.tokens)) if case.leaves else case.length
            row = _row(subject, model.target.config.window, planned, case, got)
            report.add(row, plain.tokens(case.text, count), got)
        report.end_run()
        if report.compared >= goal:
            break
    report.rejected |= runner.rejected


def _row(subject: Subject, window: int, run: Run, case: Case, got: Written) -> dict[str, Any]:
    """What a reader needs to know of a case."""
    positions = len(case.text.ids) + len(got.tokens)
    return {
        "model": subject.name,
        "format": subject.format,
        "isa": run.isa,
        "threads": run.threads,
        "chunk": run.chunk,
        "neighbours": len(run.cases) - 1,
        "text": case.text.name,
        "positions": positions,
        "windows": round(positions / window, 2),
        "temperature": case.text.temperature,
        "horizon": case.horizon,
        "drafter": case.drafter,
        "joins": case.joins,
        "leaves": case.leaves,
        "prefix": case.prefix,
        "cached": got.cached,
        "error": got.error,
    }


class _Report:
    """Rows of a self-test while they are gathered; `rejected` are (horizon, index) of rejections on purpose."""

    def __init__(self, tokens: int, progress: Callable[[int, int], None] | None) -> None:
        self.compared = 0
        self.rejected: set[tuple[int, int]] = set()
        self.rows: list[dict[str, Any]] = []
        self._num_runs = 0
        self._tokens = tokens
        self._progress = progress

    def add(self, row: dict[str, Any], expected: Sequence[int], got: Written) -> None:
        pairs = zip(expected, got.tokens, strict=False)
        different = sum(a != b for a, b in pairs) + abs(len(expected) - len(got.tokens))
        self.rows.append({"run": self._num_runs, **row, "compared": len(expected), "different": different})
        self.compared += len(expected)

    def end_run(self) -> None:
        self._num_runs += 1
        if self._progress is not None:
            self._progress(min(self.compared, self._tokens), self._tokens)

    def as_dict(self) -> dict[str, Any]:
        return {
            "compared": self.compared,
            "different": sum(row["different"] for row in self.rows),
            "errors": sum(bool(row["error"]) for row in self.rows),
            "cases": self.rows,
            "coverage": self._coverage(),
            "plain": {
                "horizon": Plain.horizon, "threads": Plain.threads, "chunk": Plain.chunk, "isa": native.isas()[-1],
            },
        }  # fmt: skip

    def _coverage(self) -> dict[str, Any]:
        """Tokens compared by value of each condition, and how often the rarer ones occurred."""
        tokens: dict[str, Any] = {name: {} for name in CONDITIONS}
        for row in self.rows:
            for name in CONDITIONS:
                tokens[name][str(row[name])] = tokens[name].get(str(row[name]), 0) + row["compared"]
        return tokens | {
            "drafted_past_3_windows": sum(r["compared"] for r in self.rows if r["windows"] > 3 and r["horizon"]),
            "left_early": sum(bool(row["leaves"]) for row in self.rows),
            "prefix_hits": sum(row["cached"] > 0 for row in self.rows),
            "prefix_misses": sum(bool(row["prefix"]) and not row["cached"] for row in self.rows),
            "rejections": {"seen": len(self.rejected), "of": NUM_REJECTIONS},
        }
