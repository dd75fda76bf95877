"""The figures of one answer, or of many together: the same object in results, `--json` and, later, servers.

Counts are recorded a round at a time; rates are derived, and None where nothing was counted. Knows no model or clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

REJECTION_LIMIT = 0.2  # up to this share of rejected draft tokens there is nothing to advise
ADVICE_MIN_ROUNDS = 20  # fewer rounds with a guess, or drafts of full length, say nothing yet
HOPELESS, HOPELESS_MIN_DRAFTED = 0.97, 16  # rejected share, of so many: something is wrong with the drafter
WORTH_SAYING = 0.98  # times the plain speed: what is lost in measuring is not worth a word
TEXT_ITSELF = "suffix"  # the source that is no model
HOPELESS_MODEL = (
    "The target kept almost no draft token. Likely causes: a drafter made for another model or version, weights of the "
    "drafter in too few bits, or a kind of text that it was not trained for. Another drafter, or none, is better here."
)
HOPELESS_TEXT = "The target kept almost no draft token: what stood in this text before does not come again."


@dataclass
class Stats:
    """Figures of decoding; the fields and their meaning are listed in docs/algorithm.md.

    A round is one pass of the target after the prompt. The first token, drawn from the prompt's last row, belongs to
    no round, so an answer has 1 + rounds + accepted tokens.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    rounds: int = 0
    drafted: int = 0
    accepted: int = 0
    accepted_batches: int = 0
    rejections: int = 0
    fallbacks: dict[str, int] = field(default_factory=dict)
    accepted_by_position: list[int] = field(default_factory=list)
    drafted_by_position: list[int] = field(default_factory=list)
    horizon_rounds: dict[int, int] = field(default_factory=dict)
    drafter_rounds: dict[str, int] = field(default_factory=dict)
    prefill_s: float = 0.0
    draft_s: float = 0.0
    verify_s: float = 0.0
    other_s: float = 0.0
    plain_tok_per_s: float | None = None
    drafter_error: str | None = None
    hint: str = ""  # what is known to be faster than how the model was loaded, as a sentence
    useless: tuple[str, ...] = ()  # sources of which the target has kept almost nothing, in this text and before
    guesses: int = field(default=0, repr=False)  # rounds in which a drafter guessed, with a row for that or without
    _last_accepted: int = field(default=0, repr=False, compare=False)

    def record_round(
        self,
        *,
        drafted: int,
        accepted: int,
        horizon: int,
        drafter: str | None = None,
        fallback: str | None = None,
        guessed: int = 0,
    ) -> None:
        """Count one round.

        drafted   draft tokens that got a row; accepted of them were kept; guessed counts those without a row as well
        horizon   the limit that applied; drafter is who guessed, fallback why nobody did
        """
        assert 0 <= accepted <= drafted
        self.rounds += 1
        self.guesses += max(drafted, guessed) > 0
        self.drafted += drafted
        self.accepted += accepted
        self.accepted_batches += accepted > 0
        self.rejections += accepted < drafted
        _count_positions(self.drafted_by_position, drafted)
        _count_positions(self.accepted_by_position, drafted, accepted)
        _count(self.horizon_rounds, horizon)
        if drafter is not None:
            _count(self.drafter_rounds, drafter)
        if fallback is not None:
            _count(self.fallbacks, fallback)
        self._last_accepted = accepted

    def cut_last_round(self, dropped: int) -> None:
        """A stop came inside the last round: its last `dropped` tokens are neither in the answer nor counted.

        Nor are they counted as drafted, for the target had kept them.
        """
        assert 0 <= dropped <= self._last_accepted
        kept = self._last_accepted - dropped
        for position in range(kept, self._last_accepted):
            self.accepted_by_position[position] -= 1
            self.drafted_by_position[position] -= 1
        self.accepted -= dropped
        self.drafted -= dropped
        self.accepted_batches -= dropped > 0 and kept == 0
        self._last_accepted = kept

    def add_times(
        self, *, prefill_s: float = 0.0, draft_s: float = 0.0, verify_s: float = 0.0, other_s: float = 0.0
    ) -> None:
        """Add seconds spent on the prompt, on guessing, on the target's passes, and on the rest of the rounds."""
        self.prefill_s += prefill_s
        self.draft_s += draft_s
        self.verify_s += verify_s
        self.other_s += other_s

    @property
    def acceptance_rate(self) -> float | None:
        """Share of draft tokens that were kept."""
        return _ratio(self.accepted, self.drafted)

    @property
    def rejection_rate(self) -> float | None:
        """Share of draft tokens that were not kept."""
        return _ratio(self.drafted - self.accepted, self.drafted)

    @property
    def tokens_per_round(self) -> float | None:
        """Tokens that a round adds on average: the kept draft tokens and the target's own."""
        return _ratio(self.accepted + self.rounds, self.rounds)

    @property
    def decode_s(self) -> float:
        """Seconds of all rounds, without the prompt."""
        return self.draft_s + self.verify_s + self.other_s

    @property
    def tok_per_s(self) -> float | None:
        """Tokens of the rounds per second of the rounds."""
        return _ratio(self.accepted + self.rounds, self.decode_s)

    @property
    def speedup(self) -> float | None:
        """How many times faster than plain decoding, where that speed is known."""
        if self.tok_per_s is None or not self.plain_tok_per_s:
            return None
        return self.tok_per_s / self.plain_tok_per_s

    @property
    def advice(self) -> list[str]:
        """Plain sentences on what to change; empty when all is well."""
        sentences = []
        if self.drafter_error is not None:
            sentences.append(f"A drafter failed ({self.drafter_error}); the rest was decoded without it.")
        if self.hopeless:
            return [*sentences, self.hopeless]
        is_slow = self.speedup is not None and self.speedup < WORTH_SAYING
        if is_slow and self.drafted and self.guesses >= ADVICE_MIN_ROUNDS:
            sentences.append(f"Drafting ran at {self.speedup:.2f} times the plain speed: horizon 0 is faster here.")
        elif self._is_horizon_long:
            last, hits, times = (
                len(self.drafted_by_position),
                self.accepted_by_position[-1],
                self.drafted_by_position[-1],
            )
            sentences.append(
                f"The target rejected {self.rejection_rate:.0%} of the draft tokens, and accepted draft token {last} "
                f"of a round {hits} times in {times}: a shorter horizon should be faster here."
            )
        return [*sentences, self.hint] if self.hint and self.rounds >= ADVICE_MIN_ROUNDS else sentences

    @property
    def hopeless(self) -> str:
        """What is wrong with the drafter, by this answer's drafts or by all of one source till now; else empty."""
        if self.useless:
            return HOPELESS_MODEL
        rate = self.rejection_rate
        if rate is None or rate <= HOPELESS or self.drafted < HOPELESS_MIN_DRAFTED:
            return ""
        return HOPELESS_TEXT if set(self.drafter_rounds) <= {TEXT_ITSELF} else HOPELESS_MODEL

    @property
    def _is_horizon_long(self) -> bool:
        """Whether rounds would be faster without their last draft token, by what was measured.

        Without it the answer would lose the tokens accepted there and save the time of guessing at that place; what a
        row costs the target comes on top, but is not measured apart. Tokens per second rise where the share of tokens
        lost is below the share of time saved.
        """
        rate, count = self.rejection_rate, self.drafted_by_position[-1] if self.drafted_by_position else 0
        if rate is None or rate <= REJECTION_LIMIT or count < ADVICE_MIN_ROUNDS:
            return False
        if len(self.drafted_by_position) == 1:
            return False  # only plain decoding is shorter, and that is said by its own measure
        saved_s = self.draft_s * count / self.drafted
        return self.accepted_by_position[-1] * self.decode_s < saved_s * (self.accepted + self.rounds)

    def merge(self, other: Stats) -> None:
        """Add the figures of another answer to these."""
        plain_s = self._plain_s() + other._plain_s()
        is_plain_known = all(s.plain_tok_per_s or not s.rounds for s in (self, other))
        for name in _SUMS:
            self.__dict__[name] += other.__dict__[name]
        for name in _TABLES:
            for key, rounds in other.__dict__[name].items():
                _count(self.__dict__[name], key, rounds)
        self.guesses += other.guesses
        self.drafter_error = self.drafter_error or other.drafter_error
        self.hint = self.hint or other.hint
        self.useless = tuple(dict.fromkeys([*self.useless, *other.useless]))
        for name in _LISTS:
            pairs = zip_longest(self.__dict__[name], other.__dict__[name], fillvalue=0)
            self.__dict__[name] = [mine + theirs for mine, theirs in pairs]
        self.plain_tok_per_s = _ratio(self.accepted + self.rounds, plain_s) if is_plain_known else None

    def as_dict(self) -> dict[str, Any]:
        """Every figure, ready for JSON: keys are texts, and None where a rate is undefined."""
        figures: dict[str, Any] = {name: self.__dict__[name] for name in _SUMS}
        for name in _TABLES:
            figures[name] = {str(key): rounds for key, rounds in sorted(self.__dict__[name].items())}
        for name in _LISTS:
            figures[name] = list(self.__dict__[name])
        return figures | {
            "acceptance_rate": self.acceptance_rate,
            "rejection_rate": self.rejection_rate,
            "tokens_per_round": self.tokens_per_round,
            "tok_per_s": self.tok_per_s,
            "plain_tok_per_s": self.plain_tok_per_s,
            "speedup": self.speedup,
            "advice": self.advice,
        }

    def _plain_s(self) -> float:
        """Seconds that plain decoding would have taken for these tokens."""
        return (self.accepted + self.rounds) / self.plain_tok_per_s if self.plain_tok_per_s else 0.0


_SUMS = (
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "rounds",
    "drafted",
    "accepted",
    "accepted_batches",
    "rejections",
    "prefill_s",
    "draft_s",
    "verify_s",
    "other_s",
)
_TABLES = ("fallbacks", "horizon_rounds", "drafter_rounds")
_LISTS = ("accepted_by_position", "drafted_by_position")


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _count(table: dict[Any, int], key: Any, rounds: int = 1) -> None:
    table[key] = table.get(key, 0) + rounds


def _count_positions(counts: list[int], drafted: int, hits: int | None = None) -> None:
    """Make room for `drafted` positions and add one to the first `hits` of them (all if None)."""
    counts.extend([0] * (drafted - len(counts)))
    for position in range(drafted if hits is None else hits):
        counts[position] += 1
