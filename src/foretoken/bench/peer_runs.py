"""What `bench/peers.py` measures: linears of a shape, passes of a model, likelihood of a text, whole answers.

A peer is anything with `info` and `ask`: a child process, or a build's tool. One that cannot be opened, or fails when
it is first asked, is named with its reason and left out; the others are measured all the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from foretoken.bench import peer_report
from foretoken.bench.loops import is_loop
from foretoken.bench.peer_builds import Build
from foretoken.bench.peer_models import SPARE, windows
from foretoken.bench.peer_process import Child, Unavailable
from foretoken.bench.peer_report import Key
from foretoken.bench.peer_stack import GROUP
from foretoken.bench.timing import Times, interleaved

OURS, LLAMA = "foretoken", "llama-cpp-python"
WIDE_GROUP = 128  # of the settings that save bits: what others often ship
LOOKUPS = (4, 10)  # draft tokens of llama-cpp-python's prompt lookup; 10 is its default
MAX_REASON_CHARS = 400
CALLS = 3  # measured calls of a case in its turn; their median counts
DECODE_REPEATS = 3
Progress = Callable[[int, int], None]
Say = Callable[[str], None]


class Peer(Protocol):
    """`info` says what it is; `ask` calls one of its methods."""

    info: dict[str, Any]

    def ask(self, method: str, *arguments: Any) -> Any: ...


Makers = Mapping[str, Callable[[], Any]]


class Peers:
    """The peers of a part that take part, by name, and why the others do not. A context that closes them."""

    def __init__(self, makers: Makers, say: Say) -> None:
        self.found: dict[str, Peer] = {}
        self.skipped: dict[str, str] = {}
        self._say, self._stack = say, ExitStack()
        try:
            for name, make in makers.items():
                self.add(name, make)
        except BaseException:
            self._stack.close()
            raise

    def add(self, name: str, make: Callable[[], Any]) -> None:
        """Open one more."""
        self._say(f"opening {name}")
        try:
            peer = make()
        except Unavailable as error:
            self.skip(name, str(error))
            return
        if isinstance(peer, AbstractContextManager):
            self._stack.enter_context(peer)
        self.found[name] = peer

    def skip(self, name: str, reason: str) -> None:
        """Leave one out from here on."""
        self.found.pop(name, None)
        self.skipped[name] = peer_report.without_paths(" ".join(reason.split()))[:MAX_REASON_CHARS]
        self._say(f"skipped {name}: {self.skipped[name]}")

    def infos(self) -> dict[str, dict[str, Any]]:
        """What each says of itself."""
        return {name: peer.info for name, peer in self.found.items()}

    def __enter__(self) -> Peers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def timed(peers: Peers, rows: Sequence[int], repeats: int, told: Progress | None) -> dict[Key, Times]:
    """(name, rows) to times, in turn; everyone is tried once before, and left out where that fails."""
    for name, peer in list(peers.found.items()):
        try:
            for count in rows:
                peer.ask("time", count, 1)
        except Unavailable as error:
            peers.skip(name, str(error))
    cases = {
        (name, count): partial(peer.ask, "time", count, CALLS) for name, peer in peers.found.items() for count in rows
    }
    return interleaved(cases, repeats, told, has_warm_up=False)


def linear_makers(shape: str, layers: int | None, bits: int, threads: int, max_rows: int) -> Makers:
    """Name → what opens it. Those after the first four spend fewer bits on scales."""

    def child(peer: str, group: int, **more: Any) -> Callable[[], Child]:
        options = {"shape": shape, "layers": layers, "bits": bits, "threads": threads, "max_rows": max_rows, **more}
        return partial(Child, f"foretoken.bench.peer_linears:{peer}", {**options, "group": group})

    return {
        OURS: child("Foretoken", GROUP),
        f"openvino i{bits}": child("OpenVino", GROUP, signed=True),
        f"openvino u{bits}": child("OpenVino", GROUP, signed=False),
        "onnxruntime": child("OnnxRuntime", GROUP),
        f"openvino i{bits} in {WIDE_GROUP}s": child("OpenVino", WIDE_GROUP, signed=True),
        f"onnxruntime in {WIDE_GROUP}s": child("OnnxRuntime", WIDE_GROUP),
    }


def linears(
    makers: Makers, rows: Sequence[int], repeats: int, say: Say, told: Progress | None = None
) -> dict[str, Any]:
    """Times of the stack: every case over ours, and every library at its best over our best.

    A case that had to leave out matrices which the first one has is no comparison, and skipped.
    """
    with Peers(makers, say) as peers:
        whole = max((peer.info["weights"] for peer in peers.found.values()), default=0)
        for name, peer in list(peers.found.items()):
            if peer.info["weights"] != whole:
                peers.skip(name, "its groups do not divide the inputs of some matrices")
        times = timed(peers, rows, repeats, told)
        for info in peers.infos().values():
            if info["error"] < 1e-4:  # 8-bit activations cost about 1e-2
                info["note"] = "activations stay floats on this processor"
        libraries: dict[str, list[str]] = {}
        for name in peers.found:
            libraries.setdefault(name.split()[0], []).append(name)
        return {
            "peers": peers.infos(),
            "skipped": peers.skipped,
            "cases": peer_report.compared(times, rows, OURS if OURS in peers.found else None),
            "best": peer_report.best(times, rows, libraries),
        }


def model_makers(
    path: Path, builds: Mapping[str, Path], context: int, ours: Mapping[str, str], threads: int, rows: int
) -> Makers:
    """Name → what opens it; llama-cpp-python gets just the places that passes after the context need.

    ours  `format` and `drafter` as in `foretoken.load`
    """
    models = "foretoken.bench.peer_models"
    own = {"path": str(path), "threads": threads, "context": context, **ours}
    return {
        OURS: partial(Child, f"{models}:ForetokenModel", own),
        LLAMA: partial(llama, path, threads, context, max(context, 512) + rows + SPARE, False),
        **{name: partial(Build, build, path, context, threads) for name, build in builds.items()},
    }


def llama(path: Path, threads: int, context: int, n_ctx: int, has_lookup: bool) -> Child:
    """llama-cpp-python with so many positions."""
    options = {"path": str(path), "threads": threads, "context": context, "n_ctx": n_ctx, "has_lookup": has_lookup}
    return Child("foretoken.bench.peer_models:LlamaCppPython", options)


def passes(peers: Peers, rows: Sequence[int], repeats: int, told: Progress | None = None) -> dict[str, Any]:
    """Passes of a model over several rows; peers that fail are left out of what follows, too."""
    times = timed(peers, rows, repeats, told)
    return {"cases": peer_report.compared(times, rows, OURS if OURS in peers.found else None)}


def perplexity(peers: Peers, text: str, limit: int) -> dict[str, Any]:
    """Of the first `limit` tokens of a text, by the same tokens; whether both make the same tokens of it."""
    readers = {name: peers.found[name] for name in (OURS, LLAMA) if name in peers.found}
    if not readers:
        return {"skipped": f"neither {OURS} nor {LLAMA} is there"}
    found = {name: peer.ask("ids", text) for name, peer in readers.items()}
    ids = next(iter(found.values()))[:limit]
    texts = windows(ids, ids[0])
    count = sum(len(window) - 1 for window in texts)
    values = {name: math.exp(peer.ask("nats", texts) / count) for name, peer in readers.items()}
    return {
        "tokens": count,
        "same_tokens": len({tuple(own) for own in found.values()}) == 1 if len(found) > 1 else None,
        "perplexity": values,
        "over_ours": values[LLAMA] / values[OURS] if len(values) == 2 else None,
    }


def drafting(
    peers: Peers,
    prompts: Sequence[dict[str, Any]],
    max_tokens: int,
    horizon: str,
    lookup: Callable[[int], Any],
    told: Progress | None = None,
) -> dict[str, Any]:
    """Greedy answers: ours plain and drafted, llama-cpp-python plain and by prompt lookup; tokens per second, texts.

    lookup  opens llama-cpp-python for drafting, with so many positions
    """
    if OURS not in peers.found:
        return {"skipped": f"{OURS} is not there to make token ids of the prompts"}
    ours = peers.found[OURS]
    ids = [ours.ask("prompt_ids", prompt) for prompt in prompts]
    longest = max(map(len, ids)) + max_tokens + SPARE
    peers.add(f"{LLAMA} for drafting", partial(lookup, longest))
    cases: dict[str, tuple[Peer, Any]] = {f"{OURS} plain": (ours, "0")}
    if ours.info["drafts"]:
        cases[f"{OURS} drafted"] = (ours, horizon)
    other = peers.found.get(f"{LLAMA} for drafting")
    if other is not None:
        cases |= {f"{LLAMA} lookup {count}": (other, count) for count in LOOKUPS}
    if (plain := peers.found.get(LLAMA)) is not None:
        cases[f"{LLAMA} plain"] = (plain, 0)
    answers: dict[str, list[list[int]]] = {name: [] for name in cases}
    times: dict[str, list[tuple[float, int]]] = {name: [] for name in cases}
    for number, prompt in enumerate(ids):
        if told is not None:
            told(number, len(ids))
        _write(cases, prompt, max_tokens, answers, times)
    return {"drafter": ours.info["drafter"], "prompts": len(ids), **_speeds(answers, times)}


def _write(
    cases: Mapping[str, tuple[Peer, Any]],
    prompt: Sequence[int],
    max_tokens: int,
    answers: dict[str, list[list[int]]],
    times: dict[str, list[tuple[float, int]]],
) -> None:
    """One prompt by every case in turn: its answer to `answers`, (seconds, tokens they hold) to `times`."""
    last: dict[str, dict[str, Any]] = {}

    def write(name: str) -> float:
        peer, how = cases[name]
        last[name] = peer.ask("write", list(prompt), max_tokens, how)
        return float(last[name]["seconds"])

    found = interleaved({name: partial(write, name) for name in cases}, DECODE_REPEATS, has_warm_up=False)
    for name, own in found.items():
        answers[name].append(last[name]["tokens"])
        times[name].append((own.ms / 1e3, last[name]["timed"]))


def _speeds(
    answers: Mapping[str, Sequence[Sequence[int]]], times: Mapping[str, Sequence[tuple[float, int]]]
) -> dict[str, Any]:
    """Tokens per second over the prompts where everyone wrote some, loops of ours left out; best over best."""
    plain = answers[f"{OURS} plain"]
    kept = [i for i, own in enumerate(plain) if not is_loop(own) and all(times[name][i][1] for name in times)]
    speed: dict[str, float | None] = {}
    best: dict[str, str] = {}
    top: dict[str, float] = {}
    for name, own in times.items():
        seconds = sum(own[i][0] for i in kept)
        speed[name] = rate = sum(own[i][1] for i in kept) / seconds if seconds else None
        library = name.split()[0]
        if rate is not None and rate > top.get(library, 0.0):
            best[library], top[library] = name, rate
    return {
        "timed_prompts": len(kept),
        "loops": sum(map(is_loop, plain)),
        "tok_per_s": speed,
        "best": best,
        "best_over_best": top[OURS] / top[LLAMA] if len(top) == 2 else None,
        "texts": peer_report.agreement(answers, f"{OURS} plain"),
    }
