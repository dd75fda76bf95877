"""Curves of both trainings: thinned JSON and one picture."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def read(path: Path, key: str, most: int = 150) -> list[dict]:
    """Log lines that have `key`, at most about `most` of them."""
    lines = [x for x in map(json.loads, path.read_text().splitlines()) if key in x]
    return lines[:: max(1, len(lines) // most)] + (lines[-1:] if len(lines) > most else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="work folder with target.jsonl and drafter.jsonl")
    parser.add_argument("out", type=Path, help="gets curves.json and curves.png")
    args = parser.parse_args()
    train, held = read(args.work / "target.jsonl", "loss"), read(args.work / "target.jsonl", "heldout")
    draft = read(args.work / "drafter.jsonl", "hits")
    data = {
        "target_train": [[x["tokens"], x["loss"]] for x in train],
        "target_heldout": [[x.get("tokens", x["step"] * 4096), x["heldout"]] for x in held],
        "drafter_loss": [[x["step"], x["loss"]] for x in draft],
        "drafter_hits_by_position": [[x["step"], *x["hits"]] for x in draft],
    }
    (args.out / "curves.json").write_text(json.dumps(data) + "\n")
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    left.plot(
        [t / 1e6 for t, _ in data["target_train"]],
        [y for _, y in data["target_train"]],
        label="training (running mean)",
    )
    left.plot(
        [t / 1e6 for t, _ in data["target_heldout"]], [y for _, y in data["target_heldout"]], "o-", label="held out"
    )
    left.set(title="Target", xlabel="million tokens", ylabel="loss, nats per token", ylim=(0, 6))
    left.legend()
    for i in range(4):
        right.plot(
            [x[0] for x in data["drafter_hits_by_position"]],
            [x[1 + i] for x in data["drafter_hits_by_position"]],
            label=f"draft token {i + 1}",
        )
    right.set(
        title="Drafter: share of the target's tokens guessed (training texts)",
        xlabel="step",
        ylabel="share",
        ylim=(0, 1),
    )
    right.legend()
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    fig.tight_layout()
    fig.savefig(args.out / "curves.png", dpi=110)


if __name__ == "__main__":
    main()
