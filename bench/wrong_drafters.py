"""The planner with drafters that do not help: speed over plain decoding, domain by domain.

    python bench/wrong_drafters.py [--model MODEL --drafter DRAFTER --format q4 --prompts PATH]

The model's own drafter guesses, at its own cost and as sure of itself as ever; then all of its tokens are exchanged for
random ones, or those from the second on. Plain and drafted runs take turns, as in `foretoken bench decode`.
"""

import json
import sys

import numpy as np

import foretoken
from foretoken.bench import decode_speed, prompts, script
from foretoken.bench.answers import require_drafter
from foretoken.cli import terminal
from foretoken.drafters.protocol import Draft

KINDS = {"random": 0, "wrong from the second on": 1}  # how many tokens stay


class Spoiled:
    """Another drafter's drafts, of which the first `kept` tokens stay; nobody knows it by its name yet."""

    def __init__(self, drafter, kind, kept, vocab_len):
        self.name = f"mtp, {kind}"
        self._drafter, self._kept, self._vocab_len = drafter, kept, vocab_len
        self._draw = np.random.default_rng(1)

    def propose(self, states, limits):
        return [self._spoiled(draft) for draft in self._drafter.propose(states, limits)]

    def _spoiled(self, draft):
        count = max(len(draft.tokens) - self._kept, 0)
        wrong = self._draw.integers(0, self._vocab_len, count).tolist()
        return Draft([*draft.tokens[: self._kept], *wrong], draft.confidence, self.name)


def measure(options):
    """By kind of drafter: domain → speed of auto over plain, with quartiles."""
    model = foretoken.load(options.model, drafter=options.drafter, format=options.format)
    asked = prompts.load(options.prompts or prompts.default_set(options.model is None), options.limit)
    require_drafter(model)
    own, found = model.drafter, {}
    for kind, kept in KINDS.items():
        model.drafter = Spoiled(own, kind, kept, model.target.config.vocab_len)
        with terminal.progress(kind) as advance:
            report = decode_speed.measure(model, asked, ("0", "auto"), options.max_tokens, options.repeats, advance)
        found[kind] = {
            domain: {name: d[name]["auto"] for name in ("speedup", "speedup_quartiles")} | {"same": d["same_text"]}
            for domain, d in report["domains"].items()
        } | {"mix": {name: report[f"mix_by_horizon{end}"]["auto"] for name, end in
                     (("speedup", ""), ("speedup_quartiles", "_quartiles"))}}  # fmt: skip
    return found


def main():
    options = script.answers_parser(__doc__).parse_args()
    found = measure(options)
    if options.json:
        print(json.dumps(found))
        return
    for kind, domains in found.items():
        print(kind)
        for domain, own in domains.items():
            if own["speedup"] is None:
                print(f"  {domain:12} loops only")
                continue
            low, high = own["speedup_quartiles"] or (float("nan"), float("nan"))
            print(f"  {domain:12} {own['speedup']:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    sys.exit(script.run(main, terminal.say))
