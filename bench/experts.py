"""What an expert layer costs: by distinct experts, and by pairs of row and expert.

    python bench/experts.py [--shape 26b-a4b] [--format q4] [--repeats 15] [--json]

One layer in the exact shape of 26B-A4B (128 experts, 8 a row, D 2816, F 704; 428 MB in q4). Each case is a call of
`ops.experts` whose rows choose their experts out of a set of the given size, all of it used, drawn anew every time.
Cases are interleaved in one process; times are medians, the spread is the distance of the quartiles over the median.

by experts  8 rows, 64 pairs, 8 to 64 distinct experts: slope is ms per further expert
by pairs    8 distinct experts, 1 to 8 rows (16, 32 beside): slope is ms per further pair
"""

import json
import sys

import numpy as np

from foretoken.bench import script, shapes
from foretoken.bench.timing import interleaved
from foretoken.cli import terminal
from foretoken.config import target_config
from foretoken.ops import native
from foretoken.weights.formats import in_format
from foretoken.weights.gemma4 import plan

ROWS = 8
ROW_COUNTS = (1, 2, 4, 8, 16, 32)


def expert_layer(shape, format):
    """(config of the layer, gate_up, down) with random weights."""
    config = target_config(shapes.target_json(shape))
    fill = shapes.RandomParts(native)
    names = ("layers.0.experts.gate_up", "layers.0.experts.down")
    made = [fill.make(part) for part in in_format(plan(config), format) if part.name in names]
    return config.layers[0], *made


def choose(rng, layer, rows, distinct):
    """ids (rows, k) int32: every row k of `distinct` experts, ascending, and every one of these taken."""
    pool = rng.permutation(layer.num_experts)[:distinct]
    dealt = np.resize(rng.permutation(pool), rows * layer.top_experts)  # in turn, so k neighbours differ
    return np.sort(dealt.reshape(rows, layer.top_experts)).astype(np.int32)


def run_once(layer, gate_up, down, rng, rows, distinct):
    """A function that makes its inputs, then times one call: seconds."""
    from time import perf_counter

    x = rng.standard_normal((rows, gate_up.k), dtype=np.float32)
    weights = np.full((rows, layer.top_experts), 1 / layer.top_experts, dtype=np.float32)
    out = np.empty_like(x)

    def call():
        ids = choose(rng, layer, rows, distinct)
        started = perf_counter()
        native.experts(x, ids, weights, gate_up, down, layer.num_experts, out)
        return perf_counter() - started

    return call


def slope(points):
    """Of the least-squares line through (x, y)."""
    x, y = np.array(points, dtype=float).T
    return float(np.polyfit(x, y, 1)[0])


def measure(options):
    shape = shapes.SHAPES[options.shape]
    layer, gate_up, down = expert_layer(shape, options.format)
    k, rng = layer.top_experts, np.random.default_rng(0)
    sizes = [n for n in (k, 2 * k, 4 * k, ROWS * k) if n <= layer.num_experts]
    cases = dict.fromkeys([(ROWS, n) for n in sizes] + [(rows, k) for rows in ROW_COUNTS])
    calls = {c: run_once(layer, gate_up, down, rng, *c) for c in cases}
    times = interleaved(calls, options.repeats, script.progress("Measuring", terminal.say))
    by_experts = [(n, times[ROWS, n].ms) for n in sizes]
    by_pairs = [(rows * k, times[rows, k].ms) for rows in ROW_COUNTS if rows <= ROWS]
    return {
        "shape": options.shape,
        "format": options.format,
        "isa": native.isa(),
        "threads": native.threads(),
        "expert_bytes": (gate_up.data.nbytes + down.data.nbytes) // layer.num_experts,
        "cases": [
            {"rows": r, "pairs": r * k, "distinct": n, "ms": times[r, n].ms, "spread": times[r, n].spread}
            for r, n in cases
        ],
        "ms_per_expert": slope(by_experts),
        "ms_per_pair": slope(by_pairs),
        "growth_by_experts": by_experts[-1][1] / by_experts[0][1],
        "growth_by_pairs": by_pairs[-1][1] / by_pairs[0][1],
    }


def show(report):
    print(f"{report['shape']} {report['format']}, {report['isa']}, {report['threads']} threads", file=sys.stderr)
    print("rows  pairs  distinct experts        ms  spread", file=sys.stderr)
    for case in report["cases"]:
        spread = "-" if case["spread"] is None else f"{case['spread']:.1%}"
        print(
            f"{case['rows']:4}{case['pairs']:7}{case['distinct']:18}{case['ms']:10.3f}{spread:>8}",
            file=sys.stderr,
        )
    print(
        f"a further expert {report['ms_per_expert']:.4f} ms, a further pair {report['ms_per_pair']:.4f} ms; "
        f"eight times the experts {report['growth_by_experts']:.2f} x, "
        f"eight times the pairs {report['growth_by_pairs']:.2f} x",
        file=sys.stderr,
    )


def main():
    parser = script.parser(__doc__)
    with_experts = [name for name, shape in shapes.SHAPES.items() if shape.experts[0]]
    parser.add_argument("--shape", default="26b-a4b", choices=with_experts, help="whose layer")
    parser.add_argument("--format", default="q4", choices=shapes.FORMATS, help="of its weights")
    parser.add_argument("--repeats", type=script.count, default=15, help="of every case")
    parser.add_argument("--json", action="store_true", help="print the report")
    options = parser.parse_args()
    report = measure(options)
    show(report)
    if options.json:
        print(json.dumps(report))


if __name__ == "__main__":
    sys.exit(script.run(main, terminal.say))
