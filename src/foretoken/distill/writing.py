"""Texts that the target writes in the format in which it will be deployed, kept in a file that a resume extends.

Given passages stand there as well: to read one takes the target a third of the time that writing as much takes, and
there the drafter learns what the target would say.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any, TextIO

from foretoken.api import Model
from foretoken.bench.loops import is_loop
from foretoken.distill.sources import Prompt
from foretoken.errors import WeightsError

PARALLEL, ANSWER_TOKENS = 16, 200  # answers in one pass; most tokens of one
TEMPERATURES = (0.7, 0.8, 1.0)  # of the half that is not greedy
HELD_OUT = 10  # every tenth source is never trained on
GIVEN_SHARE = 0.5  # tokens of given passages to one that the target wrote: reading them takes its time as well
SHORTEST = 8  # an answer of fewer tokens teaches nothing


@dataclass(frozen=True)
class Text:
    """Prompt and answer as ids; the answer begins at `start`. Temperature 0 is greedy.

    Of a given passage every token but the first counts as the answer; what the target would say is learnt instead.
    """

    number: int
    source: int
    start: int
    temperature: float
    ids: list[int]
    is_given: bool = False

    @property
    def is_held_out(self) -> bool:
        return self.source % HELD_OUT == 0


@dataclass
class Written:
    """What is in the file: texts, answers left out because they loop or are too short, seconds spent on it.

    `tokens` are those that the target wrote, in texts that stay; asked for at every step, so they are counted once.
    """

    texts: list[Text]
    tokens: int = 0
    loops: int = 0
    short: int = 0
    seconds: float = 0.0
    asked: int = 0  # prompts up to this number were given to the target

    @property
    def own(self) -> list[Text]:
        """Those that the target wrote."""
        return [text for text in self.texts if not text.is_given]


def load(path: Path) -> Written:
    """The texts of an earlier run; a last line that was not finished is cut off. Raises WeightsError for others."""
    written = Written([])
    if not os.path.exists(path):
        return written
    good = 0
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        try:
            _take(written, json.loads(line))
        except (ValueError, TypeError, KeyError) as error:
            raise WeightsError(
                f"{path} is damaged at byte {good}: {error}. Delete it to write the texts anew."
            ) from error
        good += len(line)
    with path.open("r+b") as file:
        file.truncate(good)
    return written


def write(
    model: Model,
    prompts: Iterator[Prompt],
    path: Path,
    seed: int,
    tokens: int,
    seconds: float | None,
    should_stop: Callable[[], bool],
    told: Callable[[int, int, str], None],
) -> Written:
    """Let the target answer prompts until it wrote `tokens`, `seconds` have passed, or the prompts end.

    path      texts are added to it line by line; prompts that it answers already are not asked again
    told      called with tokens written, tokens in all, and a note
    """
    written, begun = load(path), time.monotonic()
    asked: dict[int, tuple[Any, Prompt, float]] = {}
    scheduler, before, is_over = model.scheduler(PARALLEL, prefix_bytes=0), written.seconds, False
    pending = (p for p in prompts if p.number >= written.asked)
    with path.open("a", encoding="utf-8", buffering=1) as file:
        while not (is_over and not asked) and not should_stop():
            written.seconds = before + time.monotonic() - begun
            if written.tokens >= tokens or (seconds is not None and written.seconds >= seconds):
                break
            while not is_over and len(asked) < PARALLEL:
                prompt = next(pending, None)
                is_over = prompt is None
                if prompt is not None and len(prompt.ids) + SHORTEST < model.context_len:
                    answer, temperature = _submit(scheduler, prompt, seed)
                    asked[id(answer)] = (answer, prompt, temperature)
            scheduler.step()
            for key in [key for key, (answer, _, _) in asked.items() if answer.is_done]:
                answer, prompt, temperature = asked.pop(key)
                _add(written, file, _line(prompt, temperature, answer.result.tokens, written.seconds))
            told(min(written.tokens, tokens), tokens, f"{len(written.texts)} texts, {written.loops} loops left out")
    return written


def add_given(written: Written, passages: Iterator[Prompt], path: Path, should_stop: Callable[[], bool]) -> None:
    """Add given passages to them and to the file, GIVEN_SHARE of what the target wrote, none of held-out sources."""
    known = {text.source for text in written.texts if text.is_given}
    room = GIVEN_SHARE * written.tokens - sum(len(text.ids) for text in written.texts if text.is_given)
    with path.open("a", encoding="utf-8", buffering=1) as file:
        for passage in passages:
            text = Text(-1, passage.source, 1, 0.0, passage.ids, is_given=True)
            if room <= 0 or should_stop():
                break
            if text.source in known or text.is_held_out or len(text.ids) <= SHORTEST:
                continue
            line = {"number": text.number, "seconds": round(written.seconds, 3), "text": asdict(text)}
            _add(written, file, line)
            room -= len(text.ids)


def _submit(scheduler: Any, prompt: Prompt, seed: int) -> tuple[Any, float]:
    """Half of the answers greedy; which half the number of the prompt decides."""
    rng = Random(f"{seed}-{prompt.number}-temperature")
    temperature = 0.0 if rng.random() < 0.5 else rng.choice(TEMPERATURES)
    options = {"temperature": temperature, "top_k": 0, "top_p": 1.0, "horizon": 0, "max_tokens": ANSWER_TOKENS}
    return scheduler.submit(prompt.ids, seed=rng.getrandbits(63), **options), temperature


def _line(prompt: Prompt, temperature: float, answer: Sequence[int], seconds: float) -> dict[str, Any]:
    line: dict[str, Any] = {"number": prompt.number, "seconds": round(seconds, 3)}
    if len(answer) < SHORTEST or is_loop(answer):
        return line | {"left_out": "short" if len(answer) < SHORTEST else "loop"}
    text = Text(prompt.number, prompt.source, len(prompt.ids), temperature, [*prompt.ids, *map(int, answer)])
    return line | {"text": asdict(text)}


def _add(written: Written, file: TextIO, line: dict[str, Any]) -> None:
    file.write(json.dumps(line) + "\n")
    _take(written, line)


def _take(written: Written, line: dict[str, Any]) -> None:
    written.asked = max(written.asked, int(line["number"]) + 1)
    written.seconds = max(written.seconds, float(line["seconds"]))
    if "text" in line:
        text = Text(**line["text"])
        written.texts.append(text)
        written.tokens += 0 if text.is_given else len(text.ids) - text.start
    else:
        written.loops += line["left_out"] == "loop"
        written.short += line["left_out"] == "short"


def frequencies(texts: Sequence[Text]) -> Counter[int]:
    """How often each token stands in what is trained on, prompts included."""
    return Counter(token for text in texts if not text.is_held_out for token in text.ids)
