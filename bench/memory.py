"""Peak memory of a model that reads a prompt and decodes with its drafter, against its packed weights and cache.

    python bench/memory.py [--shape e2b] [--format q4] [--tokens 600] [--new 64] [--json]
    python bench/memory.py --model DIR [--drafter DIR]

Holds when the peak of the resident set is at most packed weights + 300 MB + cache, and of the mapped per-layer table
only pages with rows that were read are resident; exit code 1 where it does not. Packed weights are those of target and
drafter without the mapped table; the cache is all of its pages. 1 MB is 10^6 bytes. Linux only (/proc/self).
The table of a shape is a sparse file of zeros (foretoken.bench.shapes), read by row like a real one.
"""

import json
import mmap
import sys
from pathlib import Path

from foretoken.bench import script
from foretoken.cli import terminal
from foretoken.horizon import parse_horizon

ROOM_BYTES = 300_000_000
FIELDS = {"VmHWM": "peak", "VmRSS": "resident", "RssAnon": "anonymous", "RssFile": "of files"}


def status():
    """Bytes by name, of this process now."""
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    found = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[0].rstrip(":") in FIELDS}
    return {FIELDS[name]: found[name] for name in FIELDS}


def resident_at(address):
    """Bytes resident of the mapping that holds an address."""
    is_inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            first, last = (int(part, 16) for part in words[0].split("-"))
            is_inside = first <= address < last
        elif is_inside and words[0] == "Rss:":
            return int(words[1]) * 1024
    return 0


def bytes_of_rows(table, num_rows):
    """Most bytes of memory pages that so many rows of a table touch."""
    row_bytes = table.data.nbytes // table.n
    return num_rows * (row_bytes // mmap.PAGESIZE + 2) * mmap.PAGESIZE


def open_subject(options):
    from foretoken.bench import shapes, subject

    if options.model is None:
        need = shapes.memory_bytes(options.shape, options.format, options.drafter_format)
        shape = shapes.SHAPES[options.shape]
        subject.check_context(options.shape, shape.context, "tokens", options.tokens, options.new)
        terminal.say(
            f"building random weights in the shape of {options.shape} in {options.format}, with its drafter: "
            f"{need / 1e6:,.1f} MB of memory, and a cache for {options.tokens + options.new} tokens"
        )
        advance = script.progress("Building", terminal.say)
        return shapes.build(options.shape, options.format, options.drafter_format, progress=advance)
    import foretoken

    terminal.say(f"loading {Path(options.model).name}")
    format, drafter_format = options.format, options.drafter_format
    found = subject.loaded(
        foretoken.load(options.model, drafter=options.drafter, format=format, drafter_format=drafter_format)
    )
    found.check_context("tokens", options.tokens, options.new)
    return found


def decode(subject, options):
    """The finished sequence and the pool of its cache."""
    from foretoken import engine

    runner = engine.Engine(subject.target, 512)
    pool = runner.pool(options.tokens + options.new)
    prompt = subject.prompt(options.tokens)
    sequence = subject.sequence(prompt, pool, options.horizon, options.new)
    advance = script.progress("Writing", terminal.say)
    while not sequence.is_full:
        advance(len(sequence.tokens) - sequence.prompt_len, options.new)
        runner.step([sequence])
        if sequence.error is not None:
            raise sequence.error
    return sequence, pool


def measure(options):
    stages = {"modules loaded": status()}
    subject = open_subject(options)
    stages["weights in place"] = status()
    sequence, pool = decode(subject, options)
    stages["answer written"] = status()
    table = subject.target.weights.per_layer_table
    table_resident = resident_at(table.data.ctypes.data) if subject.table_bytes else 0
    rows_read = len(sequence.tokens) + sequence.stats.drafted
    table_allowed = bytes_of_rows(table, rows_read) if subject.table_bytes else 0
    cache_bytes = sum(array.nbytes for arrays in (pool.keys, pool.values) for array in arrays.values())
    peak, allowed = stages["answer written"]["peak"], subject.packed_bytes + ROOM_BYTES + cache_bytes
    return {
        "name": subject.name,
        "format": subject.format,
        "tokens": len(sequence.tokens),
        "drafted": sequence.stats.drafted,
        "packed_bytes": subject.packed_bytes,
        "cache_bytes": cache_bytes,
        "peak_bytes": peak,
        "over_bytes": peak - subject.packed_bytes - cache_bytes,
        "table_bytes": subject.table_bytes,
        "table_resident_bytes": table_resident,
        "table_rows_bytes": table_allowed,
        "holds": peak <= allowed and table_resident <= table_allowed,
        "stages": stages,
    }


def show(report):
    for name, values in report["stages"].items():
        figures = ", ".join(f"{what} {count / 1e6:,.1f}" for what, count in values.items())
        print(f"{name:17} {figures} MB", file=sys.stderr)
    for name in ("packed", "cache", "peak", "over", "table", "table_resident", "table_rows"):
        print(f"{name.replace('_', ' '):17} {report[name + '_bytes'] / 1e6:,.1f} MB", file=sys.stderr)
    print(f"at most packed + 300 MB + cache, table not resident: {report['holds']}", file=sys.stderr)


def main():
    parser = script.parser(__doc__)
    parser.add_argument("--shape", default="e2b", help="random weights in this shape")
    parser.add_argument("--model", help="a folder, in place of a shape")
    parser.add_argument("--drafter", default="auto", help="of a model: a folder, or auto: the one beside it")
    parser.add_argument("--format", default="q4", help="of the target's weights")
    parser.add_argument("--drafter-format", default="q8", help="of the drafter's weights")
    parser.add_argument("--tokens", type=script.count, default=600, help="of the prompt")
    parser.add_argument("--new", type=script.count, default=64, help="tokens to decode")
    parser.add_argument("--horizon", type=parse_horizon, default=4, help="draft tokens a round")
    parser.add_argument("--json", action="store_true", help="print the report")
    options = parser.parse_args()
    report = measure(options)
    show(report)
    if options.json:
        print(json.dumps(report))
    return int(not report["holds"])


if __name__ == "__main__":
    sys.exit(script.run(main, terminal.say))
