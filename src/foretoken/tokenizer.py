"""Text to token ids and back. Knows nothing of models; `tokenizers` does the encoding, the bytes are joined here.

Decoding is ours because an answer is shown while it is written: the bytes behind each id are appended to a UTF-8
decoder that keeps an unfinished character for later, so the pieces of a stream join to exactly `Tokenizer.decode`.
A byte that cannot be UTF-8 becomes U+FFFD, except at the very end of an answer, where it is dropped (the character it
belongs to was never finished).
Source: decoder of Gemma's tokenizer.json, Sequence(Replace "▁" → " ", ByteFallback, Fuse).
"""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from foretoken.errors import InputError, WeightsError

BOS = "<bos>"
TURN = "<|turn>"
TOOL_RESPONSE = "<|tool_response>"
CONTROL = (TURN, "<turn|>", "<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", TOOL_RESPONSE)
MAX_FILE_BYTES = 128 << 20
MAX_OBJECTS, MAX_LISTS = 1 << 17, 1 << 21  # in a file; Gemma has 6,400 and 515,000, and each takes memory of its own
PROBE = "Aé  ▁ €\n\t日🙂\x07"  # words, runs of spaces, a literal "▁", and characters that need byte fallback
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_INVALID = re.compile("[\udc80-\udcff]")


# Parts that a tokenizer of Gemma's kind is made of. Others may be slow, random or endless on a hostile file.
PARTS = {
    "normalizer": {"Replace", "Sequence"},
    "pre_tokenizer": {"Split", "Sequence"},
    "decoder": {"Replace", "ByteFallback", "Fuse", "Strip", "Sequence"},
    "post_processor": {"TemplateProcessing", "Sequence"},
}


def _check_parts(data: Any, path: Path) -> None:
    """A byte-pair tokenizer without chance, of known parts; cutting and padding are taken out of `data`."""
    model = data.get("model") if isinstance(data, dict) else None
    if not isinstance(model, dict) or model.get("type") != "BPE" or model.get("dropout"):
        raise WeightsError(f"{path} is no byte-pair tokenizer without dropout. Use the tokenizer of a Gemma 4 model.")
    data["truncation"] = data["padding"] = None
    vocab, added = model.get("vocab"), data.get("added_tokens") or ()
    if not isinstance(vocab, dict) or any(
        type(i) is not int or not 0 <= i < len(vocab) + len(added) for i in vocab.values()
    ):
        raise WeightsError(f"{path} has token ids that are not 0, 1, 2, …. Use the tokenizer of a Gemma 4 model.")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise WeightsError(f"{path} marks parts of words. Use the tokenizer of a Gemma 4 model.")
    for name, allowed in PARTS.items():
        for part in _parts(data.get(name)):
            kind = part.get("type") if isinstance(part, dict) else part
            if kind not in allowed:
                expected = ", ".join(sorted(allowed))
                raise WeightsError(f"the {name} of {path} is a {str(kind)[:40]!r}, expected one of {expected}.")
            if kind == "Split" and not isinstance(_text_of(part.get("pattern")) or None, str):
                raise WeightsError(f"a Split of {path} is not at a plain text. Use the tokenizer of a Gemma 4 model.")
            if kind == "Replace" and len(str(part.get("content"))) > len(str(_text_of(part.get("pattern")))):
                raise WeightsError(f"a Replace of {path} makes the text longer. Use the tokenizer of a Gemma 4 model.")


def _parts(part: Any) -> list[Any]:
    """A part and, in a Sequence, what it is made of; nothing for null."""
    if part is None:
        return []
    inner = next((v for v in part.values() if isinstance(v, list)), []) if isinstance(part, dict) else []
    is_sequence = isinstance(part, dict) and part.get("type") == "Sequence"
    return [part, *(one for item in inner for one in _parts(item))] if is_sequence else [part]


def _text_of(pattern: Any) -> Any:
    """The text of a pattern that is a plain string; of a regular expression nothing, whatever it may match."""
    return pattern.get("String", "") if isinstance(pattern, dict) else ""


class Tokenizer:
    """The tokenizer.json of a model folder."""

    def __init__(self, backend: tokenizers.Tokenizer, source: str) -> None:
        backend.no_truncation()
        backend.no_padding()
        added = backend.get_added_tokens_decoder()
        bos_id = backend.token_to_id(BOS)
        if bos_id is None:
            raise WeightsError(f"{source} has no {BOS} token. Use the tokenizer of a Gemma 4 model.")
        self.bos_id: int = bos_id
        self.vocab_len: int = max([backend.get_vocab_size(), *(i + 1 for i in added)])
        self.control_ids = frozenset(i for i, token in added.items() if token.special or token.content in CONTROL)
        self._backend = backend
        self._bytes: dict[int, bytes] = dict.fromkeys(self.control_ids, b"")
        self._check_decoder(source)

    @classmethod
    def from_folder(cls, folder: str | Path) -> Tokenizer:
        """Read tokenizer.json; raises WeightsError if it is missing, damaged, or not of Gemma's kind."""
        path = Path(folder) / "tokenizer.json"
        if not os.path.isfile(path):
            raise WeightsError(f"{path} is missing. A model folder holds config.json, safetensors and tokenizer.json.")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise WeightsError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB, which no Gemma 4 tokenizer is.")
        try:
            text = path.read_text(encoding="utf-8")
            if text.count("{") > MAX_OBJECTS or text.count("[") > MAX_LISTS:
                raise WeightsError(f"{path} has too many parts. Use the tokenizer of a Gemma 4 model.")
            data = json.loads(text)
        except (OSError, ValueError, RecursionError) as error:
            raise WeightsError(f"{path} cannot be read: {error}. Copy it again from its source.") from error
        _check_parts(data, path)
        try:
            return cls(tokenizers.Tokenizer.from_str(json.dumps(data)), str(path))
        except WeightsError:
            raise
        except BaseException as error:  # the library raises the bare class, and panics are no Exception
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            raise WeightsError(f"{path} cannot be read: {error}. Copy it again from its source.") from error

    def difference(self, other: Tokenizer) -> str:
        """Which token stands for another id in `other`, in words; empty where all ids mean the same."""
        own, others = self._backend.get_vocab(True), other._backend.get_vocab(True)
        for token in own if own != others else ():
            if own[token] != others.get(token):
                return f"{token[:40]!r} is id {own[token]}, there {others.get(token)}"
        return "" if own == others else f"{len(own)} tokens, there {len(others)}"

    def encode(self, text: str, add_bos: bool = True) -> list[int]:
        """Token ids of `text`. Names of control tokens in it become those tokens, as tokenizer.json says.

        add_bos  put the start token before it; a rendered chat template already has it
        raises   InputError for text that is not Unicode (lone surrogates)
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError("the text is not valid UTF-8.") from error
        ids = self._backend.encode(text, add_special_tokens=False).ids
        return [self.bos_id, *ids] if add_bos else list(ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids` without control tokens; equals the joined pieces of a `TextStream` without stop strings."""
        text = b"".join(map(self.token_bytes, ids)).decode("utf-8", "surrogateescape")
        return _show_invalid(text[: _sound_len(text)])

    def id_of(self, token: str) -> int | None:
        """The id of a control token by its spelling, None where the file has no such token."""
        found = self._backend.token_to_id(token)
        return found if found in self.control_ids else None

    def piece(self, token: int) -> str | None:
        """How the vocabulary spells an id, with ▁ for a space; None where it has no such id."""
        return self._backend.id_to_token(token) if token >= 0 else None

    def spell(self, ids: Iterable[int]) -> str:
        """Text of `ids` with control tokens spelled, as a model's own prompt would show it."""
        text = b"".join(
            (self._backend.id_to_token(i) or "").encode() if i in self.control_ids else self.token_bytes(i) for i in ids
        )
        return text.decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """The bytes that one id adds to a text; none for control tokens and for ids that stand for no text."""
        known = self._bytes.get(token)
        if known is None:
            known = self._bytes[token] = self._look_up(token)
        return known

    def _look_up(self, token: int) -> bytes:
        piece = self._backend.id_to_token(token) if 0 <= token < self.vocab_len else None
        if piece is None:
            return b""
        byte = _BYTE_TOKEN.fullmatch(piece)
        return bytes([int(byte[1], 16)]) if byte else piece.replace("▁", " ").encode("utf-8")

    def _check_decoder(self, source: str) -> None:
        """Our decoding must be the file's own: compare them on one text that uses every rule."""
        ids = self._backend.encode(PROBE, add_special_tokens=False).ids
        if self._backend.decode(ids, skip_special_tokens=True) != self.decode(ids):
            raise WeightsError(f"{source} joins tokens in another way than Gemma 4 does. Use the model's own file.")


class TextStream:
    """The text of an answer, piece by piece, cut before the first stop string. O(1) per token.

    Two things wait before they are shown: bytes that may turn out to be the dropped end of the answer, and text that
    may turn out to begin a stop string. Of several stop strings the one that is complete first counts; if two are
    complete at the same character, the longer.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.stopped = False
        self.num_tokens = 0  # ids pushed; once stopped, up to and including the one that completed the stop string
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._invalid_len = 0  # invalid bytes at the end so far: shown only if a character follows
        self._held = ""  # the beginning of a stop string, perhaps

    def push(self, token: int) -> str:
        """Take one id; returns the text that is now certain. Nothing more comes once `stopped`."""
        if self.stopped:
            return ""
        self.num_tokens += 1
        text = self._decoder.decode(self._tokenizer.token_bytes(token))
        if text.isascii() and not self._stop and not self._invalid_len:  # as most are
            return text
        sound_len = _sound_len(text)
        if sound_len == 0:
            self._invalid_len += len(text)
            return ""
        certain = "\ufffd" * self._invalid_len + _show_invalid(text[:sound_len])
        self._invalid_len = len(text) - sound_len
        return self._pass_on(self._held + certain)

    @property
    def waiting_len(self) -> int:
        """Characters that were taken in and are not shown yet."""
        return len(self._held) + self._invalid_len

    def feed(self, tokens: Iterable[int]) -> str:
        """Take several ids, up to the one that completes a stop string."""
        pieces = []
        for token in tokens:
            pieces.append(self.push(token))
            if self.stopped:
                break
        return "".join(pieces)

    def finish(self) -> str:
        """The end of the answer: what was held back for a stop string that did not come."""
        rest, self._held = self._held, ""
        self._invalid_len = 0
        self._decoder.reset()
        return rest

    def _pass_on(self, text: str) -> str:
        """Split text into what may be shown and what is held back; look for stop strings."""
        found = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)[1]]
        held_len = max((_overlap(text, stop) for stop in self._stop), default=0)
        shown_len = len(text) - held_len
        self._held = text[shown_len:]
        return text[:shown_len]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`, shorter than it."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0


def _sound_len(text: str) -> int:
    """Length of `text` without invalid bytes at its end (surrogateescape writes byte 0xNN as U+DCNN)."""
    size = len(text)
    while size and "\udc80" <= text[size - 1] <= "\udcff":
        size -= 1
    return size


def _show_invalid(text: str) -> str:
    """U+FFFD for each invalid byte."""
    return _INVALID.sub("\ufffd", text)
