"""Passages of four domains as JSON lines, for a drafter of a target that only continues text (`foretoken distill`)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import sources


def code() -> Iterator[str]:
    for function in sources.load_functions(sources.load_stdlib()):
        if not sources.is_heldout(function.module):
            yield function.code


def docs() -> Iterator[str]:
    for entry in sources.load_doc_entries(sources.load_docs()):
        if not sources.is_heldout(entry.page):
            yield "\n\n".join([f"`{entry.signature}`", *entry.body])


def prose() -> Iterator[str]:
    for chapter, verses in sources.load_bible():
        if not sources.is_heldout(chapter):
            yield from (" ".join(verses[i : i + 6]) for i in range(0, len(verses), 6))


def define() -> Iterator[str]:
    for word, paragraphs in sources.load_jargon():
        if not sources.is_heldout(word):
            yield f"{word}: " + "\n\n".join(paragraphs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for code.jsonl, docs.jsonl, prose.jsonl, define.jsonl")
    parser.add_argument("--count", type=int, default=1500, help="passages of each domain, at most")
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for domain in (code, docs, prose, define):
        found = sorted(text for text in domain() if len(text) >= 120)
        Random(args.seed).shuffle(found)
        lines = (json.dumps({"text": text}) for text in found[: args.count])
        (args.out / f"{domain.__name__}.jsonl").write_text("\n".join(lines) + "\n")
        print(domain.__name__, min(len(found), args.count))


if __name__ == "__main__":
    main()
