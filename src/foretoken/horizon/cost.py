"""What a pass costs by rows and context, and what guessing costs by length: measured in passing, never by a sweep.

Costs are in units of one plain pass, so that a slow minute of the machine, which hits every pass alike, changes the
level and not what the planner compares. What comes between two passes, as judging, planning and writing text, is part
of the first: where a pass takes a third of a millisecond, that is a reason to make fewer of them. Single times are
clamped: a page fault can triple one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

from foretoken.drafters.line import CLAMP, FEW, Line, moved
from foretoken.errors import InputError
from foretoken.horizon.kept import MAX_SOURCES, items, number, whole
from foretoken.horizon.protocol import Paid
from foretoken.horizon.switch import PLAIN, Switches, kind_of
from foretoken.stats import TEXT_ITSELF

MAX_ROWS: Final = 64  # of the table; further rows cost what the last ones do
PRIOR_ROW: Final = 0.04  # units that a row more costs before that is measured; low, or it would never be tried
STEP_ROWS: Final = 4  # between measured row counts no further apart there may be a step, else a slope
PRIOR_DRAFT: Final = 0.02  # units of a draft token before one is measured
FIRST_CLAMP: Final = 1.75  # while fewer than FEW times are known
LEVEL_TIMES: Final = 3
LEVEL_WEIGHT: Final = 0.05
LEAST_WEIGHT: Final = 0.05
KEPT_COUNT: Final = 8  # of times from earlier starts: enough to trust, few enough to learn anew
ANYONE: Final = ""  # whose guesses are those of several sources in one pass
MOST_UNITS: Final = 1e4  # of a pass or a draft, in a file
MAX_CLASSES: Final = 24  # of contexts: a power of two each
REFILL_EVERY: Final = 32
STALE: Final = 256  # passes since a row count was last one of them: machines change, so it counts as one time,
HOPE: Final = 0.0005  # and as cheaper by so much for every pass more,
MOST_HOPE: Final = 0.1  # up to this, so that what was nearly as good is tried again
GAP_WEIGHT: Final = 0.1
FIRST_UNITS: Final = 0.0  # of the first pass of a row count, beyond what others take, before one is measured
FIRST_WEIGHT: Final = 0.25


class Costs:
    """The table of one model, format, instruction set and number of threads."""

    def __init__(self) -> None:
        self.level: float | None = None  # seconds of a unit
        self.switches = Switches()
        self._before = PLAIN  # what kind of round the last one was
        self.is_changed = False
        self._units: dict[int, list[float]] = {}  # context class -> by rows; 0.0 where none was measured
        self._counts: dict[int, list[int]] = {}
        self._seen: dict[int, list[int]] = {}  # `_adds` when each was measured last
        self._filled: dict[int, list[float]] = {}  # units without gaps, less where none was measured for long
        self._adds = 0
        self._moves: dict[tuple[int, int], float] = {}  # (class, rows) -> log of what it has moved by since `_rescale`
        self._drafts: dict[str, Line] = {}
        self._latest: Line | None = None  # of the model that guessed last: as long as that takes one that is not known
        self._met: set[Any] = set()  # kinds of passes that this process has run
        self._first = FIRST_UNITS
        self._firsts: dict[Any, float] = {}  # seconds by kind of pass, until a second one tells what is usual
        self._missed = [0.0] * (MAX_ROWS + 1)  # units by rows, that such passes would have saved this process
        self._gaps = {False: 0.0, True: 0.0}  # seconds from a pass to the next round, by whether it had drafts
        self._rest_s = 0.0  # seconds that a plain round takes beside its pass and judging

    def add(self, paid: Paid) -> None:
        """Learn from a pass, unless it read prompts as well."""
        if paid.prompt_rows:
            return
        before, self._before = self._before, kind_of(paid)
        self._add_pass(paid, before)
        has_draft = paid.rows > paid.texts
        self._gaps[has_draft] = moved(self._gaps[has_draft], paid.other_s, GAP_WEIGHT)
        if not has_draft:
            self._rest_s = moved(self._rest_s, paid.rest_s, GAP_WEIGHT)
        if paid.drafters and self.level is not None:
            self._add_draft(paid, self.level, before)

    def _add_draft(self, paid: Paid, level: float, before: int) -> None:
        """Learn how long guesses take, by whoever made them; of several nobody knows whose time it was."""
        name, lengths = ANYONE, list[int]()
        for source, own in paid.drafters.items():
            guessed = [length for length in own if length]
            if guessed:
                name = ANYONE if lengths else source
                lengths += guessed
        texts = len(lengths)
        if texts and self._is_met((name, texts)):
            line = self._drafts.get(name) or Line()
            self._keep(name, line)
            length, units = sum(lengths) / texts, paid.draft_s / texts / level
            if texts == 1 and name != TEXT_ITSELF:
                self.switches.add_guess(before, units - line.at(length))
                units = max(units - self.switches.of_guess(before), 0.0)
            line.add(length, units)

    def _keep(self, name: str, line: Line) -> None:
        self._drafts[name] = line
        if name not in (ANYONE, TEXT_ITSELF):
            self._latest = line

    def curve(self, context: int) -> list[float]:
        """Units by rows, (MAX_ROWS + 1,); entry 0 means nothing. Not to be changed."""
        kind = _class_of(context)
        filled = self._filled.get(kind)
        return self._fill(kind) if filled is None else filled

    def is_known(self, context: int, rows: int) -> bool:
        """Whether a pass of so many rows was measured at about that context."""
        counts = self._counts.get(_class_of(context))
        return counts is not None and rows <= MAX_ROWS and counts[rows] > 0

    def draft(self, name: str) -> tuple[float, float]:
        """Units of one guess: a part that is always paid, and a part per draft token."""
        line = self._drafts.get(name) or self._latest or self._drafts.get(ANYONE)
        return line.fitted if line is not None and line.fitted != (0.0, 0.0) else (0.0, PRIOR_DRAFT)

    def plain_s(self, paid: Paid) -> float | None:
        """Seconds that a plain pass would have taken instead of this one; None where either was not measured.

        The first of its kind in a process, which is recorded as well, tells nothing.
        """
        if (paid.rows, paid.texts) not in self._met:
            return None
        if paid.rows == paid.texts:
            return paid.verify_s
        are_known = self.is_known(paid.context, paid.texts) and self.is_known(paid.context, paid.rows)
        if paid.prompt_rows or not are_known:
            return None
        curve = self._units[_class_of(paid.context)]
        share = min(curve[paid.texts] / curve[paid.rows], 1.0)
        plain = (paid.verify_s + self._gaps[True]) * share
        return max(plain - self._gaps[False], 0.5 * plain)  # a slow reader's time counts for the pass at most

    def plain_rest_s(self, paid: Paid) -> float:
        """Seconds that a plain round would have taken beside its pass and judging, instead of this one."""
        return paid.rest_s if paid.rows == paid.texts or not self._rest_s else min(self._rest_s, paid.rest_s)

    def _add_pass(self, paid: Paid, before: int) -> None:
        rows, seconds = paid.rows, paid.verify_s + paid.other_s
        if rows > MAX_ROWS or seconds <= 0.0:
            return
        key = rows, paid.texts
        if not self._is_met(key):
            if rows > 1:  # the first of one row is that of the weights as well
                self._firsts[key] = seconds
            return
        if self.level is not None and (first := self._firsts.pop(key, 0.0)):
            self._first = moved(self._first, max(first - seconds, 0.0) / self.level, FIRST_WEIGHT)
        kind = _class_of(paid.context)
        filled = self.curve(paid.context)
        if self.level is None:
            self.level = seconds / filled[rows]
        units, counts, seen = self._units[kind], self._counts[kind], self._seen[kind]
        count = min(counts[rows], 1) if self._adds - seen[rows] > STALE else counts[rows]
        expected = units[rows] or filled[rows]
        clamp = CLAMP if count >= FEW else FIRST_CLAMP
        if rows == 1:
            self.switches.add_plain(before, seconds / self.level)
            seconds -= min(self.switches.of_plain(before), 0.5 * expected) * self.level
        if self._adds < LEVEL_TIMES:  # the level is what the fastest of the first passes says
            self.level = min(self.level, seconds / expected)
        off = seconds / self.level / expected
        off = clamp if off > clamp else off if off * clamp > 1.0 else 1.0 / clamp
        weight = 1.0 / (count + 1)
        if counts[rows] < FEW and off * CLAMP < 1.0:
            weight = 1.0  # what was believed was a slow pass
        move = off ** max(weight, LEAST_WEIGHT)
        units[rows] = filled[rows] = expected * move
        if count >= KEPT_COUNT:  # before, it is learnt what it costs
            self._moves[kind, rows] = self._moves.get((kind, rows), 0.0) + math.log(move)
        counts[rows], seen[rows] = count + 1, self._adds
        self.level *= off**LEVEL_WEIGHT
        self._adds += 1
        self.is_changed = True
        if not self._adds % REFILL_EVERY:
            self._rescale()
        if not count or not self._adds % REFILL_EVERY:
            self._fill(kind)

    def is_new(self, rows: int) -> bool:
        """Whether this process has run no pass of one text with so many rows, which would have to be recorded."""
        return rows <= MAX_ROWS and (rows, 1) not in self._met

    def instead(self, nets: Sequence[float], chosen: int, rate: float) -> int:
        """Draft tokens, one at least, or the best number whose pass need not be recorded, 0 where there is none.

        What a new row count would have saved is added up until it is as much as recording it takes. Then it is worth
        it, whatever comes: at worst twice as much is lost as by knowing how often it would be used.

        nets  tokens that so many draft tokens bring beyond their rows, 0 of them first
        """
        best = max((i for i in range(len(nets)) if not i or not self.is_new(i + 1)), key=nets.__getitem__)
        self._missed[chosen + 1] += (nets[chosen] - nets[best]) / rate
        return chosen if self._missed[chosen + 1] >= self._first else best

    def _is_met(self, key: Any) -> bool:
        """False the first time: then a pass is recorded as well, and its time is not what the next ones cost."""
        if key in self._met:
            return True
        self._met.add(key)
        return False

    def _rescale(self) -> None:
        """Make a plain pass of the usual context one unit again: level and units move apart as they learn.

        What planners keep in units is off by as much for some rounds, little but where another context becomes usual.
        """
        self._follow()
        usual = max(self._counts, key=lambda kind: (self._counts[kind][1], -kind), default=None)
        plain = self._units[usual][1] if usual is not None else 0.0
        if not plain or self.level is None:
            return
        self.level *= plain
        self._first /= plain
        self.switches.scale(1.0 / plain)
        self._filled = {kind: filled for kind, filled in self._filled.items() if any(self._counts[kind])}
        for table in (*self._units.values(), *self._filled.values()):
            table[:] = [units / plain for units in table]
        for line in self._drafts.values():
            line.scale(1.0 / plain)

    def _follow(self) -> None:
        """Take out of the units what they have moved by as plain passes did: that is the level.

        A pass of any kind moves both by half, for nobody knows which it was. What was not measured meanwhile stays what
        it was, times the level.
        """
        plain = max((move for (_, rows), move in self._moves.items() if rows == 1), key=abs, default=0.0)
        if self.level is not None:
            self.level *= math.exp(plain)
        for (kind, rows), move in self._moves.items():
            common = min(max(move, 0.0), plain) if plain > 0.0 else max(min(move, 0.0), plain)
            self._units[kind][rows] *= math.exp(-common)
            self._filled[kind][rows] = self._units[kind][rows]
        self._moves.clear()

    def _fill(self, kind: int) -> list[float]:
        """Measured entries; between near ones and beyond the last a slope that invites a try, for costs have steps."""
        if kind not in self._units:
            self._units[kind] = [0.0] * (MAX_ROWS + 1)
            self._counts[kind] = [0] * (MAX_ROWS + 1)
            self._seen[kind] = [self._adds] * (MAX_ROWS + 1)
        units = list(self._units[kind])
        known = [rows for rows in range(1, MAX_ROWS + 1) if units[rows]]
        filled = self._filled.setdefault(kind, [0.0] * (MAX_ROWS + 1))
        for rows in known:
            hope = HOPE * (self._adds - self._seen[kind][rows] - STALE)
            units[rows] *= 1.0 - min(max(hope, 0.0), MOST_HOPE)
        if not known:
            others = [other for other in self._filled if other != kind and any(self._counts[other])]
            nearest = min(others, key=lambda other: abs(other - kind), default=None)
            prior = [1.0 + PRIOR_ROW * (rows - 1) for rows in range(MAX_ROWS + 1)]
            filled[:] = prior if nearest is None else self._filled[nearest]
            return filled
        first, last = known[0], known[-1]
        for rows in range(1, first):
            filled[rows] = units[first] * (1.0 + PRIOR_ROW * (rows - 1)) / (1.0 + PRIOR_ROW * (first - 1))
        for low, high in pairwise(known):
            for rows in range(low, high):
                filled[rows] = units[low] + (units[high] - units[low]) * (rows - low) / (high - low)
                if high - low <= STEP_ROWS:
                    filled[rows] = min(filled[rows], units[low] + PRIOR_ROW * units[first] * (rows - low))
        filled[last] = units[last]
        slope = (units[last] - units[first]) / max(last - first, 1)
        slope = max(0.5 * (slope + PRIOR_ROW * units[first]), 0.0)
        for rows in range(last + 1, MAX_ROWS + 1):
            filled[rows] = filled[rows - 1] + slope
        return filled

    def as_dict(self) -> dict[str, Any]:
        """For a file; `restore` reads it."""
        passes = {
            str(kind): {
                str(rows): [round(self._units[kind][rows], 6), counts[rows], self._adds - self._seen[kind][rows]]
                for rows in _known(counts)
            }
            for kind, counts in self._counts.items()
            if any(counts)
        }
        drafts = {name: [round(part, 8) for part in line.sums] for name, line in self._drafts.items()}
        return {
            "level": self.level,
            "passes": passes,
            "drafts": drafts,
            "first": round(self._first, 6),
            "switches": self.switches.as_list(),
        }

    def restore(self, kept: Any) -> None:
        """Take over what a file says; raises InputError where it is not what `as_dict` makes."""
        level = number(kept["level"], 1e-9, 1e6)
        for text, entries in items(kept["passes"], MAX_CLASSES):
            kind = whole(text, 0, MAX_CLASSES - 1)
            self._fill(kind)
            for count, (units, times, *rest) in items(entries, MAX_ROWS):
                rows = whole(count, 1, MAX_ROWS)
                self._units[kind][rows] = number(units, 1.0 / MOST_UNITS, MOST_UNITS)
                self._counts[kind][rows] = min(whole(times, 1, 1 << 40), KEPT_COUNT)
                if rest:  # older files have no age
                    (age,) = rest
                    self._seen[kind][rows] = LEVEL_TIMES - whole(age, 0, 1 << 40)
        for name, sums in items(kept["drafts"], MAX_SOURCES):
            if not isinstance(sums, list) or len(sums) != len(Line().sums):
                raise InputError(f"the sums of drafter {name[:40]!r} are not {len(Line().sums)} numbers.")
            line = Line([number(part, 0.0, 1e9) for part in sums])
            if not all(part <= MOST_UNITS for part in line.fitted):
                raise InputError(f"drafts of {name[:40]!r} take {line.fitted} units.")
            self._keep(name, line)
        self._first = number(kept.get("first", FIRST_UNITS), 0.0, MOST_UNITS)  # older files have none,
        if "switches" in kept:  # nor those
            self.switches.restore(kept["switches"])
        self.level = level
        self._adds = LEVEL_TIMES
        self._rescale()
        for kind in list(self._units):
            self._fill(kind)


def cheapest_row(curve: list[float], before: int, most: int) -> float:
    """Units of a row beyond `before`, on average over as many as make it cheapest, of `most` at most."""
    return min([(curve[before + count] - curve[before]) / count for count in range(1, most + 1)])


def _class_of(context: int) -> int:
    """0 below 512 tokens, then one per power of two."""
    return min((context >> 9).bit_length(), MAX_CLASSES - 1)


def _known(counts: list[int]) -> list[int]:
    return [rows for rows, count in enumerate(counts) if count]
