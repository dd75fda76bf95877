"""The planner on the clock of another model: answers of a small pair, each pass as long as it would be there.

    python bench/other_clock.py VERIFY_COST.json [--model MODEL --drafter DRAFTER --prompts PATH]

VERIFY_COST.json is what `foretoken bench verify-cost --json` printed. Which tokens are guessed and kept is real; time
is made up from that table, with some noise, so that what `auto` chooses is compared with fixed horizons over many
prompts in a minute, and without a busy machine's own opinion. It replaces no measurement by the clock. What is learnt
and packed goes to a temporary folder, so a large model takes its time at every start.
"""

import argparse
import bisect
import json
import os
import random
import sys
import tempfile
from pathlib import Path

import foretoken
from foretoken import engine
from foretoken.bench import answers, decode_speed, prompts, script
from foretoken.cli import terminal
from foretoken.drafters import choice
from foretoken.drafters.suffix import SuffixDrafter
from foretoken.errors import InputError

OTHER_S = 0.0003  # Python and judging, a round
DRAFT_SHARE = 0.013  # of a pass of one row, for a draft token


class Clock:
    """Seconds that pass only when somebody says so."""

    def __init__(self, ms_by_rows, noise):
        self.now, self._noise, self._luck = 0.0, noise, random.Random(1)
        self._rows = sorted(ms_by_rows)
        self._seconds = [ms_by_rows[rows] / 1e3 for rows in self._rows]

    def __call__(self):
        return self.now

    def pass_s(self, rows):
        """Between measured row counts a line; past them the last slope, if it rises."""
        at = min(max(bisect.bisect_left(self._rows, rows), 1), len(self._rows) - 1)
        (low, high), (first, last) = self._rows[at - 1 : at + 1], self._seconds[at - 1 : at + 1]
        slope = (last - first) / (high - low)
        return first + (max(slope, 0.0) if rows > high else slope) * (rows - low)

    def spend(self, seconds):
        self.now += seconds * self._luck.lognormvariate(0.0, self._noise)


def read_costs(path):
    """The milliseconds by rows of a report of `bench verify-cost`; raises InputError for another file."""
    try:
        ms = json.loads(path.read_text(encoding="utf-8"))["ms"]
        found = {script.count(rows): float(value) for rows, value in ms.items()}
        if len(found) > 1 and 1 in found and all(0.0 < value < 1e6 for value in found.values()):
            return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError, argparse.ArgumentTypeError) as error:
        raise InputError(f"{path} is no report of `foretoken bench verify-cost --json`: {error}") from error
    raise InputError(f"{path} lacks `ms` by rows, one row among them.")


def put_in(clock, drafter):
    """Let everything that measures rounds look at this clock, and passes and drafts take their time on it."""
    engine.perf_counter = choice.perf_counter = answers.perf_counter = clock
    scored, step = engine.Engine._scored, engine.Engine.step

    def timed_scored(self, sequences, asked, keeps):
        clock.spend(clock.pass_s(sum(map(len, asked))))
        return scored(self, sequences, asked, keeps)

    def timed_step(self, sequences):
        clock.spend(OTHER_S)
        step(self, sequences)

    engine.Engine._scored, engine.Engine.step = timed_scored, timed_step
    models = drafter.models.values() if isinstance(drafter, choice.Choice) else [drafter]
    for model in models:
        if isinstance(model, SuffixDrafter):
            continue  # costs nothing beside such passes

        def propose(states, limits, own=model.propose):
            drafts = own(states, limits)
            clock.spend(DRAFT_SHARE * clock.pass_s(1) * max(len(draft.tokens) for draft in drafts))
            return drafts

        model.propose = propose


def line(name, speedups, over_best):
    """Speed over plain decoding by horizon, and of `auto` over the best number where it is among them."""
    shown = " ".join(f"{horizon} {value:.2f}" for horizon, value in speedups.items())
    return f"{name:12} {shown}" + (f"  auto over the best number {over_best['value']:.3f}" if over_best else "")


def main():
    parser = script.answers_parser(__doc__)
    parser.add_argument("costs", type=Path, help="a report of `foretoken bench verify-cost --json`")
    parser.add_argument("--horizon", default="0,3,4,6,8,auto", help="to compare")
    parser.add_argument("--noise", type=float, default=0.03, help="of a pass, as a share of it")
    parser.set_defaults(limit=12, max_tokens=64, repeats=3)
    options = parser.parse_args()
    ms_by_rows, horizons = read_costs(options.costs), options.horizon.split(",")
    with tempfile.TemporaryDirectory() as folder:  # what is learnt on that clock is nobody else's
        os.environ["FORETOKEN_CACHE_DIR"] = folder
        model = foretoken.load(options.model, drafter=options.drafter, format=options.format)
        asked = prompts.load(options.prompts or prompts.default_set(options.model is None), options.limit)
        answers.require_drafter(model)
        put_in(Clock(ms_by_rows, options.noise), model.drafter)
        with terminal.progress("answers") as advance:
            report = decode_speed.measure(model, asked, horizons, options.max_tokens, options.repeats, advance)
    if options.json:
        print(json.dumps(report))
        return
    for domain, own in report["domains"].items():
        if own["plain_tok_per_s"] is not None:
            print(line(domain, own["speedup"], own["auto_over_best"]))
    print(line("mix", report["mix_by_horizon"], report["mix_auto_over_best"]))


if __name__ == "__main__":
    sys.exit(script.run(main, terminal.say))
