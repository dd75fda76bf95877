"""Figures of a pair: held-out loss per domain, share of loops, survival by position and tokens per round at horizon 4.

All with the compact torch code and weights rounded to q8 (the deployed format); `--format none` leaves them bf16.
A round at bonus index b keeps the leading draft tokens that equal the target's own; it yields one more token. For text
sampled at 0.8 the drafter's choice is argmax(logits / 0.8 + the same Gumbel noise that the target had at that index).
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import corpus
import drafter as draft
import model
import torch
import torch.nn.functional as F
from generate import generate, gumbel, has_loop
from tokenizer import RESERVED
from tokenizers import Tokenizer
from verify import load_f32

S, DS = model.TARGET, draft.DRAFTER
HORIZON, LIMIT = 4, 200


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


@torch.no_grad()
def survivors(
    w: dict, d: dict, prompt: list[int], answer: list[int], temperature: float, noise: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Matches (R, HORIZON) bool of a round at every index of the answer but the last, and the share of the target's
    choices that are among the drafter's 32 clusters at the first step (R,)."""
    ids = torch.tensor([prompt + answer])
    n, start = ids.shape[1], len(prompt)
    hidden, kv = model.forward(w, S, ids, *tables(n))
    bonus = torch.arange(start, n - 1)[None]
    donors = {k: kv[S.donor(k)] for k in (model.SLIDING, model.FULL)}
    rope, masks = draft.round_rope(bonus, S.context), draft.round_masks(DS, bonus, n)
    row, hits = hidden[:, bonus[0] - 1], []
    padded = F.pad(ids[0], (0, HORIZON + 1), value=-1)
    for i in range(HORIZON):
        newest = padded[bonus[0] + i].clamp_min(0)
        z, row = draft.step(d, DS, model.embed(w, S, newest[None])[0], row, rope, masks, donors)
        scores = draft.head_logits(d, DS, z[0])
        label = padded[bonus[0] + i + 1]
        if i == 0:
            recall = scores.gather(1, label.clamp_min(0)[:, None])[:, 0] > scores.amin(1)
        if temperature > 0:
            at = (bonus[0] + i + 1 - start).clamp_max(len(noise) - 1)
            scores = scores / temperature + noise[at]
        hits.append(scores.argmax(1) == label)
    return torch.stack(hits, 1), recall


def rounds(hits: torch.Tensor) -> tuple[int, int, torch.Tensor]:
    """Walk the answer: tokens written by rounds, rounds, and accepted-by-position counts (HORIZON,).

    hits (R, HORIZON): row r is a round whose bonus is answer token r; its first draft guesses token r + 1. A stop id
    ends the text, so drafts past the end match nothing.
    """
    at, count, by_place = 0, 0, torch.zeros(HORIZON)
    while at < len(hits):
        kept = int(hits[at].long().cumprod(0).sum())
        by_place[:kept] += 1
        at += kept + 1
        count += 1
    return min(at, len(hits)), count, by_place


def load_prompts(tok: Tokenizer, path: Path) -> list[tuple[str, list[int]]]:
    prompts = []
    for line in path.read_text().splitlines():
        p = json.loads(line)
        text = corpus.chat_text(p["messages"]) + "<|turn>model\n" if "messages" in p else p["text"]
        prompts.append((p["domain"], tok.encode(text).ids))
    return prompts


def acceptance(
    w: dict, d: dict, prompts: list[tuple[str, list[int]]], temperature: float, seed: int
) -> tuple[dict, list]:
    """Per domain: texts, loops, ended, mean length, tokens per round, survival; texts with a loop are left out."""
    noise = gumbel((len(prompts), LIMIT, S.vocab), torch.Generator().manual_seed(seed)) if temperature > 0 else None
    take = (lambda i, rows: noise[rows, i]) if temperature > 0 else (lambda i, rows: torch.zeros(len(rows), S.vocab))
    answers = generate(w, [p for _, p in prompts], LIMIT, [temperature] * len(prompts), take)
    out: dict[str, dict] = {}
    for i, ((domain, prompt), answer) in enumerate(zip(prompts, answers, strict=True)):
        entry = out.setdefault(
            domain,
            {
                "texts": 0,
                "loops": 0,
                "ended": 0,
                "length": 0,
                "tokens": 0,
                "rounds": 0,
                "kept": torch.zeros(HORIZON),
                "recall": [],
            },
        )
        entry["texts"] += 1
        entry["ended"] += answer[-1] in (1, 106)
        entry["length"] += len(answer)
        if has_loop(answer):
            entry["loops"] += 1
            continue
        if len(answer) < 3:
            continue
        hits, recall = survivors(w, d, prompt, answer, temperature, noise[i] if noise is not None else None)
        tokens, count, kept = rounds(hits)
        entry["tokens"] += tokens
        entry["rounds"] += count
        entry["kept"] += kept
        entry["recall"].append(recall)
    for entry in out.values():
        entry["length"] = round(entry["length"] / entry["texts"], 1)
        entry["tokens_per_round"] = round(entry["tokens"] / max(1, entry["rounds"]), 3)
        entry["survival"] = [round(float(x) / max(1, entry["rounds"]), 3) for x in entry.pop("kept")]
        recall = torch.cat(entry.pop("recall")) if entry["recall"] else torch.zeros(1)
        entry["recall_top32"] = round(float(recall.float().mean()), 4)
    mean = {
        "tokens_per_round": round(sum(e["tokens_per_round"] for e in out.values()) / len(out), 3),
        "loops": round(sum(e["loops"] for e in out.values()) / len(prompts), 3),
    }
    return out | {"mean": mean}, answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pair", type=Path, help="folder with target/ and drafter/")
    parser.add_argument("--format", default="q8", choices=list(model.ROUND))
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="small shapes: 2 threads are slower on a busy machine")
    parser.add_argument("--out", type=Path, help="write the figures as JSON there")
    parser.add_argument("--show", type=int, default=0, help="print this many greedy answers per domain")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    here = Path(__file__).parent
    tok = Tokenizer.from_file(str(args.pair / "target/tokenizer.json"))
    raw = load_f32(args.pair / "target", "model.")
    w, d = model.rounded(raw, args.format), model.rounded(load_f32(args.pair / "drafter"), args.format)
    text = (here / "heldout_text.txt").read_text()
    domains = json.loads((here / "heldout_domains.json").read_text())
    figures: dict = {
        "format": args.format,
        "loss": text_loss(w, tok, text, domains),
        "loss_unrounded": text_loss(raw, tok, text, domains),
    }
    prompts = load_prompts(tok, here / "heldout_prompts.jsonl")
    figures["greedy"], answers = acceptance(w, d, prompts, 0.0, args.seed)
    figures["temperature_0.8"], _ = acceptance(w, d, prompts, 0.8, args.seed)
    print(re.sub(r"\n\s+(?=[-\d\]])", " ", json.dumps(figures, indent=1)))
    if args.out:
        args.out.write_text(re.sub(r"\n\s+(?=[-\d\]])", " ", json.dumps(figures, indent=1)) + "\n")
    shown: dict[str, int] = {}
    for (domain, prompt), answer in zip(prompts, answers, strict=True):
        shown[domain] = shown.get(domain, 0) + 1
        if shown[domain] <= args.show:
            print(
                f"==== {domain}\n{tok.decode(prompt[1:], skip_special_tokens=False)}"
                f"[[{tok.decode(answer, skip_special_tokens=False)}]]"
            )


if __name__ == "__main__":
    main()
