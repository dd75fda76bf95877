"""Texts that the target writes, with the runtime itself: those on which the drafter learns, and loops to be unlearnt.

An answer that repeats itself goes to loops.jsonl, every other one to texts.jsonl: {"ids", "start", "temperature"},
`start` being the length of the prompt. Training chats with their own answers, which the target only reads, have
temperature -1.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import corpus
from tokenizers import Tokenizer

import foretoken
from foretoken.bench.loops import is_loop

PARALLEL, LIMIT = 16, 200  # answers in one pass; tokens of an answer


def training_prompts(tok: Tokenizer, rng: Random, longest: int = 230) -> Iterator[list[int]]:
    """Prompts from the training side, without end: a chat up to its last request, or the start of a raw text."""
    for doc in corpus.documents(rng, 1 << 30, heldout=False):
        if doc.messages:
            text = corpus.chat_text(list(doc.messages[:-1])) + "<|turn>model\n"
            ids = [corpus.BOS, *tok.encode(text, add_special_tokens=False).ids]
        else:
            ids = [corpus.BOS, *tok.encode(doc.text, add_special_tokens=False).ids[: rng.randrange(24, 96)]]
        if len(ids) <= longest:
            yield ids


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


def write(
    model: foretoken.Model, prompts: Iterator[list[int]], temperatures: Iterator[float], until: float
) -> Iterator:
    """(prompt, temperature, answer) of every answer finished before `until`, seconds since 1970."""
    scheduler, asked = model.scheduler(PARALLEL, prefix_bytes=0), {}
    while time.time() < until:
        while scheduler.num_running + scheduler.num_waiting < PARALLEL:
            prompt, temperature = next(prompts), next(temperatures)
            options = {"temperature": temperature, "top_k": 0, "top_p": 1.0, "horizon": 0, "max_tokens": LIMIT}
            answer = scheduler.submit(prompt, **options)
            asked[id(answer)] = (answer, prompt, temperature)
        scheduler.step()
        for key in [k for k, (answer, _, _) in asked.items() if answer.is_done]:
            answer, prompt, temperature = asked.pop(key)
            yield prompt, temperature, answer.result.tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pair", type=Path, help="folder with target/, as export.py writes it")
    parser.add_argument("out", type=Path, help="folder for texts.jsonl and loops.jsonl; lines are added")
    parser.add_argument("--until", type=float, required=True, help="stop then, seconds since 1970")
    parser.add_argument("--greedy", type=float, default=0.6, help="share of greedy answers; the others at 0.7 to 1")
    parser.add_argument("--borrow", type=int, default=0, help="training answers added to the target's own")
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args()
    tok, rng = Tokenizer.from_file(str(args.pair / "target/tokenizer.json")), Random(args.seed)
    model = foretoken.load(args.pair / "target", drafter="none", format="q8")
    temperatures = (0.0 if rng.random() < args.greedy else rng.choice([0.7, 0.8, 1.0]) for _ in iter(int, 1))
    counts = {"texts": 0, "loops": 0, "tokens": 0}
    files = {name: (args.out / f"{name}.jsonl").open("a", buffering=1) for name in ("texts", "loops")}
    prompts = training_prompts(tok, Random(args.seed))
    for prompt, temperature, answer in write(model, prompts, temperatures, args.until):
        name = "loops" if is_loop(answer) else "texts"
        counts[name] += 1
        counts["tokens"] += len(answer)
        line = {"ids": prompt + answer, "start": len(prompt), "temperature": temperature}
        files[name].write(json.dumps(line) + "\n")
        if (counts["texts"] + counts["loops"]) % 32 == 0:
            print(time.strftime("%H:%M:%S"), counts, flush=True)
    for text in borrowed_texts(tok, Random(args.seed + 1), args.borrow):
        files["texts"].write(json.dumps(text) + "\n")
    print(counts)


if __name__ == "__main__":
    main()
