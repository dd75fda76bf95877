"""Train the drafter on text the target wrote: rollouts of 4 draft steps at every answer position, target frozen.

Loss per step: cross-entropy on the token the target chose and on its distribution, half each, through the drafter's
full table; and the same for the cluster of the token through the centroids. Nothing is trained through the top 32.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import drafter as draft
import drafter_init
import model
import torch
import torch.nn.functional as F
from train_target import save

from foretoken.distill import rounding
from foretoken.distill.optim import Optimiser, schedule

S, DS = model.TARGET, draft.DRAFTER
STEPS = 4
ROWS, COUNT = 64, 20  # bonus indices per text and texts per batch: one fixed shape, compiled once
KEYS = 432  # longest text in the batches


def loss_fn(
    w: dict,
    cluster: torch.Tensor,
    embedded: torch.Tensor,
    hidden: torch.Tensor,
    rope: dict,
    masks: dict,
    kv: dict,
    probs: torch.Tensor,
    labels: torch.Tensor,
    weight: torch.Tensor,
):
    """embedded, labels, weight (B, R, STEPS, …), probs (B, R, STEPS, V); returns loss and hits (STEPS,)."""
    total, hits = 0.0, []
    for i in range(STEPS):
        z, hidden = draft.step(w, DS, embedded[:, :, i], hidden, rope, masks, kv)
        wt = weight[:, :, i].flatten()
        label, p = labels[:, :, i].flatten(), probs[:, :, i].flatten(0, 1)
        scores = F.linear(z, w["model.embed_tokens.weight"]).flatten(0, 1)
        logp = scores.log_softmax(-1)
        both = -0.5 * logp.gather(1, label[:, None])[:, 0] - 0.5 * (p * logp).sum(-1)
        groups = F.linear(z, w["masked_embedding.centroids.weight"]).flatten(0, 1).log_softmax(-1)
        pc = torch.zeros_like(groups).index_add(1, cluster, p)
        both = both - 0.5 * groups.gather(1, cluster[label][:, None])[:, 0] - 0.5 * (pc * groups).sum(-1)
        total = total + (both * wt).sum() / wt.sum().clamp_min(1)
        hits.append(((scores.argmax(-1) == label) * wt).sum() / wt.sum().clamp_min(1))
    return total / STEPS, torch.stack(hits)


def load_target(path: Path, kind: str = "q8") -> dict[str, torch.Tensor]:
    """Weights of a checkpoint as deployed: rounded to bf16, then to a block format."""
    return rounding.rounded({n: x.bfloat16().float() for n, x in torch.load(path)["weights"].items()}, kind)


def read_texts(path: Path) -> list[dict]:
    """Texts that `generate.py` wrote: {"ids", "start", "temperature"}."""
    return [json.loads(line) for line in path.read_text().splitlines()]


class Texts:
    """Texts with the target's rows: hidden (T, 384) and the donors' keys and values, computed once."""

    @torch.no_grad()
    def __init__(self, w: dict, texts: list[dict], seed: int):
        self.w, self.g = w, torch.Generator().manual_seed(seed)
        texts = [t for t in texts if len(t["ids"]) <= KEYS]
        self.items: list[dict] = []
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]["ids"]))
        for i in range(0, len(order), 16):
            part = [texts[j] for j in order[i : i + 16]]
            t = max(len(x["ids"]) for x in part)
            ids = torch.tensor([x["ids"] + [0] * (t - len(x["ids"])) for x in part])
            hidden, kv = model.forward(w, S, ids, model.rope_tables(S, torch.arange(t)), model.causal_masks(S, t))
            donors = [kv[S.donor(k)] for k in (model.SLIDING, model.FULL)]
            for r, x in enumerate(part):
                n = len(x["ids"])
                self.items.append(
                    {
                        "ids": torch.tensor(x["ids"]),
                        "start": x["start"],
                        "is_own": x["temperature"] >= 0,
                        "hidden": hidden[r, :n].clone(),
                        "kv": [y[r, :, :n].clone() for pair in donors for y in pair],
                    }
                )
        self.queues: dict[bool, list[int]] = {True: [], False: []}

    def draw(self, is_own: bool, count: int) -> list[dict]:
        """`count` texts of one sort, without replacement until all were used."""
        queue = self.queues[is_own]
        if len(queue) < count:
            sort = [i for i, x in enumerate(self.items) if x["is_own"] == is_own]
            order = torch.randperm(len(sort), generator=self.g).tolist()
            queue[:] = [sort[i] for i in order] * (1 + count // len(sort))
        return [self.items[queue.pop()] for _ in range(count)]

    @torch.no_grad()
    def batch(self, rows: int = ROWS, count: int = COUNT) -> tuple:
        """One batch of `count` texts and up to `rows` random bonus indices of each, padded with weight 0.

        Two texts in three were written by the target; in borrowed ones the label is the target's likeliest token.
        """
        borrowed = count // 3
        part, b = self.draw(True, count - borrowed) + self.draw(False, borrowed), count
        bonus, weight = torch.ones(b, rows, dtype=torch.long), torch.zeros(b, rows, STEPS)
        tokens = torch.zeros(b, rows, STEPS + 1, dtype=torch.long)
        hid = torch.zeros(b, rows, STEPS + 1, S.hidden)  # target's rows that chose tokens[..., 0 .. STEPS]
        kv = [torch.zeros(b, 1, KEYS, d) for d in (S.head_dim,) * 2 + (S.global_head_dim,) * 2]
        for r, x in enumerate(part):
            n, start = len(x["ids"]), x["start"]
            at = torch.arange(start, n - 1)[torch.randperm(n - 1 - start, generator=self.g)[:rows]]
            m = len(at)
            bonus[r, :m] = at
            index = at[:, None] + torch.arange(STEPS + 1)
            weight[r, :m] = (index[:, 1:] < n).float()
            index = index.clamp_max(n - 1)
            tokens[r, :m], hid[r, :m] = x["ids"][index], x["hidden"][index - 1]
            for full, own in zip(kv, x["kv"], strict=True):
                full[r, :, :n] = own
        embedded = F.embedding(tokens[..., :STEPS], self.w["embed_tokens.weight"]) * model.EMBED_SCALE
        probs = model.logits(self.w, S, hid[:, :, 1:]).softmax(-1)
        is_own = torch.tensor([x["is_own"] for x in part])[:, None, None]
        labels = torch.where(is_own, tokens[..., 1:], probs.argmax(-1))
        donors = {model.SLIDING: (kv[0], kv[1]), model.FULL: (kv[2], kv[3])}
        return (
            embedded,
            hid[:, :, 0],
            draft.round_rope(bonus, S.context),
            draft.round_masks(DS, bonus, KEYS),
            donors,
            probs,
            labels,
            weight,
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="work folder: reads target.pt and texts.jsonl, writes drafter.pt")
    parser.add_argument("--until", type=float, required=True, help="end of the budget, seconds since 1970")
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    path = args.work / "drafter.pt"
    target = load_target(args.work / "target.pt")
    w = draft.init_weights(DS, args.seed, target)
    info = {"step": 0, "start": time.time(), "seed": args.seed}
    texts = Texts(target, read_texts(args.work / "texts.jsonl"), args.seed)
    print(len(texts.items), "texts ready", time.strftime("%H:%M:%S"), flush=True)
    if not path.exists():
        drafter_init.warm_start(w, target, texts.items)
    matrices = [x for n, x in w.items() if x.dim() == 2 and "embed" not in n]
    small = [x for x in w.values() if x.dim() == 1 and x.is_floating_point()]
    tables = [w["model.embed_tokens.weight"], w["masked_embedding.centroids.weight"]]
    optimiser = Optimiser(matrices, args.muon_lr, [(tables, 3e-3), (small, 4e-3)])
    if path.exists():
        old = torch.load(path)
        info = old["info"]
        for n in w:
            w[n].copy_(old["weights"][n])
        optimiser.load(old["optimiser"])
    for x in w.values():
        if x.is_floating_point():
            x.requires_grad_()
    cluster = torch.empty(S.vocab, dtype=torch.long)
    cluster[w["masked_embedding.token_ordering"]] = torch.arange(S.vocab) // (S.vocab // DS.num_centroids)
    texts.g.manual_seed(args.seed + info["step"])
    fast_loss = torch.compile(loss_fn, dynamic=False)
    log, saved, mean = (args.work / "drafter.jsonl").open("a", buffering=1), time.time(), None
    while (now := time.time()) < args.until:
        progress = (now - info["start"]) / (args.until - info["start"])
        loss, hits = fast_loss(w, cluster, *texts.batch())
        loss.backward()
        if not torch.isfinite(loss):
            raise RuntimeError(f"loss is {loss.item()} at step {info['step']}")
        optimiser.step(schedule(progress))
        info["step"] += 1
        now_mean = torch.cat([loss.detach()[None], hits.detach()])
        mean = now_mean if mean is None else 0.95 * mean + 0.05 * now_mean
        if info["step"] % 10 == 0:
            log.write(
                json.dumps(
                    {
                        "step": info["step"],
                        "progress": round(progress, 4),
                        "loss": round(float(mean[0]), 4),
                        "hits": [round(float(x), 4) for x in mean[1:]],
                        "time": time.strftime("%H:%M:%S"),
                    }
                )
                + "\n"
            )
        if time.time() - saved > 240:
            save(path, w, optimiser, info)
            saved = time.time()
    save(path, w, optimiser, info)


if __name__ == "__main__":
    main()
