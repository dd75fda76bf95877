"""Passages of four domains as JSON lines, for a drafter of a target that only continues text (`foretoken distill`)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import sources

Passage = tuple[str, str]  # what decides whether it is held out, and the text


def code() -> Iterator[Passage]:
    for function in sources.load_functions(sources.load_stdlib()):
        yield function.module, function.code


def docs() -> Iterator[Passage]:
    for entry in sources.load_doc_entries(sources.load_docs()):
        yield entry.page, "\n\n".join([f"`{entry.signature}`", *entry.body])


def prose() -> Iterator[Passage]:
    for chapter, verses in sources.load_bible():
        yield from ((chapter, " ".join(verses[i : i + 6])) for i in range(0, len(verses), 6))


def define() -> Iterator[Passage]:
    for word, paragraphs in sources.load_jargon():
        yield word, f"{word}: " + "\n\n".join(paragraphs)


def beginning(text: str, length: int) -> str:
    """Up to so many characters of a passage, cut behind a word or line."""
    if len(text) <= length:
        return text
    return text[: max(text.rfind(" ", 0, length), text.rfind("\n", 0, length))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for code.jsonl, docs.jsonl, prose.jsonl, define.jsonl")
    parser.add_argument("--count", type=int, default=1500, help="passages of each domain, at most")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument(
        "--heldout", type=int, metavar="N", help="the first N characters of passages that are never trained on"
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for domain in (code, docs, prose, define):
        is_asked = args.heldout is not None
        shortest = 2 * args.heldout if is_asked else 120
        found = sorted(text for key, text in domain() if len(text) >= shortest and sources.is_heldout(key) == is_asked)
        Random(args.seed).shuffle(found)
        kept = [beginning(text, args.heldout) if is_asked else text for text in found[: args.count]]
        lines = (json.dumps({"domain": domain.__name__, "text": text}) for text in kept)
        (args.out / f"{domain.__name__}.jsonl").write_text("\n".join(lines) + "\n")
        print(domain.__name__, len(kept))


if __name__ == "__main__":
    main()
