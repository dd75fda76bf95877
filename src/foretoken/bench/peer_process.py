"""A runtime in a process of its own: it loads once, answers requests, and stands still while others are timed.

Why processes: two runtimes in one process share OpenMP, thread affinities and rounding modes, and worker threads that
spin after a call would take the cores from whoever is timed next. Here a child is stopped (SIGSTOP) as soon as it has
answered and continued for the next request. So every runtime keeps the waiting policy that it is fastest with, and
none of its threads runs outside its own turn. Processes cannot be stopped like this on Windows.

Protocol: one JSON line each way. First {"peer": "module:Class", "options": {…}}, answered by the peer's `info`; then
{"call": method, "arguments": […]}. Every answer is {"result": …} or {"error": …}. What a library prints goes to
stderr, which is kept for the message when a child dies.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from operator import methodcaller
from pkgutil import resolve_name
from statistics import median
from time import perf_counter
from typing import Any, TextIO

LAST_CHARS = 300  # of a dead child's stderr that a message quotes
PR_SET_PDEATHSIG = 1  # of Linux' prctl: the signal that a child gets when its parent dies


class Unavailable(Exception):
    """Why a peer takes no part; the text goes into the report."""


class Child:
    """A peer in a process. `info` is what it says of itself; use as a context, or call `close`."""

    def __init__(self, peer: str, options: Mapping[str, Any]) -> None:
        """peer is "module:Class", called there with `options`. Raises Unavailable where that fails."""
        if sys.platform == "win32":
            raise Unavailable("needs a system whose processes can be stopped and continued")
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "foretoken.bench.peer_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends its children
        )
        try:
            self.info: dict[str, Any] = self._exchange({"peer": peer, "options": dict(options)})
            self._process.send_signal(signal.SIGSTOP)
        except BaseException:
            self.close()
            raise

    def ask(self, method: str, *arguments: Any) -> Any:
        """What the peer's method returns. The child runs for no longer than this takes."""
        self._process.send_signal(signal.SIGCONT)
        try:
            return self._exchange({"call": method, "arguments": arguments})
        finally:
            self._process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        """End the process; it holds nothing worth saving."""
        self._process.kill()  # reaches stopped processes as well
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _exchange(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise Unavailable(self._end())
        answer = json.loads(line)
        if "error" in answer:
            raise Unavailable(answer["error"])
        return answer["result"]

    def _end(self) -> str:
        """How a child ended that said nothing."""
        code = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", "replace").strip().splitlines() or ["it printed nothing"]
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"its process ended ({how}): {lines[-1][:LAST_CHARS]}"


def steady(call: Callable[[], object], calls: int) -> float:
    """Median seconds of `calls` calls, after one that is not counted: it wakes threads and fills caches.

    A call that returns a number of seconds is believed; else the whole call counts.
    """
    seconds = []
    for _ in range(calls + 1):
        started = perf_counter()
        own = call()
        seconds.append(own if isinstance(own, float) else perf_counter() - started)
    return median(seconds[1:])


def own_version() -> str:
    """Of foretoken; a tree that is not installed has none."""
    try:
        return version("foretoken-mtp")
    except PackageNotFoundError:
        return "not installed, run from its source"


def serve(requests: Iterable[str], answers: TextIO) -> None:
    """Answer line by line until requests end; a failure is an answer, too."""
    peer: Any = None
    for line in requests:
        request = json.loads(line)
        try:
            if peer is None:
                made = resolve_name(request["peer"])(**request["options"])
                peer, result = made, made.info
            else:
                result = methodcaller(request["call"], *request["arguments"])(peer)
            answer = {"result": result}
        except ModuleNotFoundError as error:
            answer = {"error": f"{(error.name or 'a module').split('.')[0]} is not installed"}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def _main() -> None:
    if sys.platform == "linux":  # a stopped child would otherwise outlive a parent that was killed
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever libraries print on stdout is no answer
    serve(sys.stdin, answers)


if __name__ == "__main__":
    _main()
