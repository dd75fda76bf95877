"""Batched generation with the compact target, and the file of texts the target wrote, on which the drafter learns."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import corpus
import model
import torch
from tokenizer import RESERVED
from tokenizers import Tokenizer

S = model.TARGET
STOP = {1, 106}


def has_loop(ids: list[int], block: int = 16) -> bool:
    """True if some block of 16 tokens stands three times in a row (a period that divides 16 counts too)."""
    run = 0
    for i in range(block, len(ids)):
        run = run + 1 if ids[i] == ids[i - block] else 0
        if run >= 2 * block:
            return True
    return False


def gumbel(shape: tuple[int, ...], g: torch.Generator) -> torch.Tensor:
    return -torch.log(-torch.log(torch.rand(shape, generator=g).clamp(1e-20, 1 - 1e-7)))


@torch.no_grad()
def generate(
    w: dict, prompts: list[list[int]], limit: int, temperature: list[float], noise: Callable
) -> list[list[int]]:
    """Continue each prompt until a stop id (kept) or `limit` new tokens.

    temperature per prompt, 0 is greedy; noise(i, rows) gives Gumbel noise (len(rows), V) for new token i of those
    prompts: the token is argmax(logits / temperature + noise), so the same noise can be given to a drafter.
    """
    count, width = len(prompts), max(map(len, prompts))
    pad = torch.tensor([width - len(p) for p in prompts])
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    temp = torch.tensor(temperature)
    tables = model.rope_tables(S, torch.arange(width + limit))
    rows, out, past = list(range(count)), [[] for _ in prompts], None
    place = torch.arange(width)
    for i in range(limit):
        end = width + i
        keys = torch.arange(end)
        positions = (place[None] - pad[:, None]).clamp_min(0)
        rope = {k: (c[positions][:, None], s[positions][:, None]) for k, (c, s) in tables.items()}
        full = (keys[None, None] <= place[None, :, None]) & (keys[None, None] >= pad[:, None, None])
        full = (full | (keys[None, None] == place[None, :, None]))[:, None]  # padding rows see themselves
        masks = {model.FULL: full, model.SLIDING: full & (keys > place[:, None] - S.window)}
        hidden, past = model.forward(w, S, ids, rope, masks, past)
        scores = model.logits(w, S, hidden[:, -1])
        scores[:, RESERVED] = -1e9
        sampled = (scores / temp.clamp_min(1e-3)[:, None] + noise(i, rows)).argmax(1)
        choice = torch.where(temp > 0, sampled, scores.argmax(1))
        for row, token in zip(rows, choice.tolist(), strict=True):
            out[row].append(token)
        alive = [j for j, t in enumerate(choice.tolist()) if t not in STOP]
        if not alive:
            break
        if len(alive) < len(rows):
            keep = torch.tensor(alive)
            rows, pad, temp, choice = [rows[j] for j in alive], pad[keep], temp[keep], choice[keep]
            past = {k: (a[keep], b[keep]) for k, (a, b) in past.items()}
        ids, place = choice[:, None], torch.tensor([end])
    return out


def load_target(path: Path, kind: str = "q8") -> dict[str, torch.Tensor]:
    """Weights of a checkpoint as deployed: rounded to bf16, then to a block format."""
    return model.rounded({n: x.bfloat16().float() for n, x in torch.load(path)["weights"].items()}, kind)


def training_prompts(tok: Tokenizer, rng: Random, count: int, longest: int = 230) -> list[list[int]]:
    """Prompts from the training side: a chat up to its last request, or the start of a raw text."""
    prompts: list[list[int]] = []
    for doc in corpus.documents(rng, 2 * count, heldout=False):
        if doc.messages:
            text = corpus.chat_text(list(doc.messages[:-1])) + "<|turn>model\n"
            ids = [2, *tok.encode(text, add_special_tokens=False).ids]
        else:
            ids = [2, *tok.encode(doc.text, add_special_tokens=False).ids[: rng.randrange(24, 96)]]
        if len(ids) <= longest and len(prompts) < count:
            prompts.append(ids)
    return prompts


def borrowed_texts(tok: Tokenizer, rng: Random, count: int, longest: int = 430) -> list[dict]:
    """Training chats with their own last answers: read by the target, not written by it (temperature -1)."""
    texts: list[dict] = []
    for doc in corpus.documents(rng, 3 * count, heldout=False):
        if doc.messages and len(texts) < count:
            prompt = tok.encode(corpus.chat_text(list(doc.messages[:-1])) + "<|turn>model\n").ids
            answer = tok.encode(doc.messages[-1]["content"] + "<turn|>", add_special_tokens=False).ids
            if len(prompt) + len(answer) <= longest and 8 <= len(answer) <= corpus.MAX_ANSWER:
                texts.append({"ids": prompt + answer, "start": len(prompt), "temperature": -1.0})
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="work folder: reads target.pt and tok/, writes texts.pt")
    parser.add_argument("--until", type=float, required=True, help="stop starting new batches then, seconds since 1970")
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--borrow", type=int, default=500, help="training answers added to the target's own")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tok = Tokenizer.from_file(str(args.work / "tok/tokenizer.json"))
    w, rng, g = load_target(args.work / "target.pt"), Random(args.seed), torch.Generator().manual_seed(args.seed)
    prompts = training_prompts(tok, rng, args.count)
    texts, batch, loops = [], 64, 0
    chunks = []
    for i in range(0, len(prompts), 512):  # similar lengths together, within a slice that is itself a fair sample
        part = sorted(prompts[i : i + 512], key=len)
        groups = [part[j : j + batch] for j in range(0, len(part), batch)]
        rng.shuffle(groups)
        chunks += groups
    for group in chunks:
        if time.time() > args.until:
            break
        temps = [rng.choice([0.0, 0.0, 0.7, 1.0]) for _ in group]
        answers = generate(w, group, 200, temps, lambda i, rows: gumbel((len(rows), S.vocab), g))
        for p, a, t in zip(group, answers, temps, strict=True):
            if has_loop(a):
                loops += 1
            elif len(a) >= 4:
                texts.append({"ids": p + a, "start": len(p), "temperature": t})
        print(
            time.strftime("%H:%M:%S"),
            len(texts),
            "texts,",
            sum(len(t["ids"]) - t["start"] for t in texts),
            "tokens written,",
            loops,
            "loops left out",
            flush=True,
        )
    texts += borrowed_texts(tok, Random(args.seed + 1), args.borrow)
    torch.save(texts, args.work / "texts.pt")


if __name__ == "__main__":
    main()
