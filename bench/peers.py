"""Us beside other runtimes in one run: linears of a shape, and passes, perplexity and answers of one model file.

    python bench/peers.py --shape e2b [--layers 4] [--bits 4] [--json] [--save]
    python bench/peers.py --model FILE.gguf [--build ik=FOLDER]… [--text FILE] [--prompts PATH] [--json] [--save]

Every runtime is a process that stands still while another is timed; cases take turns; medians, with quartiles of the
ratio (the other's time over ours: above 1 we are faster). What is not installed is named and skipped. None of them is
needed by foretoken: `pip install openvino onnxruntime onnx llama-cpp-python` (CMAKE_ARGS=-DGGML_NATIVE=ON).
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from foretoken.bench import peer_report, peer_runs, prompts, record, script
from foretoken.bench.peer_process import Unavailable
from foretoken.cli import terminal
from foretoken.errors import InputError
from foretoken.horizon import MAX_HORIZON, parse_horizon
from foretoken.ops import native
from foretoken.weights import FORMATS


def measure(options, rows):
    """The report, part by part."""
    report = {
        "machine": record.machine(),
        "threads": options.threads,
        "isa": native.isa(),
        "rows": rows,
        "repeats": options.repeats,
    }
    if options.shape is not None:
        makers = peer_runs.linear_makers(options.shape, options.layers, options.bits, options.threads, max(rows))
        report["linears"] = {"shape": options.shape, "layers": options.layers, "bits": options.bits}
        with terminal.progress("Linears") as advance:
            report["linears"] |= peer_runs.linears(makers, rows, options.repeats, terminal.say, advance)
    if options.model is not None:
        report["model"] = measure_model(options, rows)
    return report


def measure_model(options, rows):
    """What is measured of a model file."""
    asked = prompts.load(options.prompts, options.limit) if options.prompts is not None else {}
    text = prompts.read_text(options.text) if options.text is not None else None
    ours = {"format": options.format, "drafter": options.drafter}
    makers = peer_runs.model_makers(
        options.model, dict(options.build), options.context, ours, options.threads, max(rows)
    )
    found = {"file_bytes": options.model.stat().st_size, "context": options.context}
    with peer_runs.Peers(makers, terminal.say) as peers:
        with terminal.progress("Passes") as advance:
            found |= peer_runs.passes(peers, rows, options.repeats, advance)
        found["peers"], found["skipped"] = peers.infos(), peers.skipped
        if text is not None:
            terminal.say("reading the text for its perplexity")
            found["perplexity"] = or_skipped(lambda: peer_runs.perplexity(peers, text, options.text_tokens))
        if asked:
            lookup = partial(peer_runs.llama, options.model, options.threads, options.context, has_lookup=True)
            every = [prompt for own in asked.values() for prompt in own]
            with terminal.progress("Answers") as advance:
                found["drafting"] = or_skipped(
                    lambda: peer_runs.drafting(peers, every, options.max_tokens, options.horizon, lookup, advance)
                )
    return found


def or_skipped(part):
    """What `part` gives, or why it could not be measured: what was measured before it must not be lost."""
    try:
        return part()
    except Unavailable as error:
        return {"skipped": peer_report.without_paths(str(error))}


def show(report):
    """Tables on stderr."""
    machine = report["machine"]
    print(f"{machine['processor']}, {report['threads']} threads, ours {report['isa']}", file=sys.stderr)
    if "linears" in report:
        own = report["linears"]
        layers = "all layers" if own["layers"] is None else f"{own['layers']} layers"
        print(f"\nlinears of {own['shape']}, {layers}, {own['bits']} bits", file=sys.stderr)
        show_peers(own)
        show_cases(own["cases"])
        show_best(own["best"])
    if "model" in report:
        print(f"\npasses after {report['model']['context']} tokens, all rows' logits", file=sys.stderr)
        show_peers(report["model"])
        show_cases(report["model"]["cases"])
        show_rest(report["model"])


def show_peers(part):
    """Who takes part, and who does not."""
    for name, info in part["peers"].items():
        about = [f"{key} {info[key]}" for key in ("version", "format", "kernel", "tool", "note") if key in info]
        if "bits_per_weight" in info:
            about.append(f"{info['bits_per_weight']:.3g} bits a weight, error {info['error']:.1e}")
        print(f"  {name}: {', '.join(about)}", file=sys.stderr)
    for name, reason in part["skipped"].items():
        print(f"  {name}: skipped, {reason}", file=sys.stderr)


def show_cases(cases):
    """Median times, over one row, and over ours with the quartiles of that ratio."""
    if not cases:
        return
    rows = list(next(iter(cases.values()))["ms"])
    print(f"\n{'ms (spread; over one row)':34}" + "".join(f"{count + ' rows':>26}" for count in rows), file=sys.stderr)
    for name, own in cases.items():
        spreads = {c: "?" if own["spread"][c] is None else f"{own['spread'][c]:.0%}" for c in rows}
        cells = [f"{own['ms'][c]:.3f} ({spreads[c]}; {own['relative'][c]:.2f})" for c in rows]
        print(f"{name:34}" + "".join(f"{cell:>26}" for cell in cells), file=sys.stderr)
    ratios = {name: own["over_ours"] for name, own in cases.items() if "over_ours" in own}
    if ratios:
        print("over ours (quartiles)", file=sys.stderr)
    for name, own in ratios.items():
        cells = [with_quartiles(own[c]) for c in rows]
        print(f"{name:34}" + "".join(f"{cell:>26}" for cell in cells), file=sys.stderr)


def with_quartiles(figure):
    """A ratio, and how far it scatters where that is known."""
    ends = "" if figure["quartiles"] is None else " ({:.2f}-{:.2f})".format(*figure["quartiles"])
    return f"{figure['ratio']:.2f}{ends}"


def show_best(best):
    """Each library's fastest case at each row count, over our fastest."""
    print("each at its best, over our best", file=sys.stderr)
    for library, own in best.items():
        cells = [f"{cell['ratio']:.2f} by {cell['case']}" for cell in own.values() if "ratio" in cell]
        if cells:
            print(f"{library:34}" + "  ".join(cells), file=sys.stderr)


def show_rest(model):
    """Perplexity and answers."""
    for name in ("perplexity", "drafting"):
        if "skipped" in model.get(name, {}):
            print(f"\n{name} skipped: {model[name]['skipped']}", file=sys.stderr)
    if "perplexity" in (found := model.get("perplexity", {})):
        values = ", ".join(f"{name} {value:.4f}" for name, value in found["perplexity"].items())
        same = {None: "", True: "; both make the same tokens of it", False: "; the two make DIFFERENT tokens of it"}
        print(f"\nperplexity over {found['tokens']} tokens: {values}{same[found['same_tokens']]}", file=sys.stderr)
    if "tok_per_s" in (found := model.get("drafting", {})):
        print(
            f"\nanswers to {found['prompts']} prompts, {found['timed_prompts']} timed ({found['loops']} loops); "
            f"drafter {found['drafter']}",
            file=sys.stderr,
        )
        for name, speed in found["tok_per_s"].items():
            text = found["texts"][name]
            shown = "-" if speed is None else f"{speed:.1f} tok/s"
            parts = "" if text["parts_after"] is None else f", others part after {text['parts_after']:g} tokens"
            print(f"{name:34}{shown:>16}   same text as ours {text['same']}/{text['answers']}{parts}", file=sys.stderr)
        if found["best_over_best"] is not None:
            print(f"our best over their best {found['best_over_best']:.2f}", file=sys.stderr)


def named_path(text):
    """NAME=PATH."""
    name, separator, path = text.partition("=")
    if not separator or not name or not path or name in (peer_runs.OURS, peer_runs.LLAMA):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH with a name of its own")
    return name, Path(path).absolute()


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", help="linears with random weights in the shape of this model")
    parser.add_argument("--layers", type=int, help="only the first layers of the shape; head always")
    parser.add_argument("--bits", type=int, default=4, choices=(4, 8), help="of the shape's weights")
    parser.add_argument("--model", type=Path, help="a GGUF file: passes by us, llama-cpp-python and builds")
    parser.add_argument("--build", type=named_path, action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--context", type=int, default=512, help="tokens before the passes")
    parser.add_argument("--text", type=Path, help="perplexity of this text")
    parser.add_argument("--text-tokens", type=int, default=8192, help="so many of its first tokens")
    parser.add_argument("--prompts", type=Path, help="answers to the prompts of this file or folder")
    parser.add_argument("--limit", type=int, default=2, help="prompts of each domain")
    parser.add_argument("--max-tokens", type=int, default=128, help="of an answer")
    parser.add_argument("--format", default="auto", choices=("auto", *FORMATS), help="of our weights of the model")
    parser.add_argument("--drafter", default="auto", help="ours")
    parser.add_argument("--horizon", default="auto", help="ours")
    parser.add_argument("--rows", default="1,2,4,8,16")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=native.threads(), help="of everyone; default: physical cores")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", metavar="auto|PATH", help="keep the report, dated; auto: in bench/results")
    return parser.parse_args()


def checked(options):
    """The row counts; raises InputError for anything that cannot be measured."""
    if options.shape is None and options.model is None:
        raise InputError("nothing to measure. Give --shape, --model, or both.")
    if options.model is None and (options.build or options.text is not None or options.prompts is not None):
        raise InputError("--build, --text and --prompts are for a model. Give --model FILE.gguf.")
    if options.model is not None:
        options.model = options.model.absolute()
        if not options.model.is_file():
            raise InputError(f"{options.model} is no file.")
    parse_horizon(options.horizon)
    try:
        rows = [int(text) for text in options.rows.split(",")]
    except ValueError:
        rows = []
    if not rows or rows[0] != 1 or not all(1 <= count <= MAX_HORIZON + 1 for count in rows):
        raise InputError(f"rows are {options.rows!r}, expected 1 first, and none above {MAX_HORIZON + 1}.")
    for name in ("threads", "repeats", "context", "text_tokens", "limit", "max_tokens"):
        if vars(options)[name] < 1:
            raise InputError(f"{name} is {vars(options)[name]}, expected at least 1.")
    return rows


def main():
    options = parsed()
    rows = checked(options)
    where = record.target(options.save) if options.save else None
    report = measure(options, rows)
    show(report)
    if where is not None:
        label = " ".join(filter(None, ("peers", options.shape, "model" if options.model else None)))
        terminal.say(f"saved as {record.save(report, label, where).name}")
    if options.json:
        terminal.print_json(report)


if __name__ == "__main__":
    sys.exit(script.run(main, terminal.say))
