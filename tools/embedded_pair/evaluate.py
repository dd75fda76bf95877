"""Held-out loss of a target by domain and by part, in nats a token, as exported and rounded to a format.

What a user sees of a pair (loops, tokens per round) is measured with the runtime: bench/acceptance.py.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import corpus
import model
import torch
import torch.nn.functional as F
from tokenizer import RESERVED
from tokenizers import Tokenizer
from verify import load_f32

from foretoken.distill import rounding

S = model.TARGET


@torch.no_grad()
def text_loss(w: dict, tok: Tokenizer, text: str, domains: list[str]) -> dict[str, float]:
    """Nats per token of the held-out documents (each on its own, after <bos>), by part and by domain."""
    sums: dict[str, list[float]] = {}
    model_ids = tok.encode("model\n", add_special_tokens=False).ids
    for doc, domain in zip(text.split("<bos>")[1:], domains, strict=True):
        ids = tok.encode(doc).ids[:2000]
        hidden, _ = model.forward(w, S, torch.tensor([ids]), *tables(len(ids)))
        scores = model.logits(w, S, hidden[0, :-1])
        scores[:, RESERVED] += torch.tensor(model.PADDING_ROWS + 1.0).log()
        nll = F.cross_entropy(scores, torch.tensor(ids[1:]), reduction="none").tolist()
        weight = corpus.weights(ids, model_ids)[1:]
        is_chat = "<|turn>" in doc
        for x, a in zip(nll, weight, strict=True):
            for name in ("all", domain, "raw" if not is_chat else "answers" if a == 1 else "requests"):
                entry = sums.setdefault(name, [0.0, 0])
                entry[0] += x
                entry[1] += 1
    return {n: round(a / b, 4) for n, (a, b) in sums.items()} | {"tokens": sums["all"][1]}


def tables(t: int) -> tuple[dict, dict]:
    return model.rope_tables(S, torch.arange(t)), model.causal_masks(S, t)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pair", type=Path, help="folder with target/")
    parser.add_argument("--format", default="q8", choices=list(rounding.ROUND))
    parser.add_argument("--threads", type=int, default=1, help="small shapes: 2 threads are slower on a busy machine")
    parser.add_argument("--out", type=Path, help="write the figures as JSON there")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    here = Path(__file__).parent
    tok = Tokenizer.from_file(str(args.pair / "target/tokenizer.json"))
    raw = load_f32(args.pair / "target", "model.")
    w = rounding.rounded(raw, args.format)
    text = (here / "heldout_text.txt").read_text()
    domains = json.loads((here / "heldout_domains.json").read_text())
    figures: dict = {
        "format": args.format,
        "loss": text_loss(w, tok, text, domains),
        "loss_unrounded": text_loss(raw, tok, text, domains),
    }
    print(re.sub(r"\n\s+(?=[-\d\]])", " ", json.dumps(figures, indent=1)))
    if args.out:
        args.out.write_text(re.sub(r"\n\s+(?=[-\d\]])", " ", json.dumps(figures, indent=1)) + "\n")


if __name__ == "__main__":
    main()
