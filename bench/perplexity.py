"""Held-out perplexity of a model in several formats, over the same windows of the same text.

python bench/perplexity.py tools/embedded_pair/heldout.txt --formats f32,q8 [--model DIR] [--json]
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np

import foretoken
from foretoken import cache, engine

WINDOW = 512


def nats(model, ids):
    """Mean negative log-likelihood of ids[1:] given what comes before, windows of 512 tokens each read afresh."""
    total, count = 0.0, 0
    runner = engine.Engine(model.target, WINDOW)
    for start in range(0, len(ids) - 1, WINDOW):
        window = np.array(ids[start : start + WINDOW + 1], dtype=np.int32)
        inputs, labels = window[:-1], window[1:]
        one = cache.Cache(runner.pool(WINDOW))
        one.begin_pass(len(inputs))
        rows = np.arange(len(inputs), dtype=np.int32)
        logits = model.target.logits(model.target.forward(inputs, cache.segments([one], [len(inputs)]), rows))
        logits = logits.astype(np.float64)
        log_sum = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
        total += float((log_sum - logits[rows, labels]).sum())
        count += len(labels)
    return total / count


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--formats", default="f32,q8")
    parser.add_argument("--max-tokens", type=int, default=30000)
    options = parser.parse_args()
    report = {}
    for format in options.formats.split(","):
        model = foretoken.load(options.model, drafter="none", format=format)
        ids = model.tokenizer.encode(options.text.read_text(encoding="utf-8"), add_bos=True)[: options.max_tokens]
        report[format] = math.exp(nats(model, ids))
    first = next(iter(report))
    ratios = {name: value / report[first] for name, value in report.items()}
    print(json.dumps({"tokens": len(ids), "perplexity": report, f"over_{first}": ratios}))


if __name__ == "__main__":
    main()
