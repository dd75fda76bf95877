"""Runs the real `foretoken` command the way a shell does."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass

RUN = [sys.executable, "-c", "from foretoken.cli import main; main()"]
TIMEOUT_S = 120
SHORT = ("--max-tokens", "12", "--temperature", "0", "--ignore-eos")


@dataclass(frozen=True)
class Finished:
    """What came out of one command."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """The object on the last line of stdout."""
        return json.loads(self.out.splitlines()[-1])


def foretoken(*arguments, stdin=b"", **changes):
    """Run to the end; `changes` are environment variables."""
    command = [*RUN, *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, env={**os.environ, **changes}, timeout=TIMEOUT_S)
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


def assert_refused(finished, *words):
    """Exit code 2, nothing on stdout, one line on stderr that holds every word."""
    assert finished.code == 2, finished
    assert finished.out == ""
    lines = finished.err.splitlines()
    assert len(lines) == 1, finished.err
    assert lines[0].startswith("foretoken: ")
    for word in words:
        assert word in lines[0]
