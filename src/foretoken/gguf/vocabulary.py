"""The vocabulary of a GGUF file as a `tokenizers` object that gives the ids of the model's own tokenizer.json.

Two kinds. `gemma4` lists its merges. `llama` is SentencePiece's: it has scores and no merges, so the merges are found
again, as every cut of a piece into two pieces. Gemma's order of merging is that of its ids (the scores say the same
for ordinary pieces, and less for others), and of one piece the cut with the longest left part comes first.
Source: transformers 5.24, how it turns SentencePiece and GGUF vocabularies into byte-pair tokenizers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers

from foretoken.errors import WeightsError
from foretoken.gguf.container import Container

KINDS = ("gemma4", "llama")
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # token types
MAX_PIECES, MAX_PIECE_CHARS = 1 << 19, 256
MAX_MERGES = 16  # for each token of a vocabulary; Gemma has 2
ROLES = ("bos", "eos", "unknown", "padding", "mask", "eot", "eom")


@dataclass(frozen=True)
class Vocabulary:
    """Pieces by id, spelled with ▁ for a space, their types, and pairs of pieces in the order in which they merge."""

    pieces: list[str]
    types: list[int]
    merges: list[tuple[str, str]]
    roles: dict[str, int]  # such as bos, eos, unknown: ids that the file names, beside those of type CONTROL
    source: str

    def backend(self) -> tokenizers.Tokenizer:
        """The tokenizer; raises WeightsError where merges name a piece that there is not."""
        ids = {piece: index for index, piece in enumerate(self.pieces)}
        unknown = self.pieces[self.roles["unknown"]] if "unknown" in self.roles else None
        try:
            model = models.BPE(vocab=ids, merges=self.merges, fuse_unk=True, unk_token=unknown, byte_fallback=True)
        except Exception as error:  # the library raises the bare class
            raise WeightsError(f"the merges of {self.source} cannot be used: {error}. Use another file.") from error
        found = tokenizers.Tokenizer(model)
        found.normalizer = normalizers.Replace(" ", "▁")
        found.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        typed, special = list(enumerate(zip(self.pieces, self.types, strict=True))), set(self.roles.values())
        control = [piece for index, (piece, kind) in typed if kind == CONTROL or index in special]
        found.add_special_tokens([tokenizers.AddedToken(piece, normalized=False, special=True) for piece in control])
        visible = [piece for index, (piece, kind) in typed if kind == USER_DEFINED and index not in special]
        found.add_tokens([tokenizers.AddedToken(piece, normalized=False, special=False) for piece in visible])
        return found

    def special_tokens(self) -> dict[str, str]:
        """bos_token and its like, for a chat template."""
        return {"bos_token": "<bos>"} | {f"{name}_token": self.pieces[index] for name, index in self.roles.items()}


def read_vocabulary(container: Container) -> Vocabulary:
    """The vocabulary of a file, checked; raises WeightsError."""
    fields, path = container.fields, container.path
    kind = fields.get("tokenizer.ggml.model")
    pieces, types = fields.get("tokenizer.ggml.tokens"), fields.get("tokenizer.ggml.token_type")
    if kind is None or pieces is None:
        raise WeightsError(f"{path} has no tokenizer. Use a file that has one, as converters write it.")
    if not isinstance(kind, str) or kind not in KINDS:
        raise WeightsError(f"{path} has a tokenizer of kind {str(kind)[:40]!r}, expected {' or '.join(KINDS)}.")
    if not isinstance(pieces, list) or not 0 < len(pieces) <= MAX_PIECES:
        raise WeightsError(f"tokenizer.ggml.tokens of {path} is no list of up to {MAX_PIECES} texts.")
    if max(map(len, pieces)) > MAX_PIECE_CHARS:
        raise WeightsError(f"{path} has a token of more than {MAX_PIECE_CHARS} characters, which no Gemma has.")
    if not isinstance(types, np.ndarray) or types.dtype.kind not in "iu" or len(types) != len(pieces):
        raise WeightsError(f"tokenizer.ggml.token_type of {path} does not have a whole number for each token.")
    stored, listed = pieces, "tokenizer.ggml.merges" in fields
    pieces = pieces if listed else [_spelled(piece) for piece in pieces]
    known = set(pieces)
    if len(known) < len(pieces):
        raise WeightsError(f"{path} has a token twice in its vocabulary. Use another file.")
    if "tokenizer.ggml.unknown_token_id" not in fields and not known.issuperset(BYTES):
        raise WeightsError(
            f"{path} has neither all byte tokens nor an unknown one: text would be lost. Use another file."
        )
    return Vocabulary(
        pieces=pieces,
        # what is stored as spaces is found by merging: as a token of its own it would be found in literal ▁ too
        types=[int(t) if a == b else NORMAL for t, a, b in zip(types, stored, pieces, strict=True)],
        merges=_merges(fields, kind, pieces, str(path)),
        roles=_roles(fields, len(pieces)),
        source=str(path),
    )


def _spelled(piece: str) -> str:
    """Runs of spaces stand in files of SentencePiece's kind as they are, and in a tokenizer as everywhere else."""
    return "▁" * len(piece) if piece.strip(" ") == "" else piece


def _roles(fields: dict[str, Any], count: int) -> dict[str, int]:
    found = {name: fields.get(f"tokenizer.ggml.{name}_token_id") for name in ROLES}
    return {name: i for name, i in found.items() if isinstance(i, int) and 0 <= i < count}


def _merges(fields: dict[str, Any], kind: str, pieces: list[str], source: str) -> list[tuple[str, str]]:
    """Pairs in the order of merging: the file's own list, or found again in a vocabulary of SentencePiece's."""
    listed = fields.get("tokenizer.ggml.merges")
    if listed is None:
        if kind != "llama":
            raise WeightsError(f"{source} has no tokenizer.ggml.merges. Use another file.")
        found = list(islice(_cuts(pieces), MAX_MERGES * len(pieces) + 1))
        if len(found) > MAX_MERGES * len(pieces):
            raise WeightsError(f"the tokens of {source} can be merged in more than {MAX_MERGES} ways each. "
                               "Use another file.")  # fmt: skip
        return found
    pairs = [tuple(merge.split(" ")) for merge in listed] if isinstance(listed, list) else []
    if not isinstance(listed, list) or any(len(pair) != 2 for pair in pairs):
        raise WeightsError(f"tokenizer.ggml.merges of {source} is no list of pairs. Use another file.")
    return pairs


def _cuts(pieces: list[str]) -> Iterator[tuple[str, str]]:
    known = set(pieces)
    for piece in pieces:
        for at in range(len(piece) - 1, 0, -1):
            left, right = piece[:at], piece[at:]
            if left in known and right in known:
                yield left, right
