"""What Python costs of a round: processor time outside native runs, beside rounds whose ops are called one by one.

    python bench/step_overhead.py [--shape e2b | 270m | tiny | none] [--horizons 0,4] [--rounds 25] [--json]

One thread, so that processor time is that of a pass and waiting for others counts for nobody; with n threads a pass
takes about an n-th of it and Python as long as here. Passes that are replayed and passes whose ops Python calls one
by one take turns; medians. `none` measures the embedded pair. A share is Python ÷ all, of replayed rounds.
"""

import json
import sys
import time
from statistics import median

import foretoken
from foretoken import engine
from foretoken.bench import script, shapes, subject
from foretoken.cli import terminal
from foretoken.horizon import parse_horizon
from foretoken.models import gemma4
from foretoken.ops import native

# Gemma 3's smallest in our wiring: many small ops over a large head.
SMALL = shapes.Shape(640, 18, 6, 4, 1, 2048, 512, 256, 2048, 4, clusters=(2048, 32), full_head_len=256)
CONTEXT = 64


class Clock:
    """Processor time of this thread inside `timed` functions, nanoseconds."""

    def __init__(self):
        self.spent = 0

    def timed(self, function):
        def run(*arguments):
            started = time.thread_time_ns()
            try:
                return function(*arguments)
            finally:
                self.spent += time.thread_time_ns() - started

        return run


def watch_native(clock):
    """Count the time of replayed programs and of the target's draws, the only long native calls of a replayed round."""

    class Program(native._core.Program):
        def run(self, times):
            clock.timed(super().run)(times)

    native._core.Program = Program
    native.sample_row = clock.timed(native.sample_row)


def rounds(runner, sequence, clock, count):
    """Per round µs of processor time with ops one by one, replayed, and replayed outside native runs."""
    limit, found = gemma4.MAX_RECORDED_ROWS, ([], [], [])
    advance = script.progress("Measuring", terminal.say)
    for done in range(count + 2):
        advance(done, count + 2)
        times = []
        for rows in (0, limit):
            gemma4.MAX_RECORDED_ROWS = rows
            clock.spent, started = 0, time.thread_time_ns()
            runner.step([sequence])
            times.append((time.thread_time_ns() - started) / 1e3)
        for values, value in zip(found, (*times, times[1] - clock.spent / 1e3), strict=True):
            values.append(value)
    return [median(values[2:]) for values in found]


def measure(options):
    clock = Clock()
    watch_native(clock)
    shapes.SHAPES["270m"] = SMALL
    native.set_threads(1)
    pair = subject.loaded(foretoken.load()) if options.shape == "none" else shapes.build(options.shape, "q4", "q8")
    runner, report = engine.Engine(pair.target, 512), {}
    for horizon in map(parse_horizon, options.horizons.split(",")):
        room = (horizon + 1) * (2 * options.rounds + 8)
        sequence = pair.sequence(pair.prompt(CONTEXT), runner.pool(CONTEXT + room), horizon, room)
        while sequence.is_reading:
            runner.step([sequence])
        one_by_one, replayed, python = rounds(runner, sequence, clock, options.rounds)
        report[horizon] = {
            "one_by_one_us": one_by_one,
            "replayed_us": replayed,
            "python_us": python,
            "python_share": python / replayed,
        }
        print(
            f"{options.shape} horizon {horizon}: ops one by one {one_by_one:,.0f} µs, replayed {replayed:,.0f} µs, "
            f"of which Python {python:,.0f} µs ({python / replayed:.1%})",
            file=sys.stderr,
        )
    return report


def main():
    parser = script.parser(__doc__)
    parser.add_argument("--shape", default="e2b", help="e2b, 270m, tiny …; none: the small pair that comes along")
    parser.add_argument("--horizons", default="0,4", help="draft tokens a round")
    parser.add_argument("--rounds", type=script.count, default=25, help="of every kind")
    parser.add_argument("--json", action="store_true", help="print the report")
    options = parser.parse_args()
    report = measure(options)
    if options.json:
        print(json.dumps({"shape": options.shape, "horizons": report}))


if __name__ == "__main__":
    sys.exit(script.run(main, terminal.say))
