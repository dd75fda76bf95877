"""The floors of speed and exactness, measured one after the other and held against what is asked.

    python bench/floors.py FOLDER --gemma GEMMA3_270M.gguf [--only NAME,…]

Each run is a command of its own. FOLDER keeps what it printed, and what is there is not measured again: so a run that
was interrupted goes on, and another state of the code takes another folder. FOLDER also takes the inflated pair (3 GB),
which is written once. All of it takes about two hours on two cores that do nothing else. What is missing is named and
skipped. Floors marked vnni are asked of AVX-512 VNNI only. Exit code 1: a floor that is asked was missed.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from foretoken import files
from foretoken.bench import script
from foretoken.cli import terminal
from foretoken.errors import InputError
from foretoken.ops import native

HERE = Path(__file__).parent
FORETOKEN = [sys.executable, "-c", "from foretoken.cli import main; main()"]
INFLATED, GEMMA = "{inflated}", "{gemma}"  # where they lie is put in here
SMALL = str(HERE / "prompts" / "small")
PAIR = ["--model", f"{INFLATED}/target", "--drafter", f"mtp={INFLATED}/drafter,suffix", "--format", "q4"]
AVX2 = {"FORETOKEN_ISA": "avx2"}
BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}  # a second start finds what the first one compiled


@dataclass(frozen=True)
class Run:
    """A command whose last line on stdout is its report; of the `times` that it runs the last one counts."""

    command: list
    environment: dict = field(default_factory=dict)
    times: int = 1


def foretoken(*arguments):
    return [*FORETOKEN, *arguments]


def bench(script_name, *arguments):
    return [sys.executable, str(HERE / script_name), *arguments]


def decode(*arguments):
    return foretoken("bench", "decode", *arguments, "--json")


RUNS = {
    "q4": Run(foretoken("bench", "verify-cost", "--shape", "e2b", "--format", "q4", "--rows", "1,4,8,16",
                        "--repeats", "15", "--json")),
    "q8": Run(foretoken("bench", "verify-cost", "--shape", "e2b", "--format", "q8", "--rows", "1,4,8,16",
                        "--repeats", "9", "--json")),
    "avx2": Run(foretoken("bench", "verify-cost", "--shape", "e2b", "--format", "q4", "--rows", "1,4",
                          "--repeats", "15", "--json"), AVX2),
    "linears": Run(bench("peers.py", "--shape", "e2b", "--json")),
    "draft": Run(foretoken("bench", "draft", "--shape", "e2b", "--format", "q4", "--json")),
    "prompt": Run(foretoken("bench", "prompt", "--shape", "e2b", "--format", "q4", "--tokens", "512", "--json")),
    "start": Run(foretoken("generate", "Hello", *PAIR, "--max-tokens", "1", "--json"), BYTECODE, times=2),
    "selftest": Run(foretoken("selftest", "--tokens", "20000", "--json")),
    "selftest-auto": Run(foretoken("selftest", "--tokens", "4000", "--horizon", "auto", "--json")),
    "inflated": Run(decode(*PAIR, "--prompts", SMALL, "--limit", "12", "--max-tokens", "64",
                           "--horizon", "0,4,6,auto", "--repeats", "2")),
    "inflated-wrong": Run(bench("wrong_drafters.py", *PAIR, "--prompts", SMALL, "--limit", "2", "--max-tokens", "64",
                                "--repeats", "2", "--json")),
    "embedded": Run(decode("--prompts", SMALL, "--limit", "12", "--max-tokens", "100", "--horizon", "0,4,6,auto",
                           "--repeats", "9")),
    "embedded-wrong": Run(bench("wrong_drafters.py", "--prompts", SMALL, "--limit", "8", "--max-tokens", "64",
                                "--repeats", "80", "--json")),
    "gemma": Run(decode("--model", GEMMA, "--drafter", f"mtp={HERE.parent}/models/gemma-3-270m-drafter,suffix",
                        "--prompts", str(HERE / "prompts" / "continuation"), "--format", "q8", "--max-tokens", "100",
                        "--horizon", "0,4,8,auto", "--repeats", "3")),
    "second-source": Run(bench("second_source.py", "--prompts", SMALL, "--limit", "8", "--json")),
    "tune": Run(foretoken("tune", "--prompts", SMALL, "--limit", "8", "--max-tokens", "64", "--json")),
    "planner": Run(bench("planner_time.py", "--json")),
}  # fmt: skip


@dataclass(frozen=True)
class Floor:
    """What is asked of a number that `found` takes from a report.

    most, least  one of them
    is_vnni      asked with AVX-512 VNNI only
    """

    run: str
    what: str
    found: Callable
    most: float | None = None
    least: float | None = None
    is_vnni: bool = False

    def holds(self, value):
        return value >= self.least if self.most is None else value <= self.most

    @property
    def asked(self):
        sign, number = ("≥", self.least) if self.most is None else ("≤", self.most)
        return f"{sign} {number:g}" + (" vnni" if self.is_vnni else "")


def at(*keys):
    """What lies there in a report; None where something on the way is."""

    def found(report):
        for key in keys:
            report = None if report is None else report[key]
        return report

    return found


def worst(of, *keys):
    """The least number at those keys, over the domains that lie at `of`; None where there is none."""

    def found(report):
        values = [at(*keys)(own) for domain, own in at(*of)(report).items() if domain != "mix"]
        return min((value for value in values if value is not None), default=None)

    return found


def over_openvino(rows):
    """OpenVINO's time over ours, both in groups of 32; of its two types of codes that which is faster."""

    def found(report):
        cases = report["linears"]["cases"]
        names = [name for name in ("openvino i4", "openvino u4") if name in cases]
        return min((cases[name]["over_ours"][rows]["ratio"] for name in names), default=None)

    return found


def differing(report):
    """Domains in which a text differs from plain decoding."""
    return sum(not own["same_text"] for own in report["domains"].values())


def rooflines(run, limits):
    return [Floor(run, f"{rows} rows over the roofline", at("roofline_ratio", rows), most, is_vnni=True)
            for rows, most in limits.items()]  # fmt: skip


def planned(run):
    """What is asked of `auto` beside plain decoding and the fixed horizons."""
    return [
        Floor(run, "auto over plain, worst domain", worst(["domains"], "speedup", "auto"), least=0.98),
        Floor(run, "auto over best number, worst domain", worst(["domains"], "auto_over_best", "value"), least=0.97),
        Floor(run, "auto over best number, mix", at("mix_auto_over_best", "value"), least=1.03),
        Floor(run, "domains with another text", differing, 0),
    ]


def spoiled(run):
    return [
        Floor(run, f"auto over plain, worst domain, drafts {kind}", worst([kind], "speedup"), least=0.98)
        for kind in ("random", "wrong from the second on")
    ]


FLOORS = [
    *rooflines("q4", {"1": 1.12, "4": 1.45, "8": 1.7, "16": 1.7}),
    *rooflines("q8", {"1": 1.10, "4": 1.20, "8": 1.5, "16": 1.7}),
    Floor("avx2", "1 row over the roofline", at("roofline_ratio", "1"), 1.3),
    Floor("avx2", "4 rows over 1 row", at("relative", "4"), 1.9),
    *(Floor("linears", f"OpenVINO over us, {rows} rows", over_openvino(rows), least=least, is_vnni=True)
      for rows, least in {"1": 1.0, "2": 1.0, "4": 1.0, "8": 1.2, "16": 1.2}.items()),
    Floor("draft", "a draft token over a plain pass", at("share"), 0.02),
    Floor("prompt", "products, share of the integer peak", at("linear_peak_share"), least=0.65, is_vnni=True),
    Floor("prompt", "the whole, share of the integer peak", at("peak_share"), least=0.5, is_vnni=True),
    Floor("start", "seconds of a second start", at("seconds"), 2.0),
    Floor("selftest", "tokens that differ", at("different"), 0),
    Floor("selftest-auto", "tokens that differ", at("different"), 0),
    Floor("inflated", "best number over plain, mean of the domains", at("mean_speedup"), least=1.8),
    Floor("inflated", "best number over plain, best domain", at("best_speedup"), least=2.3),
    *planned("inflated"),
    *spoiled("inflated-wrong"),
    *planned("embedded"),
    *spoiled("embedded-wrong"),
    *planned("gemma"),
    *(Floor("second-source", f"with the text over without, {domain}",
            at("domains", domain, "both_over_alone", "best"), least=1.2) for domain in ("code_edit", "rewriting")),
    Floor("tune", "calibration error", lambda report: report["settings"][0]["calibration_error"], 0.05),
    Floor("planner", "microseconds of a round, at most", lambda report: max(report["us"].values()), 20.0),
]  # fmt: skip


def report_of(name, run, places, folder):
    """The report that is kept, or that the command prints now; None and why where there is none."""
    kept = folder / f"{name}.json"
    if kept.exists():
        try:
            return json.loads(kept.read_text(encoding="utf-8")), ""
        except (OSError, ValueError) as error:
            raise InputError(f"{kept} is no report. Delete it, and it is measured again.") from error
    command = [part.format(**places) for part in run.command]
    terminal.say(f"{name}: measuring")
    environment = {**os.environ, "FORETOKEN_CACHE_DIR": str(folder / "cache"), **run.environment}
    with (folder / f"{name}.log").open("w", encoding="utf-8") as log:
        for _ in range(run.times):
            begun = perf_counter()
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
            seconds = perf_counter() - begun
    try:
        report = json.loads(done.stdout.splitlines()[-1]) | {"seconds": seconds}
    except (IndexError, ValueError):
        return None, f"exit code {done.returncode}, see {name}.log"
    files.write_atomically(kept, json.dumps(report).encode())
    return report, ""


def inflated(folder):
    """Where the inflated pair lies, written now if it is not there."""
    pair = folder / "inflated"
    if not (pair / "drafter" / "config.json").exists():
        terminal.say("writing the inflated pair")
        subprocess.run(bench("inflate.py", "e2b", str(pair)), check=True)
    return pair


def measured(options):
    """(floor, number, why there is none), one after the other."""
    try:
        options.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{options.folder} is no folder and cannot be one: {error.strerror}.") from error
    places, reports = {"gemma": options.gemma}, {}
    for floor in FLOORS:
        if floor.run not in options.only:
            continue
        if floor.run not in reports:
            run = RUNS[floor.run]
            if any(INFLATED in part for part in run.command):
                places["inflated"] = inflated(options.folder)
            reports[floor.run] = (
                (None, "give --gemma")
                if GEMMA in run.command and options.gemma is None
                else report_of(floor.run, run, places, options.folder)
            )
        report, why = reports[floor.run]
        value = None if report is None else floor.found(report)
        yield floor, value, why or "not in the report"


def main():
    parser = script.parser(__doc__)
    parser.add_argument("folder", type=Path, help="where reports are kept, 3 GB")
    parser.add_argument("--gemma", type=Path, help="Gemma 3 270M as a GGUF file")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(RUNS), help="some of the runs")
    options = parser.parse_args()
    if unknown := [name for name in options.only if name not in RUNS]:
        raise InputError(f"no run is called {unknown[0][:40]!r}. There are {', '.join(RUNS)}.")
    has_vnni, is_missed = native.isa() == "avx512vnni", False
    for floor, value, why in measured(options):
        shown, verdict = "", why
        if value is not None:
            is_asked = has_vnni or not floor.is_vnni
            shown, verdict = f"{value:.3f}", "holds" if floor.holds(value) else "MISSED" if is_asked else "not asked"
            is_missed = is_missed or verdict == "MISSED"
        print(f"{floor.run:15}{floor.what:58}{floor.asked:12}{shown:>9}  {verdict}", flush=True)
    return int(is_missed)


if __name__ == "__main__":
    sys.exit(script.run(main, terminal.say))
