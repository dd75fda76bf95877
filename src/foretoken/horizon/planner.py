"""Chooses the horizon of each round: tokens per second, not acceptance, is what counts.

A draft token gets a row iff its chance of survival is worth more than the row costs, S > rate × (cost of one row more),
where the rate is a little more (LATER) than the run reaches in tokens per unit of time, in rounds of the same kind (the
text's own drafts, or not): the rule of renewal-reward processes. All row counts are compared, for costs have steps, and
none, which is plain decoding. Before that the drafter is asked for as many tokens as have lately been worth their cost,
fewer where it becomes unsure while it guesses, or none. Then drafts are looked at now and again without a row and
compared with what the target goes on to write; all looking together may take less than one hundredth of the time. Where
a model is not worth asking, the text itself is: its guesses cost next to nothing, and are asked for where it is sure of
them, as long as they have not cost more than they brought.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import add, sub
from typing import Any, Final

from foretoken.drafters.protocol import Draft
from foretoken.horizon.chance import Chance
from foretoken.horizon.cost import MAX_ROWS, Costs, cheapest_row
from foretoken.horizon.events import NO_EVENTS, Events, Kind
from foretoken.horizon.fixed import MAX_HORIZON, likely
from foretoken.horizon.habit import FIRST_REACH, Habit, Shown
from foretoken.horizon.protocol import Paid
from foretoken.horizon.rate import Rate
from foretoken.horizon.switch import GUESSED, PLAIN, kind_of
from foretoken.horizon.text import NO_LEN, REPEATS, least_chance, tells
from foretoken.horizon.worth import limit_of, settle_rest
from foretoken.ops import NO_STOP, Stop
from foretoken.stats import TEXT_ITSELF

LOOK_SHARE: Final = 0.007  # of the time, for drafts that are only looked at
LOOK_LEN: Final = 2
PROBE_LEN: Final = 1  # draft tokens more than seem worth it, where everything was right
FIRST_PATIENCE: Final = 2  # so many times in a row; doubled where the probe found nothing
LAST_PATIENCE: Final = 64
MOST_DEBT: Final = 0.5  # plain passes ahead of time, for looks in a new text and behind one that found something
MOST_OVER: Final = 4.0  # times what a look usually takes, for one that took longer
MOST_ASLEEP: Final = 64  # rounds, for costs move,
SOUND: Final = 4  # rounds of sleep, of which one is looked at where looks have found nothing in text after text
RATE_MOVED: Final = 0.1  # and so does the rate: by so many tokens a unit
MOST_CREDIT: Final = 1000  # times what one round brings: drafts that cost even more are not looked at any more
RATE_KEPT: Final = 5.0  # units; what those before a text count for at first
WORTH_WEIGHT: Final = 0.25
LOOK_WEIGHT: Final = 0.4  # looks and probes are few, so each says more
USELESS_TIMES: Final = 4  # that is charged for a look at a model that is hardly ever right,
VAIN_LOOKS: Final = 8  # and one time more for so many in a row that found nothing in texts of this kind
LATER: Final = 1.1  # times its time a row must be worth: what gets none is guessed again, and better, a round later
ASK_LEN: Final = 4  # draft tokens, at most, by which it is decided whether the text is asked
NEXT_CHANCE: Final = 0.6  # of a draft token to be worth a row, where those before it are: others are guessed in vain
TEXT_OVER_MODEL: Final = 2  # times the tokens of a model that the text is asked for beside it
PLAIN_ROUNDS: Final = 4  # before the first draft, where the cost of a plain pass is not known


class AutoHorizon:
    """The planner of one text.

    costs       of this machine and model, shared with other texts
    chance_for  name of who made a draft -> `Chance` for this text
    low, high   draft tokens that get a row, at least and at most; low is 0 except where the user wants drafts anyway
    min_chance  a draft token less likely than this to be kept gets no row, even if it seemed worth it
    events      token -> whether the text may become easier here, or another kind of text begins, as at a code fence
    habit       shared with other texts
    """

    def __init__(
        self,
        costs: Costs,
        chance_for: Callable[[str], Chance],
        low: int = 0,
        high: int = MAX_HORIZON,
        min_chance: float = 0.0,
        events: Events = NO_EVENTS,
        habit: Habit | None = None,
    ) -> None:
        self.guessed = self.own = self.applied = 0
        self.chances: Sequence[float] = ()
        self.confidence: Sequence[float] = ()
        self.reason = "horizon-0"
        self._costs, self._chance_for = costs, chance_for
        self._low, self._high, self._min_chance = low, high, min_chance
        self._kind, self._num_read = Kind(events), 0  # tokens that it has taken in
        self._habit = before = habit or Habit()
        self._shown: Shown = before  # of it, what belongs to texts of this kind
        self._chance: Chance | None = None  # of the source that made the last draft,
        self._model: Chance | None = None  # and of the last one that was a model
        self._judges: dict[str, Chance] = {}  # by source
        self._name = ""
        kept = min(1.0, RATE_KEPT / before.time) if before.time else 0.0
        self._plain = costs.curve(0)[1]  # units of a plain pass
        self._rate = Rate(kept * before.tokens, kept * before.time, 1.0 / self._plain)
        self._text_rate = Rate()  # of rounds whose draft the text itself made alone; they are not among the others
        self._reach = high if low else max(map(before.reach_of, before.reach), default=FIRST_REACH)
        self._worth: list[float] = []  # what a draft token at each depth has added lately, in tokens
        self._draft: Sequence[int] = ()
        self._at = self._known = 0  # where in the text the last draft begins, and its tokens whose fate is known
        self._is_look = False  # the next draft, or the last one, is made only to look at it
        self._is_rare = False  # a look, or a probe that was long in coming
        self._was_right = False  # the last draft was right throughout
        self._is_hot = True  # the last look was worth its time, or the text is new
        self._charged, self._times = 0.0, 1  # for a look whose time is not known yet, and how many times that
        self._share = self._due = 0.0  # what a round adds to that, and how much there is when the next look comes
        self._is_parked = self._is_due = False
        self._asleep_from = self._asleep_to = 0  # tokens of the text; between them only what stands in it wakes it
        self._every = 1  # one round in so many is looked at meanwhile
        self._wake = REPEATS  # what the text must tell to be one
        self._plain_left, self.stop = PLAIN_ROUNDS, NO_STOP
        self._step = 0.0  # units of a draft token
        self._before = PLAIN  # what kind of round the last one was
        self._has_text, self._text = before.has_text, before.text
        self._text_len = 0  # tokens written when its balance was last looked at
        self._is_text = False  # the text itself made the last draft
        self._text_reach = 0  # draft tokens that it may guess beside a model, by what it has just got right
        self._patience, self._num_right = FIRST_PATIENCE, 0  # drafts right throughout since the last probe
        self._probed = 0  # draft tokens that seemed worth it when one more was asked for; 0 if none was
        self._start_worth: list[float] = []  # `_worth` when this kind of text began, if it was known
        self._source = before.source  # whose time the next draft is likely to take
        worthy = [self._worthwhile(worth)[0] for worth in before.worth.values()]
        limit = min(max(worthy, default=FIRST_REACH), self._reach, high)
        self.model_limit = max(low, 0 if costs.level is None else limit)
        self._is_text_asked = False  # the text itself is worth it; alone only where it is sure enough
        self.limit = self.model_limit

    @property
    def useless(self) -> tuple[str, ...]:
        """Sources of drafts in this text whose guesses are hardly ever right."""
        return tuple(name for name, chance in self._judges.items() if chance.weights.is_useless)

    def read(self, state: Any) -> None:
        """Take in the prompt for what its text says, so that no round waits for that."""
        if state.drafter is not None and not self._name:
            self._meet(state.drafter.name)
        self._text_len, self._num_read = len(state.tokens), len(state.tokens) - 1
        if self._has_text:
            tells(state, (0.0, NO_LEN))

    def choose(self, draft: Draft, state: Any, rows: int) -> int:
        """How many tokens of the draft get a row, in a pass that has so many `rows` without them."""
        count = len(draft.tokens)
        if not count:
            if self.guessed:
                self.guessed = self.own = self.applied = 0
                self.chances = self.confidence = ()
            return 0
        self.guessed = count
        self.own = count if draft.own is None else int(draft.own)
        self._begin(draft, state)
        chances = self.chances
        count = min(count, len(chances))
        costs = self._costs.curve(len(state.tokens))
        before = costs[rows if rows < MAX_ROWS else MAX_ROWS]
        ahead = costs[rows + 1 : rows + count + 1]
        if rows + count > MAX_ROWS:  # further rows cost what the last one does
            last, slope = ahead[-1] if ahead else before, costs[MAX_ROWS] - costs[MAX_ROWS - 1]
            ahead += [last + slope * i for i in range(1, count - len(ahead) + 1)]
        plain, most = 1.0 / costs[1], 0.0
        rate = LATER * max((self._is_text and self._text_rate.value) or self._rate.value, plain)
        survival, kept, best, chosen = 1.0, 0.0, 0.0, 0
        reach, least, worth = min(self._reach, self._high), self._min_chance, self._worth
        by_model, num_seen = 0 if self._is_text else min(self.own, self.model_limit), len(worth)
        weight, nets = LOOK_WEIGHT if self._is_rare else WORTH_WEIGHT, [0.0]
        for i, cost in enumerate(ahead):
            survival *= chances[i]
            kept += survival
            net = kept - rate * (cost - before)
            nets.append(net)
            if net > best:
                best = net
                if i < reach and survival >= least:
                    chosen = i + 1
            if i < by_model:
                gain = max(kept - plain * (cost - before) - most, 0.0)
                most += gain
                if i < num_seen:
                    worth[i] += weight * (gain - worth[i])
                else:
                    worth.append(gain)
        if by_model:
            settle_rest(worth, count, by_model, self.model_limit, weight, self._rate.value, costs, self._step)
        if chosen and rows == 1 and self._costs.is_new(chosen + 1):
            chosen = self._costs.instead(nets[: (chosen if least else reach) + 1], chosen, rate)
        low = min(self._low, likely(chances, least)) if self._low and least else self._low
        self.applied = chosen = min(max(chosen, low), self._high, count)
        return chosen

    def _begin(self, draft: Draft, state: Any) -> None:
        """Take up a draft: its chances, and what to compare the target's tokens with."""
        if state.drafter.name != self._name:
            self._meet(state.drafter.name)
        self._chance = self._judges.get(state.source)
        if self._chance is None:
            self._chance = self._judges[state.source] = self._chance_for(state.source)
        self._is_text = state.source == TEXT_ITSELF
        if not self._is_text:
            self._model = self._chance
            self._source = self._habit.source = state.source
            self._habit.weights = self._chance.weights
        self._at, self._draft, self._known = len(state.tokens), draft.tokens, 0
        self.confidence = draft.confidence
        self.chances = self._chance.of(self.confidence, state.sampler.sampling.temperature > 0.0)

    def _meet(self, name: str) -> None:
        """A drafter that this text has not used yet, or not just before."""
        self._name = name
        shown = self._shown if name in self._shown.worth else self._habit
        self._worth = list(shown.worth.get(name, ()))
        self._reach = self._high if self._low else shown.reach_of(name)
        self._start_worth = list(self._worth)
        self._has_text = self._habit.has_text = TEXT_ITSELF in name.split("+")

    def _turn(self) -> None:
        """Another kind of text begins: go on with what others have shown there, as far as that is known."""
        before = self._start_worth or self._shown.worth.get(self._name, [])
        self._shown = self._habit.of(self._kind.value)
        self._reach = max(self._reach, self._shown.reach_of(self._name))
        known = self._shown.worth.get(self._name, [])
        self._start_worth = list(known)
        if known:
            own = list(map(sub, self._worth, before))  # what this text is worth beside others
            self._worth = [max(value, 0.0) for value in map(add, known, own)] + known[len(own) :]
            self._is_parked = False

    def observe(self, state: Any, paid: Paid) -> None:
        """The pass is over: compare the draft with what the target wrote, and plan the next round."""
        length = len(state.tokens)
        if self._asleep_to and length % self._every and paid.is_alone:
            return
        turns = self._kind.turns(state.tokens, self._num_read)
        self._num_read = length
        is_told = False
        if self._asleep_to and paid.is_alone and not turns:
            is_told = self._has_text and tells(state, self._wake)
            credit = self._habit.credit + self._every * self._share
            sleeps_on = not is_told and length <= self._asleep_to
            if sleeps_on and (credit <= 0.0 or not self._is_called(state)):
                self._habit.credit = credit
                return  # the path of plain decoding, which must cost nothing
        # The text itself has a say where it was asked, and where it led although only a model was.
        has_told = self.limit > self.model_limit or (self._is_text and self.applied > 0)
        if has_told and state.drafter is not None and not paid.prompt_rows:
            self._settle_text(state, paid)
        if self._is_parked and not self._draft and not self._wakes(state, paid, turns, is_told):
            return
        costs = self._costs.curve(paid.context)
        level = self._costs.level
        if not paid.prompt_rows:
            cost = costs[paid.rows if paid.rows < MAX_ROWS else MAX_ROWS]
            if paid.drafters and level:
                cost += paid.draft_s / level
            # With the text's drafts that got no row, or a rate that makes its rows too dear would stay for good.
            kind = self._text_rate if self._is_text and self.guessed else self._rate
            kind.count(paid.tokens, cost, paid.texts / costs[paid.texts if paid.texts < MAX_ROWS else MAX_ROWS])
            if paid.texts == 1 and kind is self._rate:  # the rate of several is theirs together
                self._habit.count(paid.tokens, cost)
        if self._charged:
            self._settle_look(paid)
        self._before = kind_of(paid)
        self._plain = costs[1]
        self._share = LOOK_SHARE * costs[1]
        credit, most = self._habit.credit + self._share, MOST_CREDIT * self._share
        self._habit.credit = credit if credit < most else most
        if self._draft:
            self._compare(state.tokens)
        if state.drafter is None:
            self._is_parked = False
            self.limit = self.model_limit = 0
            return
        if turns:
            self._turn()
        self._plan(state, paid.context, paid.texts)
        if not self.limit and self._is_parked and not self._draft and paid.is_alone:
            self._sleep(len(state.tokens))

    def _plan(self, state: Any, context: int, texts: int) -> None:
        """How many tokens to ask for in the next round, which so many texts share."""
        if not self._low and self._plain_left and not self._costs.is_known(context, texts):
            self._plain_left -= 1  # by drafts alone nobody would learn what rows cost
            self.reason = "measuring"
            self.limit = self.model_limit = 0
            return
        self._plain_left, self.reason = 0, "horizon-0"
        if not self._is_parked or self._is_due or self._is_time(state, self._habit.credit):  # else the text was asked
            self._is_parked = False
            self.model_limit = self._next_limit(state)
            self.stop = NO_STOP if self._low or self._is_look else self._next_stop(context, state, texts)
        self.limit = self._with_text(self.model_limit, state, texts)
        if not self.limit and not self._is_text_asked:
            self._rate.forget()  # behind a stretch of plain decoding the rate begins anew

    def _settle_look(self, paid: Paid) -> None:
        """Charge a look what it took, where that is known: behind plain decoding it is more than usual drafts take."""
        level, charged = self._costs.level, self._charged
        self._charged = 0.0
        if self.guessed and paid.is_alone and level:
            costs = self._costs.curve(paid.context)
            took = paid.draft_s / level + self._costs.switches.of_plain(GUESSED)
            took += max(costs[min(paid.rows, MAX_ROWS)] - costs[1], 0.0)
            self._habit.credit -= self._times * (min(took, MOST_OVER * charged) - charged)

    def _wakes(self, state: Any, paid: Paid, turns: bool, is_told: bool) -> bool:
        """Whether more is to be thought of than the text itself: its kind turns, a look is due, or a model was asked.

        If not, the round is counted here, and the text is asked next where it has something to say, as `is_told` may
        know already.
        """
        if self._asleep_to:
            self._wake_up(len(state.tokens))
        self._plain = self._costs.curve(paid.context)[1]
        self._share = LOOK_SHARE * self._plain
        credit = self._habit.credit + self._share
        self._is_due = self._is_time(state, credit)
        is_told = is_told or (self._has_text and tells(state, self._wake))
        if turns or self._is_due or self.limit or (is_told and not paid.is_alone):
            return True
        self._habit.credit = credit
        if not paid.is_alone:
            return False
        self._rate.count_plain(1, self._plain)
        if is_told and self._is_text_asked and self._text.are_affordable:  # others may have used that up
            self.limit = min(self._reach, self._high)
            return False
        if is_told and not self._is_text_asked:
            self._text.try_again()
        self.limit = self._with_text(0, state, 1)
        if not self.limit:
            self._sleep(len(state.tokens))
        return False

    def _sleep(self, length: int) -> None:
        """Until a look is due, or the rate has come down, only what stands in the text is a reason to plan."""
        rounds = min((self._due - self._habit.credit) / self._share, MOST_ASLEEP)
        if self._is_text_asked:  # where it is sure enough for the rate, which plain rounds lower
            rounds = min(rounds, RATE_MOVED * self._rate.time / max(self._rate.value * self._plain - 1.0, 1e-3))
        if rounds >= 1:
            self._asleep_from, self._asleep_to = length, length + int(rounds)
            self._every = SOUND if self._times > 1 and not self._has_text else 1

    def _wake_up(self, length: int) -> None:
        """Make up for the rounds slept through, each of which wrote a token; the last one is not among them."""
        rounds, self._asleep_to = length - 1 - self._asleep_from, 0
        if self._is_text_asked and rounds:
            self._rate.count_plain(rounds, self._plain)

    def _is_time(self, state: Any, credit: float) -> bool:
        """Parked: so much credit is enough for a look, or something calls for one."""
        return credit >= self._due or (credit > 0.0 and self._is_called(state))

    def _is_called(self, state: Any) -> bool:
        """Whether the text may become easier for a model here."""
        return self._name != TEXT_ITSELF and (self._kind.has_event or (not self._has_text and tells(state)))

    def _settle_text(self, state: Any, paid: Paid) -> None:
        """What asking the text itself brought in this round, and what it took where no model was asked."""
        costs = self._costs.curve(paid.context)
        rows, level = min(paid.rows, MAX_ROWS), self._costs.level
        gain, units = 0.0, None
        if self._is_text and self.applied:
            extra = costs[rows] - costs[max(rows - self.applied, 1)]
            gain = len(state.tokens) - self._at - 1 - self._rate.value * extra
        if level and paid.texts == 1 and not self.model_limit:
            units = paid.draft_s / level
        self._text.settle(gain, units, self._rate.value)

    def _with_text(self, model_limit: int, state: Any, texts: int) -> int:
        """Draft tokens to ask for, where a model is to guess so many of them, in a pass of so many texts."""
        self._text.recover(len(state.tokens) - self._text_len)
        self._text_len = len(state.tokens)
        self._is_text_asked = not self._low and self._has_text and self._text.are_affordable
        if not self._is_text_asked:
            self._wake = REPEATS
            return model_limit
        if model_limit:
            return max(model_limit, min(self._reach, self._high, max(TEXT_OVER_MODEL * model_limit, self._text_reach)))
        curve, most = self._costs.curve(len(state.tokens)), min(self._reach, self._high)
        before = min(texts, MAX_ROWS - ASK_LEN)
        plain = curve[before] - self._text.cost
        ahead = curve[before + 1 : before + 1 + min(most, ASK_LEN)]
        self._wake = least_chance([self._rate.value * (units - plain) for units in ahead]), NO_LEN
        return most if tells(state, self._wake) else 0

    def _compare(self, tokens: Sequence[int]) -> None:
        """Learn from every draft token that the target has written or refused by now."""
        assert self._chance is not None
        draft = self._draft
        known, is_right = self._chance.learn(draft, self._known, tokens, self._at)
        self._known = known
        right = known if is_right else known - 1
        if is_right and known < len(draft) and not self.applied:
            return  # only looked at: the next rounds tell the rest
        self._chance.close(right, known)
        if self.applied:
            self._shown.prove(self._name, right)
        if right >= self._reach and self.applied >= self._reach:
            self._reach = min(2 * self._reach, self._high)
        elif not right and self.applied and self._reach <= FIRST_REACH:
            self._reach = 1
        self._was_right = is_right
        self._text_reach = 2 * right if self._is_text and is_right else 0
        if self._is_look:
            self._is_hot = is_right and not self._is_text
        self._draft = ()
        if not self._is_text:
            self._shown.follow(self._name, self._worth)

    def _next_limit(self, state: Any) -> int:
        """Draft tokens worth asking for: those whose worth of late is more than guessing them costs."""
        if not self._name:
            self._meet(state.drafter.name)
        if self._name == TEXT_ITSELF:
            return self._high if self._low else self._rest(math.inf)
        if not self._worth:
            return max(min(FIRST_REACH, self._high), self._low)
        limit, start, step = self._worthwhile(self._worth)
        limit = max(limit, self._low)
        # What is never right keeps some chance for long, and where a row is nearly free that would do.
        if limit and (self._low or not self._is_model_useless):
            self._is_look = self._is_rare = False
            self._shown.num_vain = 0
            return self._probe(limit, PROBE_LEN * step)
        self._probed = self._num_right = 0
        return self._look(state, start + LOOK_LEN * step + self._costs.switches.of_look)

    def _next_stop(self, context: int, state: Any, texts: int) -> Stop:
        """Where a guess ends: a further token would hardly be worth its row and what guessing it costs."""
        limit = self.model_limit
        if not limit or self._model is None:
            return NO_STOP
        costs, before = self._costs.curve(context), min(texts, MAX_ROWS - limit)
        row = cheapest_row(costs, before, limit)
        least = min(self._rate.value * (row + self._step / NEXT_CHANCE), 1.0)  # the first token is always guessed
        return self._model.stop(least, state.sampler.sampling.temperature > 0.0)

    def _worthwhile(self, worth: list[float]) -> tuple[int, float, float]:
        """Draft tokens whose worth is more than guessing them costs, and that cost: of a draft, and of each token."""
        start, self._step = self._costs.draft(self._source)
        switches, curve = self._costs.switches, self._costs.curve(self._text_len)
        now = start + switches.of_guess(self._before) - switches.of_plain(self._before)
        rate, plain, most = self._rate.value, 1.0 / self._plain, min(self._reach, self._high)
        return limit_of(worth, rate, plain, curve, now, self._step, most), start, self._step

    def _probe(self, limit: int, cost: float) -> int:
        """One draft token more behind drafts that were right throughout: where time is left for it, or now and then."""
        if self._probed and self.own > self._probed:  # else the guess ended before it came to that
            self._patience = FIRST_PATIENCE if limit > self._probed else min(2 * self._patience, LAST_PATIENCE)
        self._probed = 0
        deeper = min(limit + PROBE_LEN, self._reach, self._high)
        if not self._was_right or deeper == limit or self.own < limit:
            return limit
        self._num_right += 1
        if self._habit.credit >= cost:
            self._habit.credit -= cost
        elif self._num_right >= self._patience:
            self._is_rare = True
        else:
            return limit
        self._num_right, self._probed = 0, limit
        return deeper

    def _look(self, state: Any, cost: float) -> int:
        """Parked: a draft to look at where there is time left for it, or something has happened in the text."""
        if self._draft and self._is_look:
            return 0  # the last look is not over
        vain = self._shown.num_vain // VAIN_LOOKS
        self._times = USELESS_TIMES if self._is_model_useless else min(1 + vain, USELESS_TIMES)
        credit = self._habit.credit
        is_due = self._is_due or credit >= cost * self._times or (credit > 0.0 and self._is_called(state))
        is_due = is_due or (self._is_hot and self._times == 1 and credit > -MOST_DEBT * self._plain)
        self._is_hot = self._is_due = False
        if not is_due:
            return self._rest(min(cost * self._times, MOST_CREDIT * self._share))
        self._shown.num_vain += 1
        self._habit.credit -= cost * self._times
        self._charged = cost
        self._is_look = self._is_rare = True
        return min(LOOK_LEN, self._high)

    @property
    def _is_model_useless(self) -> bool:
        weights = self._habit.weights if self._model is None else self._model.weights
        return weights is not None and weights.is_useless

    def _rest(self, due: float) -> int:
        """No model is asked until a look is due."""
        self._is_parked, self._due = True, due
        self._is_look = self._is_rare = False
        return 0
