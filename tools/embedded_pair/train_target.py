"""Train the target from scratch within a time budget, on the processor, resumable.

The schedule is a function of the clock, so a slower machine sees fewer tokens but still ends decayed. The last fifth
mixes in rows of 2048 (the context that config.json states) and rounds weights to q8 or q4 in the forward pass.
The reserved row's logit counts once per padding row of E2B's vocabulary in the softmax.

Answers in which the target repeated itself (loops.jsonl of `generate.py`) are unlearnt beside it: from the third copy
of a block on, the loss is −log(1 − p) of the repeated token (Welleck et al. 2020); copies of the request stay.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import TextIO

import model
import numpy as np
import torch
import torch.nn.functional as F
from tokenizer import RESERVED

from foretoken.bench.loops import repeats
from foretoken.distill import rounding
from foretoken.distill.optim import Optimiser, schedule

BOS = 2
LATE = 0.80  # share of the time after which long batches and rounding join
S = model.TARGET


class Rows:
    """Shuffled rows of T + 1 tokens from a packed stream, each from the start of a document, as prompts are when the
    model is used; picks up a new file when one is put in its place."""

    def __init__(self, path: Path, seed: int):
        self.path, self.rng, self.mtime = path, np.random.default_rng(seed), 0.0
        self.queues: dict[int, list[int]] = {}
        self.reload()

    def reload(self) -> None:
        if self.path.stat().st_mtime != self.mtime:
            self.mtime = self.path.stat().st_mtime
            data = np.load(self.path)
            self.ids, self.weights = data["ids"].astype(np.int64), data["weights"].astype(np.float32)
            self.begins = np.flatnonzero(self.ids == BOS)
            self.queues = {}

    def batch(self, count: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """ids and loss weights, each (count, length + 1); without replacement until all rows were used."""
        queue = self.queues.setdefault(length, [])
        if len(queue) < count:
            shift = int(self.rng.integers(0, length))
            starts = self.begins[np.searchsorted(self.begins, np.arange(shift, self.begins[-1], length), "right") - 1]
            starts = starts[starts < len(self.ids) - length]
            queue[:] = self.rng.permutation(starts).tolist()
        index = np.stack([np.arange(s, s + length + 1) for s in (queue.pop() for _ in range(count))])
        return torch.from_numpy(self.ids[index]), torch.from_numpy(self.weights[index])


class Loops:
    """Rows of answers that repeat themselves: weight −1 for a token that goes on with a loop. The tokens before it keep
    a small weight: with none the model learns that nothing counts in a row that starts like these, and writes noise.
    """

    def __init__(self, path: Path, seed: int):
        self.path, self.rng, self.mtime = path, np.random.default_rng(seed), 0.0
        self.ids = np.zeros((0, 513), np.int64)
        self.reload()

    def reload(self) -> None:
        """Read the file if it is new; without one there is nothing to unlearn."""
        if not self.path.exists() or self.path.stat().st_mtime == self.mtime:
            return
        self.mtime = self.path.stat().st_mtime
        texts = [json.loads(line) for line in self.path.read_text().splitlines()]
        self.ids = np.zeros((len(texts), 513), np.int64)
        self.weights = np.zeros((len(texts), 513), np.float32)
        for row, text in enumerate(texts):
            marks = loop_marks(text["ids"][text["start"] :])
            ids = np.array(text["ids"][: text["start"] + len(marks)])[:513]
            self.ids[row, : len(ids)] = ids
            self.weights[row, 1 : text["start"]] = 0.4
            self.weights[row, text["start"] : len(ids)] = np.where(marks, -1.0, 0.5)[: len(ids) - text["start"]]

    def batch(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """ids and loss weights, each (count, 513)."""
        rows = self.rng.integers(0, len(self.ids), count)
        return torch.from_numpy(self.ids[rows]), torch.from_numpy(self.weights[rows])


def loop_marks(answer: list[int], most: int = 48) -> list[bool]:
    """True for tokens from the third copy of a block on (of up to 32 tokens; short blocks: after 8 equal tokens), cut
    after the first `most` of them, so that the beginning of loops counts and not their length."""
    marks = [False] * len(answer)
    for period in range(1, 33):
        for i, run in enumerate(repeats(answer, period)):
            marks[i] = marks[i] or run > max(period, 8)
    cut = [i for i, mark in enumerate(marks) if mark][:most]
    return marks[: cut[-1] + 1] if cut else []


def loss_fn(w: dict, ids: torch.Tensor, weights: torch.Tensor, rope: dict, masks: dict) -> torch.Tensor:
    """Mean weighted cross-entropy of ids[:, 1:] given ids[:, :-1]; where the weight is −1, of not writing that id."""
    hidden, _ = model.forward(w, S, ids[:, :-1], rope, masks)
    bias = torch.zeros(S.vocab)
    bias[RESERVED] = math.log(model.PADDING_ROWS + 1)
    scores = (model.logits(w, S, hidden) + bias).flatten(0, 1)
    nll = F.cross_entropy(scores, ids[:, 1:].flatten(), reduction="none")
    weight = weights[:, 1:].flatten()
    good, bad = weight.clamp_min(0), (-weight).clamp_min(0)
    against = -torch.log1p(-torch.exp(-nll).clamp_max(0.9999))
    return (nll * good).sum() / good.sum() + 0.3 * (against * bad).sum() / bad.sum().clamp_min(1)


def make_optimiser(w: dict, muon_lr: float) -> Optimiser:
    matrices = [x for n, x in w.items() if x.dim() == 2 and not n.startswith("embed")]
    small = [x for x in w.values() if x.dim() == 1]
    return Optimiser(
        matrices,
        muon_lr,
        [([w["embed_tokens.weight"]], 4e-3), ([w["embed_tokens_per_layer.weight"]], 1e-2), (small, 4e-3)],
    )


def save(path: Path, w: dict, optimiser: Optimiser, info: dict) -> None:
    """Checkpoint under a temporary name, then renamed, so that a reader never sees half of one."""
    tmp = path.with_suffix(".tmp")
    torch.save({"weights": {n: x.detach() for n, x in w.items()}, "optimiser": optimiser.state(), "info": info}, tmp)
    tmp.replace(path)


def evaluate(w: dict, rows: Rows, tables: dict, count: int = 24) -> float:
    """Mean weighted loss on the first `count` held-out rows of 512."""
    index = np.stack([np.arange(s, s + 513) for s in range(0, count * 512, 512)])
    ids, weights = torch.from_numpy(rows.ids[index]), torch.from_numpy(rows.weights[index])
    with torch.no_grad():
        return (
            sum(float(loss_fn(w, ids[i : i + 8], weights[i : i + 8], *tables[512])) for i in range(0, count, 8))
            * 8
            / count
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "work", type=Path, help="work folder: reads data/train.npz and data/heldout.npz, writes target.pt"
    )
    parser.add_argument("--until", type=float, required=True, help="end of the budget, seconds since 1970")
    parser.add_argument("--batch", type=int, default=4, help="rows of 512 tokens per step")
    parser.add_argument("--loops", type=int, default=2, help="rows of a batch from loops.jsonl, where there is one")
    parser.add_argument("--long-share", type=float, default=0.1, help="share of late batches that are rows of 2048")
    parser.add_argument("--again", action="store_true", help="start the rate's schedule anew from the checkpoint")
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def write(log: TextIO, **figures: object) -> None:
    """One line of the log."""
    log.write(json.dumps(figures) + "\n")


def begin(args: argparse.Namespace) -> tuple[dict, Optimiser, dict]:
    """Weights, optimiser and info, new or as the checkpoint has them."""
    path = args.work / "target.pt"
    info = {"step": 0, "tokens": 0, "start": time.time(), "seed": args.seed}
    w = {n: x.requires_grad_() for n, x in model.init_weights(S, args.seed).items()}
    optimiser = make_optimiser(w, args.muon_lr)
    if path.exists():
        old = torch.load(path)
        info = old["info"] | ({"start": time.time()} if args.again else {})
        for n in w:
            w[n].data.copy_(old["weights"][n])
        optimiser.load(old["optimiser"])
    return w, optimiser, info


def batch_of(args: argparse.Namespace, rows: Rows, loops: Loops, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and weights of a step's rows; some of them are loops to be unlearnt, where there are any."""
    num_loops = args.loops if length == 512 and len(loops.ids) else 0
    ids, weights = rows.batch(args.batch * 512 // length - num_loops, length)
    if num_loops:
        more, marks = loops.batch(num_loops)
        ids, weights = torch.cat([ids, more]), torch.cat([weights, marks])
    return ids, weights


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(args.seed)
    w, optimiser, info = begin(args)
    rows = Rows(args.work / "data/train.npz", args.seed + info["step"])
    heldout = Rows(args.work / "data/heldout.npz", 0)
    loops = Loops(args.work / "loops.jsonl", args.seed + info["step"])
    tables = {t: (model.rope_tables(S, torch.arange(t)), model.causal_masks(S, t)) for t in (512, S.context)}
    fast_loss = torch.compile(loss_fn, dynamic=False)
    log = (args.work / "target.jsonl").open("a", buffering=1)
    saved, mean, tick, tick_tokens = time.time(), None, time.time(), 0

    def keep(**more: object) -> None:
        """The held-out loss into the log, and a checkpoint."""
        write(log, step=info["step"], tokens=info["tokens"], heldout=round(evaluate(w, heldout, tables), 4), **more)
        save(args.work / "target.pt", w, optimiser, info)

    while (now := time.time()) < args.until:
        progress = (now - info["start"]) / (args.until - info["start"])
        late = progress > LATE
        length = S.context if late and rng.random() < args.long_share else 512
        kind = rng.choice(["none", "q8", "q4"], p=[0.2, 0.5, 0.3]) if late else "none"
        ids, weights = batch_of(args, rows, loops, length)
        run = fast_loss if length == 512 else loss_fn  # long batches are too few to pay for a compilation
        loss = run(rounding.rounded(w, str(kind)), ids, weights, *tables[length])
        loss.backward()
        if not torch.isfinite(loss):
            raise RuntimeError(f"loss is {loss.item()} at step {info['step']}")
        optimiser.step(schedule(progress))
        info["step"] += 1
        info["tokens"] += args.batch * 512
        tick_tokens += args.batch * 512
        mean = loss.item() if mean is None else 0.95 * mean + 0.05 * loss.item()
        if info["step"] % 10 == 0:
            write(
                log,
                step=info["step"],
                tokens=info["tokens"],
                progress=round(progress, 4),
                loss=round(mean, 4),
                tok_per_s=round(tick_tokens / (time.time() - tick)),
                time=time.strftime("%H:%M:%S"),
            )
            tick, tick_tokens = time.time(), 0
        if time.time() - saved > 240:
            info["elapsed"] = time.time() - info["start"]
            keep(time=time.strftime("%H:%M:%S"))
            rows.reload()
            loops.reload()
            saved = time.time()
    keep(end=True)


if __name__ == "__main__":
    main()
