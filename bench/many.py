"""Several sequences written together against the same ones written one after the other: same tokens, total throughput.

    python bench/many.py [--model DIR] [--sequences 8] [--tokens 96] [--horizons 0,4] [--repeats 5] [--json]
    python bench/many.py --shape e2b [--format q4]

A model's answers go through `Model.scheduler`, nothing kept between runs; a shape has no tokenizer, so its sequences
share passes of the engine directly. Prompts have different lengths, seeds differ, stop tokens are ignored. Times are of
prompts and answers alike; runs are interleaved in one process; the ratio is that of the medians. Exit code 1 where a
token differs.
"""

import argparse
import json
import sys
from pathlib import Path

from foretoken.bench.timing import interleaved

PROMPTS = Path(__file__).parents[1] / "tools" / "embedded_pair" / "heldout_prompts.jsonl"
SHORTEST, STEP = 40, 24  # lengths of a shape's prompts


class Answers:
    """Writes through the API: `solo` one after the other, `together` in shared passes; both give tokens per answer."""

    def __init__(self, options):
        import foretoken

        self.model = foretoken.load(options.model, drafter=options.drafter, format=options.format or "auto")
        self.name = self.model.name
        lines = PROMPTS.read_text(encoding="utf-8").splitlines()
        found = [json.loads(lines[i * len(lines) // options.sequences]) for i in range(options.sequences)]
        self.requests = [self._request(prompt, seed, options) for seed, prompt in enumerate(found)]

    def _request(self, prompt, seed, options):
        text = prompt["messages"][0]["content"] if "messages" in prompt else prompt["text"]
        source = {"messages": prompt["messages"]} if "messages" in prompt and self.model.chat_template else {}
        source = source or {"prompt": text}
        sampling = {"temperature": options.temperature, "top_k": 0, "top_p": 1.0, "seed": seed}
        return {**source, **sampling, "max_tokens": options.tokens, "ignore_eos": True}

    def solo(self, horizon):
        return [self.model.generate(**request, horizon=horizon).tokens for request in self.requests]

    def together(self, horizon):
        scheduler = self.model.scheduler(len(self.requests), prefix_bytes=0)
        answers = [scheduler.submit(**request, horizon=horizon) for request in self.requests]
        for _ in scheduler:
            pass
        return [answer.result.tokens for answer in answers]


class Rows:
    """The same for a shape, with greedy sequences over random prompts."""

    def __init__(self, options):
        from foretoken import engine
        from foretoken.bench import shapes

        self.subject = shapes.build(options.shape, options.format or "q4")
        self.name = self.subject.name
        self.runner = engine.Engine(self.subject.target, 512)
        self.new_tokens = options.tokens
        self.prompts = [self.subject.prompt(SHORTEST + STEP * i, seed=i) for i in range(options.sequences)]

    def _write(self, prompts, horizon):
        pool = self.runner.pool(max(map(len, prompts)) + self.new_tokens, len(prompts))
        sequences = [self.subject.sequence(p, pool, horizon, self.new_tokens) for p in prompts]
        while running := [s for s in sequences if not s.is_full]:
            self.runner.step(running)
            for sequence in running:
                if sequence.error is not None:
                    raise sequence.error
        return [s.tokens[s.prompt_len :] for s in sequences]

    def solo(self, horizon):
        return [self._write([prompt], horizon)[0] for prompt in self.prompts]

    def together(self, horizon):
        return self._write(self.prompts, horizon)


def measure(options):
    writer = Answers(options) if options.shape is None else Rows(options)
    horizons = [int(horizon) for horizon in options.horizons.split(",")]
    written = {}

    def case(how, horizon):
        def run():
            tokens = (writer.solo if how == "solo" else writer.together)(horizon)
            written.setdefault((how, horizon), []).append(tokens)

        return run

    cases = {(how, horizon): case(how, horizon) for horizon in horizons for how in ("solo", "together")}
    times = interleaved(cases, options.repeats)
    first = written["solo", horizons[0]][0]
    total, rows = sum(map(len, first)), []
    for horizon in horizons:
        solo, together = times["solo", horizon], times["together", horizon]
        found = [*written["solo", horizon], *written["together", horizon]]
        rows.append(
            {
                "horizon": horizon,
                "solo_tok_per_s": 1e3 * total / solo.ms,
                "together_tok_per_s": 1e3 * total / together.ms,
                "ratio": solo.ms / together.ms,
                "solo_spread": solo.spread,
                "together_spread": together.spread,
                "same_tokens": all(tokens == first for tokens in found),
            }
        )
    return {"name": writer.name, "sequences": options.sequences, "tokens": total, "cases": rows}


def show(report):
    print(f"{report['name']}: {report['sequences']} sequences, {report['tokens']} tokens", file=sys.stderr)
    print("horizon  one after the other    together   ratio  same tokens", file=sys.stderr)
    for row in report["cases"]:
        solo = f"{row['solo_tok_per_s']:.1f} tok/s ±{row['solo_spread']:.0%}"
        together = f"{row['together_tok_per_s']:.1f} tok/s ±{row['together_spread']:.0%}"
        print(
            f"{row['horizon']:7}  {solo:>19}  {together:>19}  {row['ratio']:5.2f}  {row['same_tokens']}",
            file=sys.stderr,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model")
    parser.add_argument("--drafter", default="auto")
    parser.add_argument("--shape", help="random weights in this shape, in place of a model")
    parser.add_argument("--format", help="default: auto, for a shape q4")
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=96, help="of each answer")
    parser.add_argument("--temperature", type=float, default=0.8, help="of a model; a shape is greedy")
    parser.add_argument("--horizons", default="0,4")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    report = measure(options)
    show(report)
    if options.json:
        print(json.dumps(report))
    sys.exit(not all(row["same_tokens"] for row in report["cases"]))


if __name__ == "__main__":
    main()
