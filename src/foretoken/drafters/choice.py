"""Several sources for one target: the one that is worth most makes the round's draft, and the text itself ends it.

What the text itself says (`suffix`) costs next to nothing, so it is asked in every round that a model is, and knows its
chances. A model costs time; its worth is the number of tokens that it is likely to get kept, from what came of its
earlier guesses, against the time that it takes beside a pass of the target. A model that does not lead guesses now and
then all the same, a shadow round: its guess is compared with what the target goes on to write, at no cost to that.
Source: full information on every source, as in HedgeSpec (arXiv 2510.20064), here with moving averages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final
from weakref import WeakKeyDictionary

from foretoken.drafters.line import Line, moved
from foretoken.drafters.protocol import NO_DRAFT, Draft, Drafter, check
from foretoken.drafters.suffix import SuffixDrafter, SuffixText

PRIOR: Final = 0.7  # chance of a model's token while nothing is known
STEP: Final = 0.1  # of the moving averages of chances, of one text and of all
ALL_STEP: Final = 0.02
TIME_STEP: Final = 0.2  # of the moving averages of times
BINS: Final = 10  # of confidence
MODESTY: Final = 1.5  # drafters are right more often than their softmax says: 1 - (1 - softmax) ** this, at first
SHADOW_LEN: Final = 4  # tokens of a guess that is only compared
FIRST_SHADOW: Final = 2  # rounds between two of them: doubled each time, begun anew when the lead changes
LAST_SHADOW: Final = 64
SHADOW_SHARE: Final = 0.02  # of a text's time, at most, for each model's shadow rounds


class Averages:
    """How often one model was right: by depth, and by its own confidence."""

    def __init__(self, before: Averages | None = None) -> None:
        self.by_depth: list[float] = list(before.by_depth) if before else [PRIOR]
        self.by_confidence: list[float] = (
            list(before.by_confidence) if before else [1 - (1 - (b + 0.5) / BINS) ** MODESTY for b in range(BINS)]
        )

    def add(self, depth: int, at: int, is_right: bool, step: float) -> None:
        """A token at some depth, of a confidence in bin `at`."""
        self.add_depth(depth, is_right, step)
        self.by_confidence[at] += step * (is_right - self.by_confidence[at])

    def add_depth(self, depth: int, is_right: bool, step: float) -> None:
        """Whether a token was kept at some depth, where all before it were; also where none was guessed."""
        if depth == len(self.by_depth):
            self.by_depth.append(self.by_depth[-1])
        self.by_depth[depth] += step * (is_right - self.by_depth[depth])


class Track:
    """What came of one model's guesses in one text, which begins with what those before have shown of it."""

    def __init__(self, all_texts: Averages) -> None:
        self.interval = FIRST_SHADOW
        self.rounds_idle = 0
        self.is_new = True  # not asked yet
        self._own, self._all = Averages(all_texts), all_texts
        self._guess: tuple[int, Sequence[int], list[int]] = (0, (), [])  # what is compared: start, tokens, bins
        self._is_short = False  # it ended before as many tokens as were asked for
        self._num_seen = 0

    def expected(self, limit: int) -> float:
        """Tokens of a guess of `limit` that are likely to be kept."""
        survival, total, chances = 1.0, 0.0, self._own.by_depth
        for depth in range(limit):
            survival *= chances[min(depth, len(chances) - 1)]
            total += survival
        return total

    def calibrated(self, draft: Draft) -> list[float]:
        """How often tokens of such confidence were right."""
        return [self._own.by_confidence[b] for b in _bins(draft)]

    def note(self, start: int, draft: Draft, asked: int) -> None:
        """Compare this guess, for which so many tokens were asked, with what is to stand at `start` and after.

        One guess at a time.
        """
        if self._num_seen == len(self._guess[1]):
            self._guess = start, draft.tokens, _bins(draft)
            self._num_seen, self._is_short = 0, len(draft.tokens) < asked

    def observe(self, tokens: Sequence[int]) -> None:
        """Look how the text went on."""
        start, guess, bins = self._guess
        while self._num_seen < len(guess) and start + self._num_seen < len(tokens):
            depth = self._num_seen
            is_right = guess[depth] == tokens[start + depth]
            self._own.add(depth, bins[depth], is_right, STEP)
            self._all.add(depth, bins[depth], is_right, ALL_STEP)
            self._num_seen = depth + 1 if is_right else len(guess)
            if is_right and self._is_short and self._num_seen == len(guess):  # none is kept where none was guessed
                self._own.add_depth(depth + 1, False, STEP)
                self._all.add_depth(depth + 1, False, ALL_STEP)


@dataclass
class _Memory:
    """What is kept of one text."""

    tracks: dict[str, Track]
    leader: str = ""
    rounds: int = 0  # of which the time is known
    verify_s: float = 0.0


@dataclass
class _Round:
    """One text in one round: who leads ("" is the text itself), and what the models asked have said."""

    state: Any
    limit: int  # draft tokens at most,
    model_limit: int  # and of a model
    memory: _Memory
    text: SuffixText | None
    own: Draft
    leader: str = ""
    asked: dict[str, int] = field(default_factory=dict)  # models, and how many tokens each is to guess
    drafts: dict[str, Draft] = field(default_factory=dict)

    def result(self) -> Draft:
        if not self.leader:
            return self.own
        found = self.drafts[self.leader]
        chances = self.memory.tracks[self.leader].calibrated(found)
        draft = Draft(found.tokens, chances, self.leader)
        return draft if self.text is None else self.text.draft(self.limit, draft)


class Choice:
    """A drafter made of others: models, and the text itself where `suffix` is given. `name` joins their names."""

    def __init__(self, models: Sequence[Drafter], suffix: SuffixDrafter | None) -> None:
        self.models = {model.name: model for model in models}
        self.suffix = suffix
        self.name = "+".join([*self.models, *([suffix.name] if suffix else [])])
        self._memories: WeakKeyDictionary[Any, _Memory] = WeakKeyDictionary()
        self._averages = {name: Averages() for name in self.models}  # over all texts
        self._draft_s = {name: Line() for name in self.models}  # seconds of a model's draft by tokens
        self._pass_s = 0.0  # of a pass of the target; 0 before the first

    def propose(self, states: Sequence[Any], limits: Sequence[int]) -> list[Draft]:
        """Up to `limits[g]` tokens after `states[g].last`, with calibrated chances; `source` says who guessed.

        state.stats    their `verify_s` by `rounds` is what a model's time is weighed against
        state.horizon  its `model_limit` says how many tokens a model may guess; 0 leaves the guessing to the text
        """
        if self.suffix is not None and not any(state.horizon.model_limit for state in states):
            return self.suffix.propose(states, limits)
        rounds = [self._begin(state, limit) for state, limit in zip(states, limits, strict=True)]
        for name, model in self.models.items():
            asked = [r for r in rounds if name in r.asked]
            if asked:
                self._ask(model, asked)
        return [r.result() for r in rounds]

    def _begin(self, state: Any, limit: int) -> _Round:
        memory = self._memories.get(state)
        if memory is None:
            tracks = {name: Track(averages) for name, averages in self._averages.items()}
            memory = self._memories[state] = _Memory(tracks)
        text = None if self.suffix is None else self.suffix.text(state)
        own = NO_DRAFT if text is None else text.draft(limit)
        now = _Round(state, limit, min(limit, state.horizon.model_limit), memory, text, own)
        if not now.model_limit:
            return now
        self._time_passes(state.stats, memory)
        for track in memory.tracks.values():
            track.observe(state.tokens)
        now.leader = self._leader(now)
        if now.leader != memory.leader:
            memory.leader = now.leader
            for track in memory.tracks.values():
                track.interval = FIRST_SHADOW
        for name, track in memory.tracks.items():
            track.rounds_idle += 1
            if name == now.leader:
                now.asked[name] = now.model_limit
                track.rounds_idle = 0
            elif track.rounds_idle >= max(track.interval, self._least_idle(name)):
                now.asked[name] = min(now.model_limit, SHADOW_LEN)
                track.rounds_idle, track.interval = 0, min(2 * track.interval, LAST_SHADOW)
        return now

    def _time_passes(self, stats: Any, memory: _Memory) -> None:
        """Learn how long a pass takes, but not from a text's first one, which may be the first of its shape."""
        rounds, verify_s = stats.rounds, stats.verify_s
        if memory.rounds and rounds > memory.rounds:
            self._pass_s = moved(self._pass_s, (verify_s - memory.verify_s) / (rounds - memory.rounds), TIME_STEP)
        memory.rounds, memory.verify_s = rounds, verify_s

    def _least_idle(self, name: str) -> float:
        """Rounds in which the text's passes take so long that one shadow round is a small share of it."""
        return self._draft_s[name].at(SHADOW_LEN) / (SHADOW_SHARE * self._pass_s) if self._pass_s else 0.0

    def _leader(self, now: _Round) -> str:
        """Whose draft brings most tokens for its time; "" where a model would add nothing to the text itself."""
        free, survival = 0.0, 1.0
        for chance in now.own.confidence:
            survival *= chance
            free += survival
        pass_s = self._pass_s
        best, most = "", 1 + free if self.suffix is not None else 0.0
        for name, track in now.memory.tracks.items():
            cost = 1 + self._draft_s[name].at(now.model_limit) / pass_s if pass_s else 1.0
            alone = track.expected(now.model_limit)
            together = free + alone * (1 - free / now.limit)  # as good as ever where the text itself is wrong
            worth = (1 + together) / cost
            if worth > most:
                best, most = name, worth
        return best

    def _ask(self, model: Drafter, rounds: Sequence[_Round]) -> None:
        name, limits = model.name, [r.asked[model.name] for r in rounds]
        begun = perf_counter()
        try:
            found = model.propose([r.state for r in rounds], limits)
            for r, draft, limit in zip(rounds, found, limits, strict=True):
                check(draft, limit, r.state.vocab_len)
        except MemoryError:
            raise
        except Exception as error:  # a broken model costs its drafts, never those of the others
            self._set_aside(name, rounds, error)
            return
        seconds = perf_counter() - begun
        tracks = [r.memory.tracks[name] for r in rounds]
        is_first = any(track.is_new for track in tracks)
        for r, track, draft in zip(rounds, tracks, found, strict=True):
            r.drafts[name] = draft
            track.is_new = False
            asked = r.asked[name] if r.leader == name else len(draft.tokens)  # by whom it is known where a guess ends
            track.note(len(r.state.tokens), draft, asked)
        if is_first:  # a second model reads the prompt in there
            return
        self._draft_s[name].add(max(limits), seconds)

    def _set_aside(self, name: str, rounds: Sequence[_Round], error: Exception) -> None:
        """Do without a model in these texts; those for which nobody else would guess are decoded plainly."""
        for r in rounds:
            del r.memory.tracks[name]
            r.leader = "" if r.leader == name else r.leader
            if r.memory.tracks or self.suffix is not None:
                r.state.stats.drafter_error = f"{name}: {type(error).__name__}: {error}"
            else:
                r.state.drafting_failed(error)


def _bins(draft: Draft) -> list[int]:
    """The bin of each confidence, whatever number it is; NaN counts as 0, for it is larger than nothing."""
    return [int(min(max(0.0, chance * BINS), BINS - 1)) for chance in draft.confidence]
