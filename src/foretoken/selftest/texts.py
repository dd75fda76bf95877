"""What the self-test writes: prompts by a fixed rule, each with a seed and a temperature, and their plain answers.

Ids of the tokenizer are taken modulo the vocabulary, so the same texts serve tiny models, to which they mean nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foretoken.api import Model
from foretoken.ops import native
from foretoken.request import Request
from foretoken.sampling import Sampling

TEMPERATURES = (0.0, 1.0)
LONGEST_ANSWER = 160
WINDOWS = 3  # a long prompt fills so many sliding windows
MIN_LONG = 280  # and at least so many positions: more than a chunk of keys
STARTS = (
    "In the beginning",
    "def add_{n}(a, b):\n    return a + b\n\n\ndef ",
    '{{"id": {n}, "name": "harbor", "kind": "noun", "meaning": "',
    "harbor (noun): a sheltered port where ships can take on or discharge cargo. ({n})\n",
    "{n}, {n}, {n}, ",
    "Define «salt» in {n} words.",
    "x",
    "Once upon a time there were {n} people who lived in a house by the sea and had nothing to eat but",
)


@dataclass(frozen=True)
class Text:
    """A prompt and how its answer is drawn; together with the model they decide every token."""

    name: str
    ids: tuple[int, ...]
    temperature: float
    seed: int

    def request(self, max_tokens: int, horizon: int | str) -> Request:
        """Stop ids are written through, so that every answer is as long as asked for."""
        sampling = Sampling(temperature=self.temperature, seed=self.seed)
        return Request(list(self.ids), sampling, max_tokens, horizon, ignore_eos=True)


class Library:
    """Texts of one model. Each number stands for one text, the same every time."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._vocab_len = model.target.config.vocab_len
        self._window = model.target.config.window
        self._most = max(model.context_len - LONGEST_ANSWER - 2, 1)

    def short(self, number: int) -> Text:
        """A few tokens."""
        start = STARTS[number % len(STARTS)].format(n=number)
        return self._text(f"short {number}", self._encode(start), number)

    def middle(self, number: int) -> Text:
        """A little more than a sliding window."""
        return self._text(f"window {number}", self._list(number, self._window + 40), number)

    def long(self, number: int) -> Text:
        """More than three sliding windows: with its answer, pages have been dropped more than once."""
        length = max(WINDOWS * self._window + 10, MIN_LONG)
        return self._text(f"{WINDOWS} windows {number}", self._list(number, length), number)

    def with_turn(self, text: Text) -> tuple[Text, int]:
        """The same prompt with a turn's end in its middle, and the length up to there: it can be taken up again."""
        middle = len(text.ids) // 2
        end_id = self._model.defaults.eos_ids[0] % self._vocab_len
        ids = [*text.ids[:middle], end_id, *text.ids[middle:]]
        return Text(text.name + " in turns", tuple(ids), text.temperature, text.seed), middle + 1

    def variant(self, text: Text, name: str, keep: int, added: Sequence[int]) -> Text:
        """The first `keep` tokens of a prompt with another end, and another seed."""
        ids = (*text.ids[:keep], *(token % self._vocab_len for token in added))
        return Text(f"{text.name}, {name}", ids, text.temperature, text.seed + 1)

    def _text(self, name: str, ids: Sequence[int], number: int) -> Text:
        temperature = TEMPERATURES[number // 2 % len(TEMPERATURES)]
        return Text(name, tuple(ids[: self._most]), temperature, seed=11 + number)

    def _encode(self, text: str) -> list[int]:
        return [token % self._vocab_len for token in self._model.tokenizer.encode(text, add_bos=True)]

    def _list(self, number: int, length: int) -> list[int]:
        ids: list[int] = []
        items = 32
        while len(ids) < length:
            items *= 2
            ids = self._encode(f"List {number}: " + " ".join(f"item {i} is {i * number}," for i in range(items)))
        return ids[:length]


class Plain:
    """Plain answers, which everything is compared with: alone, one thread, prompts in chunks of 512, no drafts."""

    horizon, threads, chunk = 0, 1, 512

    def __init__(self, model: Model) -> None:
        self._model = model
        self.isa = native.isas()[-1]
        self._answers: dict[Text, list[int]] = {}

    def tokens(self, text: Text, count: int) -> list[int]:
        """The first `count` tokens of the answer; changes the instruction set and threads of this process."""
        if len(self._answers.get(text, ())) < count:
            native.set_isa(self.isa)
            native.set_threads(self.threads)
            wanted = count if count > LONGEST_ANSWER // 3 else min(2 * count, LONGEST_ANSWER // 3)  # seldom twice
            stream = self._model.start(text.request(wanted, self.horizon), self.chunk, None)
            for _ in stream:
                pass
            self._answers[text] = stream.result.tokens
        return self._answers[text][:count]
