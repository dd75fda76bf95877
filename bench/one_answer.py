"""One answer from the command line, over every horizon, thread count, instruction set and prompt chunking.

    python bench/one_answer.py [--max-tokens 200]

Runs `foretoken generate … --json` once per combination and compares `tokens` with horizon 0; exit code 1 if any differ.
"""

import json
import os
import subprocess
import sys
import time

from foretoken.bench import script
from foretoken.cli import terminal
from foretoken.errors import InputError

FORETOKEN = [sys.executable, "-c", "from foretoken.cli import main; main()"]
PROMPT = "def add(a, b):\n    return a + b\n\n\ndef "


def tokens(arguments, isa, max_tokens):
    command = [*FORETOKEN, "generate", PROMPT, "--max-tokens", str(max_tokens), "--ignore-eos", "--json", *arguments]
    environment = {**os.environ, **({"FORETOKEN_ISA": isa} if isa else {})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise InputError(f"foretoken generate {' '.join(arguments)}{f' with {isa}' if isa else ''} failed: {said[-1]}")
    return json.loads(done.stdout.splitlines()[-1])["tokens"]


def combinations():
    """(what, arguments, isa): everything that must not change the text, one thing at a time and some together."""
    for horizon in range(17):
        yield f"horizon {horizon}", ["--horizon", str(horizon)], None
    for isa in ("scalar", "avx2"):
        yield f"isa {isa}, horizon 4", ["--horizon", "4"], isa
    for chunk in (1, 7, 512):
        yield f"chunk {chunk}, horizon 4", ["--horizon", "4", "--chunk", str(chunk)], None
    for threads in (1, 2):
        for horizon in (0, 4, 16):
            what = f"threads {threads}, horizon {horizon}"
            yield what, ["--horizon", str(horizon), "--threads", str(threads)], None


def main():
    parser = script.parser(__doc__)
    parser.add_argument("--max-tokens", type=script.count, default=200, help="of the answer")
    options = parser.parse_args()
    different, done, whole = 0, 0, 2 * len(list(combinations()))
    started = time.monotonic()
    for temperature in ("0", "1"):
        sampling = ["--temperature", temperature, "--seed", "7"]
        plain = tokens([*sampling, "--horizon", "0", "--threads", "1"], None, options.max_tokens)
        for what, arguments, isa in combinations():
            is_same = tokens([*sampling, *arguments], isa, options.max_tokens) == plain
            different += not is_same
            done += 1
            left = (time.monotonic() - started) / done * (whole - done)
            verdict = "same" if is_same else "DIFFERENT"
            print(f"{done}/{whole}, {left:.0f} s left: temperature {temperature}, {what}: {verdict}", flush=True)
    print(json.dumps({"different": different}))
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(script.run(main, terminal.say))
