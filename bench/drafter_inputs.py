"""What a drafter should be fed: equal short trainings, each with one input changed, on the records of a distill run.

    foretoken distill --data TEXTS --out RUN --steps 1 --tokens 30000
    python bench/drafter_inputs.py RUN --steps 25

Prints, per variant, the held-out share of rounds whose first 1 … 4 drafts are the target's tokens: of the linear start
that is fitted to the same inputs, of the start that training takes, and after the steps.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

try:
    import torch
except ImportError:
    print("drafter_inputs.py needs torch: pip install torch", file=sys.stderr)
    raise SystemExit(2) from None

import foretoken
from foretoken.distill import Plan, batches, copying, folder, records, shape, start, training, writing
from foretoken.distill.batches import Batch
from foretoken.distill.model import Weights, rotations

Change = Callable[[Batch], Batch]


def changes(config) -> dict[str, Change]:
    """Each variant as what it does to a batch."""

    def earlier(batch: Batch) -> Batch:
        bonus = batch.seen["full"].sum(-1)  # keys before the bonus token: its index
        return replace(batch, rotated=rotations(config, bonus - 1))

    return {
        "as specified": lambda batch: batch,
        "position of the row before": earlier,
        "no token": lambda batch: replace(batch, embedded=torch.zeros_like(batch.embedded)),
        "no hidden row": lambda batch: replace(batch, hidden=torch.zeros_like(batch.hidden)),
        "no keys and values": lambda batch: replace(
            batch, stored={kind: (k, torch.zeros_like(v)) for kind, (k, v) in batch.stored.items()}
        ),
    }


class Changed(batches.Rounds):
    """Rounds of the run, every batch changed."""

    change: Change

    def random(self, seed: int, count: int, rounds: int) -> Batch:
        return self.change(super().random(seed, count, rounds))

    def fixed(self, texts, rounds: int) -> Batch:
        return self.change(super().fixed(texts, rounds))


def fitted(w: Weights, inputs: tuple[torch.Tensor, ...], name: str) -> None:
    """The linear start, fitted to what this variant is fed."""
    embedded, before, after = inputs
    if name == "no token":
        embedded = torch.zeros_like(embedded)
    if name == "no hidden row":
        before = torch.zeros_like(before)
    w["pre_projection.weight"] = w["post_projection.weight"].T @ start.regress(torch.cat([embedded, before], 1), after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the --out of a distill run")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    training.EVALUATIONS = 2
    work = args.run / "work"
    plan = Plan.load(work)
    model = foretoken.load(plan.model, drafter="none", format=plan.format)
    texts = writing.load(work / "texts.jsonl").texts
    recorded = records.record(model, texts, work / "records", lambda: False, lambda *_: None)
    assert recorded is not None
    config = shape.checked(model.target.config, shape.config_data(model.target.config, plan.sizes))
    base = start.new(config, model.target, recorded, writing.frequencies(texts), plan.seed)
    inputs = start.rows(model.target, recorded)
    for name, change in changes(config).items():
        w = {n: x.clone() for n, x in base.items()}
        fitted(w, inputs, name)
        rounds = Changed(recorded, config, model.target, folder.ids_of(w, config.vocab_len))
        rounds.change = change
        copies = copying.with_copying(w, config, model.target, recorded, plan.seed)
        linear = training.survival(w, config, rounds, rounds.held_out[: training.HELD_OUT_TEXTS])
        w = w if copies is None else training.better(copies, w, config, rounds)
        with TemporaryDirectory() as place:
            course = training.Training(w, config, rounds, plan.seed, Path(place) / "checkpoint.pt")
            course.run(lambda c: c.step / args.steps, lambda: False, lambda *_: None)
        curve = course.course.curve
        print(json.dumps({"variant": name, "linear": linear, "start": curve[0]["survival"],
                          "trained": curve[-1]["survival"], "loss": curve[-1]["loss"]}), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
