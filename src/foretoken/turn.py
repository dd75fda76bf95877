"""What a model writes in one turn, told apart: its thought, its calls of tools, its answer.

Gemma 4 marks them with control tokens: `<|channel>thought` newline … `<channel|>`, and `<|tool_call>call:NAME{…}
<tool_call|>` (specification section 6). The ids are walked, never the text, so an answer may quote the marks. What a
stop string cuts, or text that waits for one, is `tokenizer.TextStream`'s business; here its pieces are handed on with
the kind of the token that they came from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from foretoken.calls import parse_call
from foretoken.tokenizer import TURN, TextStream, Tokenizer

ANSWER, THOUGHT, CALL = "answer", "thought", "call"
_OPENS = {"<|channel>": THOUGHT, "<channel|>": ANSWER, "<|tool_call>": CALL, "<tool_call|>": ANSWER}


@dataclass(frozen=True)
class Part:
    """A run of text of one kind. A thought comes without its channel's name, a call with its control tokens spelled."""

    kind: str  # "answer", "thought" or "call"
    text: str


class TurnReader:
    """Parts of an answer while it is written. O(1) per token.

    text    the answer's stream of text, which may hold back what could begin a stop string
    prompt  ids of the prompt: its template may have opened a thought already
    """

    def __init__(self, tokenizer: Tokenizer, text: TextStream, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._text = text
        self._kinds = {i: kind for mark, kind in _OPENS.items() if (i := tokenizer.id_of(mark)) is not None}
        self._marks: deque[tuple[int, str, str]] = deque()  # where in the text a kind begins, and the call before it
        self._seen_len = 0  # characters of text handed in so far
        self._call: list[int] | None = None  # ids of a call that is not closed
        self._kind, self._is_name = self._start(prompt)

    def push(self, token: int, text: str) -> list[Part]:
        """Take one id and the text that its `TextStream.push` made certain."""
        kind = self._kinds.get(token)
        parts = self._split(text)
        if self._call is not None:
            self._call.append(token)
        if kind is None:
            return parts
        call = "" if self._call is None else self._tokenizer.spell(self._call)
        self._call = [token] if kind == CALL else None
        self._marks.append((self._seen_len + self._text.waiting_len, kind, call))
        return parts + self._split("")

    def finish(self, text: str) -> list[Part]:
        """The end: text that was held back, and a call that was never closed."""
        parts = self._split(text)
        open_call = [] if self._call is None else self._call
        left = [call for _, _, call in self._marks if call] + ([self._tokenizer.spell(open_call)] if open_call else [])
        self._marks.clear()
        self._call = None
        return parts if self._text.stopped else parts + [Part(CALL, call) for call in left]

    def _split(self, text: str) -> list[Part]:
        """Text that follows what was seen, cut where kinds begin."""
        parts: list[Part] = []
        while self._marks and self._marks[0][0] <= self._seen_len + len(text):
            at, kind, call = self._marks.popleft()
            self._emit(parts, text[: at - self._seen_len])
            text = text[at - self._seen_len :]
            self._seen_len = at
            if call:
                parts.append(Part(CALL, call))
            self._kind, self._is_name = kind, kind == THOUGHT
        self._emit(parts, text)
        self._seen_len += len(text)
        return parts

    def _emit(self, parts: list[Part], text: str) -> None:
        """A call is given whole when it is closed; the first line of a thought is its channel's name."""
        if self._is_name and text:
            _, newline, text = text.partition("\n")
            self._is_name = not newline
        if text and self._kind != CALL:
            parts.append(Part(self._kind, text))

    def _start(self, prompt: Sequence[int]) -> tuple[str, bool]:
        """The kind that the prompt's last turn ends in, and whether a channel's name is still to come."""
        turn_id = self._tokenizer.id_of(TURN)
        for at in range(len(prompt) - 1, -1, -1):
            if prompt[at] == turn_id:
                break
            if prompt[at] in self._kinds:
                kind = self._kinds[prompt[at]]
                if kind == CALL:
                    self._call = list(prompt[at:])
                return kind, kind == THOUGHT and "\n" not in self._tokenizer.decode(prompt[at:])
        return ANSWER, False


def joined(parts: Iterable[Part]) -> list[Part]:
    """Neighbours of one kind as one part; every call stays its own."""
    found: list[Part] = []
    for part in parts:
        if found and found[-1].kind == part.kind != CALL:
            found[-1] = Part(part.kind, found[-1].text + part.text)
        else:
            found.append(part)
    return found


def message(parts: Iterable[Part]) -> dict[str, Any]:
    """An answer as a message of the history: content, and where there are any reasoning and tool_calls.

    The thought goes under both names that templates know. Arguments are an object, since Gemma 4's own template refuses
    a text there; a call that is cut short or cannot be read is left out.
    """
    parts = list(parts)
    told: dict[str, Any] = {"role": "assistant", "content": _text_of(parts, ANSWER).strip()}
    if thought := _text_of(parts, THOUGHT).strip():
        told["reasoning"] = told["reasoning_content"] = thought
    calls = [call for part in parts if part.kind == CALL and (call := parse_call(part.text)) is not None]
    if calls:
        told["tool_calls"] = [
            {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for i, (name, arguments) in enumerate(calls)
        ]
    return told


def _text_of(parts: Sequence[Part], kind: str) -> str:
    return "".join(part.text for part in parts if part.kind == kind)
