"""Microseconds that planning takes of a round, by draft length; it may take 20.

    python bench/planner_time.py [--json]

A text whose drafts are nearly always right, on a table of known costs: choose, learn, plan the next round. The fastest
of many batches counts; what a loop without a planner takes is subtracted.
"""

import json
import sys
from time import perf_counter
from types import SimpleNamespace

from foretoken.bench import script
from foretoken.cli import terminal
from foretoken.drafters.protocol import NO_DRAFT, Draft
from foretoken.horizon import FixedHorizon, Learned, Paid

BATCHES, ROUNDS = 200, 50


def batch(horizon, costs, limit):
    """Seconds of so many rounds."""
    state = SimpleNamespace(
        tokens=list(range(200)),
        drafter=SimpleNamespace(name="mtp"),
        source="mtp",
        sampler=SimpleNamespace(sampling=SimpleNamespace(temperature=0.0)),
    )
    horizon.read(state)
    confidence = [0.9] * limit
    asked = {"mtp": [limit]} if limit else {}
    started = perf_counter()
    for _ in range(ROUNDS):
        at = len(state.tokens)
        draft = Draft(range(at, at + limit), confidence) if limit else NO_DRAFT
        count = horizon.choose(draft, state, 1)
        state.tokens.extend(range(at, at + (count or limit) + 1))
        paid = Paid(count + 1, 0, 1, count + 1, 200, 1.0 + 0.05 * count, asked, 0.01 * limit)
        if costs is not None:
            costs.add(paid)
        horizon.observe(state, paid)
    return perf_counter() - started


def measure():
    """Draft tokens → microseconds."""
    learned = Learned(event_of=lambda token: 0)
    for rows in 5 * list(range(1, 18)):
        learned.costs.add(Paid(rows, 0, 1, 1, 200, 1.0 + 0.05 * rows, {"mtp": [4]}, 0.04))
    found = {}
    for limit in (0, 1, 2, 4, 8):
        planned = min(batch(learned.horizon("auto"), learned.costs, limit) for _ in range(BATCHES))
        empty = min(batch(FixedHorizon(limit), None, limit) for _ in range(BATCHES))
        found[limit] = 1e6 * (planned - empty) / ROUNDS
    return found


def main():
    parser = script.parser(__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure()
    if options.json:
        print(json.dumps({"us": found}))
        return
    for limit, us in found.items():
        print(f"drafts of {limit}: {us:.1f} µs")


if __name__ == "__main__":
    sys.exit(script.run(main, terminal.say))
