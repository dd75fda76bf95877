"""Several sequences written together against the same ones written one after the other: same tokens, total throughput.

    python bench/many.py [--model DIR] [--sequences 8] [--tokens 96] [--horizons 0,4] [--repeats 5] [--json]
    python bench/many.py --shape e2b [--format q4]

A model's answers go through `Model.scheduler`, nothing kept between runs; a shape has no tokenizer, so its sequences
share passes of the engine directly. Prompts have different lengths, seeds differ, stop tokens are ignored. Times are of
prompts and answers alike; runs are interleaved in one process; the ratio is that of runs in the same turn. Exit code 1
where a token differs.

Beside it the target's passes, prompts' too, and how many rows one has: the same rows in fewer passes, so the ratio is
the passes saved, less what a pass costs more for its rows (`foretoken bench verify-cost`).
"""

import json
import sys
from pathlib import Path

from foretoken import engine
from foretoken.bench import script
from foretoken.bench.timing import fields, interleaved
from foretoken.cli import terminal
from foretoken.horizon import parse_horizon

PROMPTS = Path(__file__).parents[1] / "tools" / "embedded_pair" / "heldout_prompts.jsonl"
SHORTEST, STEP = 40, 24  # lengths of a shape's prompts


class Passes:
    """Counts the engine's passes from now on."""

    def __init__(self):
        self.count = 0
        step = engine.Engine.step

        def counted(runner, sequences):
            self.count += 1
            step(runner, sequences)

        engine.Engine.step = counted


def rows(stats):
    """Rows that the target scored for an answer: its prompt's, and each round's draft tokens and one more."""
    return stats.prompt_tokens - stats.cached_tokens + stats.rounds + stats.drafted


class Answers:
    """Writes through the API: `solo` one after the other, `together` in shared passes.

    Both give, for every answer, its tokens and its `Stats`.
    """

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
        results = [self.model.generate(**request, horizon=horizon) for request in self.requests]
        return [(result.tokens, result.stats) for result in results]

    def together(self, horizon):
        scheduler = self.model.scheduler(len(self.requests), prefix_bytes=0)
        answers = [scheduler.submit(**request, horizon=horizon) for request in self.requests]
        for _ in scheduler:
            pass
        return [(answer.result.tokens, answer.result.stats) for answer in answers]


class Rows:
    """The same for a shape, with greedy sequences over random prompts."""

    def __init__(self, options):
        from foretoken.bench import shapes

        advance = script.progress("Building", terminal.say)
        self.subject = shapes.build(options.shape, options.format or "q4", progress=advance)
        longest = SHORTEST + STEP * (options.sequences - 1)
        self.subject.check_context("tokens", options.tokens, longest)
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
        return [(s.tokens[s.prompt_len :], s.stats) for s in sequences]

    def solo(self, horizon):
        return [self._write([prompt], horizon)[0] for prompt in self.prompts]

    def together(self, horizon):
        return self._write(self.prompts, horizon)


def measure(options):
    horizons = [parse_horizon(horizon) for horizon in options.horizons.split(",")]
    writer = Answers(options) if options.shape is None else Rows(options)
    passes, written, counted = Passes(), {}, {}

    def case(how, horizon):
        def run():
            before = passes.count
            answers = (writer.solo if how == "solo" else writer.together)(horizon)
            written.setdefault((how, horizon), []).append([tokens for tokens, _ in answers])
            counted[how, horizon] = passes.count - before, sum(rows(stats) for _, stats in answers)

        return run

    cases = {(how, horizon): case(how, horizon) for horizon in horizons for how in ("solo", "together")}
    times = interleaved(cases, options.repeats, script.progress("Measuring", terminal.say))
    first = written["solo", horizons[0]][0]
    total, found = sum(map(len, first)), []
    for horizon in horizons:
        row = {"horizon": horizon}
        for how in ("solo", "together"):
            time, (num_passes, num_rows) = times[how, horizon], counted[how, horizon]
            row |= {
                f"{how}_tok_per_s": 1e3 * total / time.ms,
                f"{how}_spread": time.spread,
                f"{how}_passes": num_passes,
                f"{how}_rows_per_pass": num_rows / num_passes,
            }
        row |= fields("ratio", times["solo", horizon].over(times["together", horizon]))
        texts = [*written["solo", horizon], *written["together", horizon]]
        found.append(row | {"same_tokens": all(tokens == first for tokens in texts)})
    return {"name": writer.name, "sequences": options.sequences, "tokens": total, "cases": found}


def show(report):
    print(f"{report['name']}: {report['sequences']} sequences, {report['tokens']} tokens", file=sys.stderr)
    print(
        "          one after the other            together                            \n"
        "horizon     tok/s  passes  rows/pass       tok/s  passes  rows/pass  ratio  spread  same tokens",
        file=sys.stderr,
    )
    for row in report["cases"]:
        parts = [
            f"{row[f'{how}_tok_per_s']:10.1f}{row[f'{how}_passes']:8}{row[f'{how}_rows_per_pass']:11.2f}"
            for how in ("solo", "together")
        ]
        spread = "-" if row["ratio_spread"] is None else f"{row['ratio_spread']:.0%}"
        print(
            f"{row['horizon']:7}{parts[0]}  {parts[1]}{row['ratio']:7.2f}{spread:>8}  {row['same_tokens']}",
            file=sys.stderr,
        )


def main():
    parser = script.parser(__doc__)
    parser.add_argument("--model", help="a folder; the small pair that comes along where none is given")
    parser.add_argument("--drafter", default="auto", help="a folder, or auto: the one beside the model")
    parser.add_argument("--shape", help="random weights in this shape, in place of a model")
    parser.add_argument("--format", help="default: auto, for a shape q4")
    parser.add_argument("--sequences", type=script.count, default=8, help="at once")
    parser.add_argument("--tokens", type=script.count, default=96, help="of each answer")
    parser.add_argument("--temperature", type=float, default=0.8, help="of a model; a shape is greedy")
    parser.add_argument("--horizons", default="0,4", help="draft tokens a round")
    parser.add_argument("--repeats", type=script.count, default=5, help="of every case")
    parser.add_argument("--json", action="store_true", help="print the report")
    options = parser.parse_args()
    report = measure(options)
    show(report)
    if options.json:
        print(json.dumps(report))
    return int(not all(row["same_tokens"] for row in report["cases"]))


if __name__ == "__main__":
    sys.exit(script.run(main, terminal.say))
