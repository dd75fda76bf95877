"""Which ways of decoding are compared: an endless list of runs for one model, drawn by a fixed seed.

A run is one answer or several that share passes. Kinds of run take turns: an answer alone, drafts that are rejected at
every index, neighbours that join and leave, prompts that begin like earlier ones. Horizons take turns as well;
everything else is drawn.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from foretoken.api import Model
from foretoken.horizon import MAX_HORIZON
from foretoken.selftest.drafters import rounds_len
from foretoken.selftest.texts import Library, Plain, Text

ORDER_SEED = 7
HORIZONS = (*range(MAX_HORIZON + 1), "auto")
CHUNKS = (1, 7, 512)
THREADS = (1, 2)
MAX_PROMPT_PASSES = 256  # a long prompt in chunks of one row would take the time of everything else
MAX_NEIGHBOURS = 8
SLOW_SHARE = 0.2  # share of runs on instruction sets other than the best: they are slower, and must be few and short
TINY_SLOW_SHARE = 0.15
SLOW_TOKENS = 12
JOINS = 30  # passes within which neighbours join
FIRST_TEXTS, RUNS_PER_TEXT = 4, 3  # plain answers cost time too: each is compared several times before new ones come
AT_LAST = 1000  # a pass after everybody else has left


@dataclass(frozen=True)
class Case:
    """One way of decoding that must give the tokens of plain decoding.

    joins, leaves  the pass before which the answer is submitted, counted from the first answer's first token, and the
                   tokens after which it is closed by its reader (0: it is written to the end)
    prefix         what the store of earlier prompts gives where it has room: "hit" all of an earlier text, "part" its
                   beginning, "miss" nothing, "" where no store is used
    """

    text: Text
    horizon: int | str
    drafter: str  # "mtp", "suffix", "both", "wrong", "forced" (see `drafters`), "none"
    length: int
    joins: int = 0
    leaves: int = 0
    prefix: str = ""


@dataclass(frozen=True)
class Run:
    """Answers that are written together, and what they share.

    parallel, kept  answers at a time, and texts for which the store of earlier prompts has memory
    """

    isa: str
    threads: int
    chunk: int
    cases: list[Case] = field(default_factory=list)
    parallel: int = 1
    kept: int = 1

    @property
    def uses_store(self) -> bool:
        return any(case.prefix for case in self.cases)


class Plan:
    """The runs for one model in one format.

    is_tiny   whether slow instruction sets may write several answers and long prompts as well
    number    makes the runs differ from those of other models
    horizons  that take turns; with others than all of them no run rejects drafts at every index of each
    """

    def __init__(
        self,
        model: Model,
        plain: Plain,
        isas: Sequence[str],
        is_tiny: bool,
        number: int,
        horizons: Sequence[int | str] = HORIZONS,
    ) -> None:
        self._library = Library(model)
        self._plain = plain
        self._isas = isas
        self._is_tiny = is_tiny
        self._number = number
        self._horizons = horizons
        self._draw = random.Random(ORDER_SEED + number)
        of_the_model = ("mtp", "both") if model.drafter is not None else ()
        self._drafters = (*of_the_model, "suffix", "wrong", "forced")
        self._num_texts = FIRST_TEXTS
        self._horizon = number * 5
        self._forced_horizon = number * 5

    def runs(self) -> Iterator[Run]:
        """Every kind in turn, for ever; models begin with different kinds, so that few tokens show many."""
        kinds: list[Callable[[], Run]] = [self._together, self._forced, self._prefixes, self._alone]
        if self._horizons is not HORIZONS:
            kinds.remove(self._forced)
        turn = self._number
        while True:
            yield kinds[turn % len(kinds)]()
            turn += 1
            self._num_texts = FIRST_TEXTS + (turn - self._number) // RUNS_PER_TEXT

    def _alone(self) -> Run:
        is_slow = self._is_slow(True)
        text = self._any_text(is_slow)
        return self._run(is_slow, [self._case(text, is_slow, self._draw.randrange(20, 60))])

    def _forced(self) -> Run:
        """A rejection at every index of one horizon; horizons from the longest down."""
        horizon = MAX_HORIZON - self._forced_horizon % MAX_HORIZON
        self._forced_horizon += 1
        text = self._any_text(False)
        return self._run(False, [Case(text, horizon, "forced", rounds_len(horizon))])

    def _together(self) -> Run:
        """Up to eight neighbours: other prompts, lengths and horizons, that join and leave at different passes."""
        is_slow = self._is_slow(self._is_tiny)
        count = self._draw.choice((2, 5, MAX_NEIGHBOURS, MAX_NEIGHBOURS))
        cases = [self._case(self._any_text(is_slow), is_slow, self._draw.randrange(40, 70))]
        for i in range(count):
            text = self._any_text(is_slow) if i % 4 == 0 else self._library.short(self._draw.randrange(self._num_texts))
            case = self._case(text, is_slow, self._draw.randrange(8, 50))
            leaves = self._draw.randrange(1, case.length) if self._draw.random() < 0.3 else 0
            cases.append(replace(case, joins=self._draw.choice((0, self._draw.randrange(1, JOINS))), leaves=leaves))
        return self._run(is_slow, cases, parallel=self._draw.choice((4, count + 1)))

    def _prefixes(self) -> Run:
        """One prompt read first; then the same, longer ones, one with another end, one with another beginning."""
        is_slow = self._is_slow(self._is_tiny)
        library = self._library
        base, turn = library.with_turn(self._any_text(is_slow))
        whole = len(base.ids)
        first = self._case(base, is_slow, self._draw.randrange(12, 40))
        answer = self._plain.tokens(base, first.length)
        cases = [replace(first, prefix="miss")]
        for joins, prefix, text in (
            (1, "part", base),
            (2, "hit", library.variant(base, "longer", whole, (5, 9))),
            (3, "part", library.variant(base, "another end", turn, (7, 8, 9))),
            (4, "part", library.variant(base, "another last token", whole - 1, (base.ids[-1] + 1, 6))),
            (5, "miss", library.variant(base, "another beginning", 0, (3, *base.ids[1:]))),
            (AT_LAST, "hit", library.variant(base, "with its answer", whole, (*answer, 4))),
        ):
            case = self._case(text, is_slow, self._draw.randrange(8, 40))
            cases.append(replace(case, joins=joins, prefix=prefix))
        run = self._run(is_slow, cases, parallel=self._draw.choice((3, len(cases))))
        return replace(run, kept=self._draw.choice((1, len(cases), len(cases))))

    def _case(self, text: Text, is_slow: bool, length: int) -> Case:
        horizon = self._horizons[self._horizon % len(self._horizons)]
        self._horizon += 1
        drafter = self._draw.choice(self._drafters) if horizon else "none"
        return Case(text, horizon, drafter, min(length, SLOW_TOKENS) if is_slow and not self._is_tiny else length)

    def _run(self, is_slow: bool, cases: list[Case], parallel: int = 1) -> Run:
        longest = max(len(case.text.ids) for case in cases)
        chunks = [chunk for chunk in CHUNKS if longest <= chunk * MAX_PROMPT_PASSES]
        isa = self._draw.choice(self._isas[:-1]) if is_slow else self._isas[-1]
        return Run(isa, self._draw.choice(THREADS), self._draw.choice(chunks or CHUNKS[-1:]), cases, parallel)

    def _is_slow(self, is_allowed: bool) -> bool:
        share = TINY_SLOW_SHARE if self._is_tiny else SLOW_SHARE
        return is_allowed and len(self._isas) > 1 and self._draw.random() < share

    def _any_text(self, is_slow: bool) -> Text:
        """Of eight texts five are short, two longer than one window, one than three; short ones on slow kernels."""
        number = self._draw.randrange(self._num_texts)
        kind = 0 if is_slow and not self._is_tiny else self._draw.randrange(8)
        if kind < 5:
            return self._library.short(number)
        return self._library.middle(number // 2) if kind < 7 else self._library.long(number // 2)
