"""Whether an inflated pair writes the embedded pair's tokens, and as many of them a round.

python bench/inflate.py e2b OUT && python bench/inflated_check.py OUT --format f32
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import foretoken

PROMPTS = Path(__file__).parents[1] / "tools/embedded_pair/heldout_prompts.jsonl"


def answers(model, prompts, tokens, horizon):
    """(tokens, drafted, accepted) of every prompt, greedy."""
    for prompt in prompts:
        source = {"messages": prompt["messages"]} if "messages" in prompt else {"prompt": prompt["prompt"]}
        result = model.generate(**source, max_tokens=tokens, temperature=0.0, horizon=horizon)
        yield result.tokens, result.stats.drafted, result.stats.accepted


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="with target/ and drafter/")
    parser.add_argument("--format", default="f32")
    parser.add_argument("--prompts", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--horizon", type=int, default=4)
    options = parser.parse_args()
    lines = [json.loads(line) for line in PROMPTS.read_text().splitlines()]
    prompts = lines[:: max(len(lines) // options.prompts, 1)][: options.prompts]
    formats = {"format": options.format, "drafter_format": options.format}
    small = foretoken.load(**formats)
    large = foretoken.load(options.folder / "target", drafter=options.folder / "drafter", **formats)
    drafted, accepted, same = [0, 0], [0, 0], 0
    pairs = zip(
        answers(small, prompts, options.tokens, options.horizon),
        answers(large, prompts, options.tokens, options.horizon),
        strict=True,
    )
    for number, pair in enumerate(pairs, 1):
        same += pair[0][0] == pair[1][0]
        for i, (_, d, a) in enumerate(pair):
            drafted[i], accepted[i] = drafted[i] + d, accepted[i] + a
        print(f"{number} of {len(prompts)}: {same} the same", file=sys.stderr)
    shares = [a / max(d, 1) for a, d in zip(accepted, drafted, strict=True)]
    report = {"format": options.format, "prompts": len(prompts), "same": same, "acceptance": shares}
    print(json.dumps(report))
    sys.exit(same < len(prompts))


if __name__ == "__main__":
    main()
