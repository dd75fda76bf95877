"""Tokens per round of a pair on held-out prompts, by domain: greedy and at temperature 0.8, loops left out.

    python bench/acceptance.py tools/embedded_pair/heldout_prompts.jsonl [--model DIR --drafter DIR]
    python bench/acceptance.py bench/prompts/small                  # a folder: every file in it
    python bench/acceptance.py … --format q4 --drafter-format q8    # what rounding of weights costs in accepted drafts

An answer is a loop when 48 tokens in a row repeat with a period of 16 or less (a period that does not divide 16 would
hide from a comparison of blocks of 16). Each answer has at most 200 tokens.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

import foretoken
from foretoken.bench import script
from foretoken.bench.loops import is_loop
from foretoken.bench.prompts import load
from foretoken.cli import terminal
from foretoken.horizon import parse_horizon


def measure(model, prompts, temperature, horizon, max_tokens):
    """domain -> figures: answers, loops, tokens per round over all rounds kept, survival by position."""
    numbered = list(enumerate((domain, prompt) for domain, own in prompts.items() for prompt in own))
    advance = script.progress(f"temperature {temperature:g}", terminal.say)
    kept, loops, answers = defaultdict(list), defaultdict(int), defaultdict(int)
    for number, (domain, prompt) in numbered:
        result = model.generate(
            **prompt, temperature=temperature, top_k=0, top_p=1.0, seed=number, horizon=horizon, max_tokens=max_tokens
        )
        advance(number + 1, len(numbered))
        answers[domain] += 1
        if is_loop(result.tokens):
            loops[domain] += 1
        elif result.stats.rounds:
            kept[domain].append(result.stats)
    return {domain: figures(kept[domain], answers[domain], loops[domain]) for domain in sorted(answers)}


def figures(stats, answers, loops):
    rounds = sum(s.rounds for s in stats)
    accepted = sum(s.accepted for s in stats)
    drafted, kept = [0] * 16, [0] * 16
    for s in stats:
        for i, (d, a) in enumerate(zip(s.drafted_by_position, s.accepted_by_position, strict=False)):
            drafted[i] += d
            kept[i] += a
    survival = [round(k / d, 3) for k, d in zip(kept, drafted, strict=True) if d]
    return {
        "answers": answers,
        "loops": loops,
        "rounds": rounds,
        "drafted": sum(drafted),
        "accepted": accepted,
        "tokens_per_round": round((rounds + accepted) / rounds, 3) if rounds else None,
        "survival": survival,
    }


def main():
    parser = script.parser(__doc__)
    parser.add_argument("prompts", type=Path, help="a JSONL file of prompts, or a folder of them")
    parser.add_argument("--model", help="a folder; the small pair that comes along where none is given")
    parser.add_argument("--drafter", default="auto", help="a folder, or auto: the one beside the model")
    parser.add_argument("--format", default="auto", help="of the target's weights")
    parser.add_argument("--drafter-format", default="q8", help="of the drafter's weights")
    parser.add_argument("--horizon", type=parse_horizon, default=4, help="draft tokens a round")
    parser.add_argument("--max-tokens", type=script.count, default=200, help="of each answer")
    options = parser.parse_args()
    prompts = load(options.prompts)
    model = foretoken.load(
        options.model, drafter=options.drafter, format=options.format, drafter_format=options.drafter_format
    )
    report = {}
    for temperature in (0.0, 0.8):
        domains = measure(model, prompts, temperature, options.horizon, options.max_tokens)
        rates = [d["tokens_per_round"] for d in domains.values() if d["tokens_per_round"]]
        loops = sum(d["loops"] for d in domains.values()) / sum(d["answers"] for d in domains.values())
        accepted, drafted = (sum(d[key] for d in domains.values()) for key in ("accepted", "drafted"))
        report[f"temperature {temperature:g}"] = {
            "domains": domains,
            "acceptance_rate": round(accepted / drafted, 4) if drafted else None,
            "mean": round(mean(rates), 3) if rates else None,  # None where every answer is a loop
            "best": max(rates, default=None),
            "loop_share": round(loops, 3),
        }
        print(f"temperature {temperature:g}, horizon {options.horizon}", file=sys.stderr)
        for name, d in domains.items():
            rate = d["tokens_per_round"] or 0.0
            print(
                f"  {name:9} {rate:5.2f} tokens/round  {d['loops']}/{d['answers']} loops  {d['survival']}",
                file=sys.stderr,
            )
        print(
            f"  mean {mean(rates or [0.0]):.2f}, best {max(rates, default=0.0):.2f}, loops {loops:.0%}, "
            f"{accepted / max(drafted, 1):.1%} of draft tokens accepted",
            file=sys.stderr,
        )
    print(json.dumps(report))


if __name__ == "__main__":
    sys.exit(script.run(main, terminal.say))
