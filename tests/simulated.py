"""A machine and a drafter with known costs and chances: what a horizon makes of them, in simulated seconds."""

from types import SimpleNamespace

import numpy as np

from foretoken.drafters.protocol import NO_DRAFT, Draft
from foretoken.drafters.suffix import SuffixText
from foretoken.horizon import FixedHorizon, Learned, Paid
from foretoken.horizon.text import NEVER
from foretoken.ops import NO_STOP

FLAT = [0.0, *(1.0 + 0.08 * (rows - 1) for rows in range(1, 18))]  # a row more costs little, as where reading is slow
STEEP = [0.0, *(1.0 + 0.45 * (rows - 1) for rows in range(1, 18))]
STEPS = [0.0, 1.0, 1.02, 1.04, 1.06, 1.5, 1.52, 1.54, 1.56, *(2.2 + 0.1 * i for i in range(9))]  # tiles of four rows


def paid(rows, seconds, texts=1, context=100, **changes):
    """A pass of the target that nobody drafted for, unless `changes` say so."""
    return Paid(**{"rows": rows, "prompt_rows": 0, "texts": texts, "tokens": 1, "context": context,
                   "verify_s": seconds, "drafters": {}, "draft_s": 0.0, **changes})  # fmt: skip


class World:
    """One text on one machine.

    costs       seconds of a pass by rows
    draft_s     seconds of a draft token
    chance      position, depth -> how likely the drafter is to be right there
    confidence  the same -> what it says; None: the truth
    """

    name = "mtp"

    def __init__(self, costs, draft_s, chance, confidence=None, length=2000, seed=0):
        self.costs, self.draft_s = costs, draft_s
        self.chance, self.confidence = chance, confidence or chance
        self.length = length
        rng = np.random.default_rng(seed)
        self.text = rng.integers(0, 1000, length + 64).tolist()
        self.luck = rng.random((length + 64, 17))
        self.failed = []

    def draft(self, at, count, stop=NO_STOP):
        tokens, said, survival = [], [], 1.0
        for depth in range(count):
            if survival < stop.least:
                break
            position = at + depth
            is_right = self.luck[position, depth] < self.chance(position, depth)
            tokens.append(self.text[position] if is_right else -1 - depth)
            said.append(self.confidence(position, depth))
            survival = stop.survival(survival, depth, said[-1])
        return Draft(tokens, said)

    def repeats(self):
        return SuffixText()

    def drafting_failed(self, error):
        self.failed.append(error)
        self.state.drafter = None

    def costs_at(self, at):
        """Seconds of a pass by rows, with so many tokens before it."""
        return self.costs

    def guess(self, horizon, at, limit):
        """A draft, who made it, and its seconds."""
        draft = self.draft(at, limit, horizon.stop)
        return draft, "mtp", self.draft_s * len(draft.tokens)

    def run(self, horizon, costs=None, told=None):
        """Seconds for the whole text; `told` gets (position, draft tokens with a row, chances, right ones) by round."""
        tokens = self.text[:10]
        state = SimpleNamespace(
            tokens=tokens,
            drafter=SimpleNamespace(name=self.name),
            source="mtp",
            repeats=self.repeats(),
            drafting_failed=self.drafting_failed,
            sampler=SimpleNamespace(sampling=SimpleNamespace(temperature=0.0)),
        )
        self.state, total = state, 0.0
        horizon.read(state)
        while len(tokens) < self.length:
            limit = min(horizon.limit, self.length - len(tokens) - 1)  # as the engine does
            draft, source, draft_s = self.guess(horizon, len(tokens), limit) if limit else (NO_DRAFT, "", 0.0)
            state.source = source or state.source
            count = horizon.choose(draft, state, 1)
            at, right = len(tokens), 0
            while right < count and draft.tokens[right] == self.text[at + right]:
                right += 1
            tokens.extend(self.text[at : at + right + 1])
            asked = {source: [len(draft.tokens)]} if limit else {}
            now = Paid(count + 1, 0, 1, right + 1, at, self.costs_at(at)[count + 1], asked, draft_s)
            total += now.verify_s + now.draft_s
            if costs is not None:
                costs.add(now)
            if told is not None:
                told(at, count, list(horizon.chances) if limit else [], right)
            horizon.observe(state, now)
        return total

    def auto(self, told=None, learned=None, name="auto"):
        learned = learned or Learned()
        return self.run(learned.horizon(name), learned.costs, told)

    def fixed(self, limit):
        return self.run(FixedHorizon(limit))

    def best_fixed(self, limits=range(17)):
        return min(self.fixed(limit) for limit in limits)


class Repeats(SuffixText):
    """What a text repeats, but that the world knows how sure its guesses are."""

    def __init__(self, world):
        super().__init__()
        self.world = world

    def observe(self, tokens):
        super().observe(tokens)
        return self.world.confidence(len(tokens), 0) if self.world.has_guess(len(tokens)) else 0.0

    def tells(self, tokens, chance, length):
        return self.observe(tokens) >= chance or super().tells(tokens, NEVER, length)


class TextWorld(World):
    """The text itself guesses as well: `has_guess` says at which positions, `chance` how likely it is to be right.

    draft_s, model_s  seconds of asking the text, and of a token of the model's draft, which is never right
    asks              where in the text each was asked
    """

    name = "mtp+suffix"

    def __init__(self, costs, draft_s, chance, has_guess=lambda position: True, model_s=0.5, **options):
        super().__init__(costs, draft_s, chance, **options)
        self.has_guess, self.model_s = has_guess, model_s
        self.asks = {"mtp": [], "suffix": []}

    def repeats(self):
        return Repeats(self)

    def guess(self, horizon, at, limit):
        source = "mtp" if horizon.model_limit else "suffix"
        self.asks[source].append(at)
        if source == "mtp":
            limit = min(limit, horizon.model_limit)
            wrong = Draft([-1] * limit, [0.9] * limit)
            return wrong, source, self.model_s * limit
        return self.draft(at, limit) if self.has_guess(at) else NO_DRAFT, source, self.draft_s


def one_text():
    """What the planner makes of a text in which all it can do occurs: seconds, weights and rows, to the last bit."""
    learned, rows = Learned(event_of=lambda token: (0, 1, 2)[min(token % 40, 2)]), []

    def chance(position, depth):
        return 0.95 if position // 150 % 2 else 0.2

    def told(at, count, chances, right):
        rows.append(count)

    seconds = World(STEPS, 0.04, chance, length=900).auto(told, learned)
    seconds += TextWorld(FLAT, 0.02, chance, lambda position: position % 9 > 4, length=900).auto(told, learned)
    weights = [learned._chance(name).weights.values for name in ("mtp", "suffix")]
    return f"{seconds!r} {weights!r} {learned.costs.as_dict()!r} {rows!r}"
