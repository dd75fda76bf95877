"""Write the held-out prompts and the held-out text: nothing in them comes from a record of the training side."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random

import corpus
from tokenizers import Tokenizer

DOMAINS = ("code", "docs", "define", "edit", "json", "prose")
NUM_TEXT = {"code": 1, "prose": 1, "docs": 1}  # prompts of a domain that are plain text to go on with


def write_prompts(tok: Tokenizer, rng: Random, per_domain: int) -> list[dict]:
    """`per_domain` prompts of each domain; single requests, answers of 16 to 150 tokens, no request twice."""
    docs = corpus.Corpus(rng, heldout=True)
    lines, have, texts, seen = [], dict.fromkeys(DOMAINS, 0), dict(NUM_TEXT), set()
    while min(have.values()) < per_domain:
        doc = docs.document()
        if doc is None or have[doc.domain] >= per_domain:
            continue
        if not doc.messages:
            if texts.get(doc.domain, 0) and len(doc.text) > 600:
                texts[doc.domain] -= 1
                have[doc.domain] += 1
                cut = doc.text.rfind("\n", 200, 330) if doc.domain != "prose" else doc.text.rfind(" ", 200, 330)
                lines.append({"domain": doc.domain, "text": doc.text[: max(cut, 200)]})
            continue
        request, answer = doc.messages[0]["content"], doc.messages[1]["content"]
        size = len(tok.encode(answer, add_special_tokens=False).ids)
        if len(doc.messages) == 2 and request not in seen and 16 <= size <= 150:
            seen.add(request)
            have[doc.domain] += 1
            lines.append({"domain": doc.domain, "messages": [doc.messages[0]]})
    return sorted(lines, key=lambda x: DOMAINS.index(x["domain"]))


def write_text(rng: Random, limit: int) -> list[dict]:
    """Held-out documents of all domains, `limit` bytes of text in all: {"domain", "text"}, control tokens spelled."""
    out, size = [], 0
    for doc in corpus.documents(rng, 10_000, heldout=True):
        size += len(doc.text.encode())
        if size > limit:
            return out
        out.append({"domain": doc.domain, "text": doc.text})
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("out", type=Path, help="gets heldout_prompts.jsonl, heldout_text.txt and heldout_domains.json")
    parser.add_argument("--seed", type=int, default=31)
    parser.add_argument("--per-domain", type=int, default=12)
    args = parser.parse_args()
    tok = Tokenizer.from_file(str(args.tokenizer))
    prompts = write_prompts(tok, Random(args.seed), args.per_domain)
    (args.out / "heldout_prompts.jsonl").write_text("".join(json.dumps(p, ensure_ascii=False) + "\n" for p in prompts))
    text = write_text(Random(args.seed + 1), 90_000)
    packed = "".join(f"<bos>{d['text']}" + ("" if d["text"].startswith("<|turn>") else "<eos>") for d in text)
    (args.out / "heldout_text.txt").write_text(packed)
    (args.out / "heldout_domains.json").write_text(json.dumps([d["domain"] for d in text]) + "\n")  # one per <bos>


if __name__ == "__main__":
    main()
