"""Held-out perplexity of a model in several formats, over the same windows of the same text.

python bench/perplexity.py tools/embedded_pair/heldout_text.txt --formats f32,q8 [--model DIR]
"""

import json
import math
import sys
from pathlib import Path

import numpy as np

import foretoken
from foretoken import cache, engine
from foretoken.bench import script
from foretoken.bench.prompts import read_text
from foretoken.cli import terminal
from foretoken.errors import InputError
from foretoken.weights import FORMATS

WINDOW = 512


def nats(model, ids, advance):
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
        advance(count, len(ids) - 1)
    return total / count


def main():
    parser = script.parser(__doc__)
    parser.add_argument("text", type=Path, help="a UTF-8 file")
    parser.add_argument("--model", help="a folder; the small pair that comes along where none is given")
    parser.add_argument("--formats", default="f32,q8", help="to compare, the first one being the yardstick")
    parser.add_argument("--max-tokens", type=script.count, default=30000, help="of the text")
    options = parser.parse_args()
    text, formats, report = read_text(options.text), options.formats.split(","), {}
    for format in formats:  # all of them, before the first one takes its time
        if format not in ("auto", *FORMATS):
            raise InputError(f"format is {format[:40]!r}, expected some of auto, {', '.join(FORMATS)}.")
    for format in formats:
        model = foretoken.load(options.model, drafter="none", format=format)
        ids = model.tokenizer.encode(text, add_bos=True)[: options.max_tokens]
        if len(ids) < 2:
            raise InputError(f"{len(ids)} tokens of {options.text} are too few, expected at least 2.")
        report[format] = math.exp(nats(model, ids, script.progress(format, terminal.say)))
    first = next(iter(report))
    ratios = {name: value / report[first] for name, value in report.items()}
    print(json.dumps({"tokens": len(ids), "perplexity": report, f"over_{first}": ratios}))


if __name__ == "__main__":
    sys.exit(script.run(main, terminal.say))
