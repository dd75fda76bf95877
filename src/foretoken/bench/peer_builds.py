"""A llama.cpp or ik_llama.cpp build: its own measuring tool, called once per figure and read.

llama-batched-bench decodes as many sequences at once as rows are asked for, one token each, with all their logits,
after a prompt that they share. Where a build has llama-bench only, a prompt of so many tokens after the context stands
in, whose logits are those of the last row alone; the report says so.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from foretoken.bench.peer_process import LAST_CHARS, Unavailable

BATCHED, SINGLE = "llama-batched-bench", "llama-bench"
PASSES = 16  # of a figure of llama-batched-bench
LIMIT_S = 600
JSON_LINES = ("--output-format", "jsonl")  # newer builds have it; in others the table is read
TABLE_FIELDS = ("pp", "tg", "pl", "n_kv", "t_pp", "speed_pp", "t_tg", "speed_tg", "t", "speed")


class Build:
    """Answers like a child, though every figure is a process of its own."""

    def __init__(self, path: Path, model: Path, context: int, threads: int) -> None:
        """path is a tool, or a folder that holds one, also below bin or build/bin. Raises Unavailable."""
        self._tool = find_tool(path)
        self._model, self._context, self._threads = model, context, threads
        self._is_batched = self._tool.name.startswith(BATCHED) or "batched" in self._tool.name
        self._json_lines: tuple[str, ...] = JSON_LINES
        version = re.search(r"version: *(.+)", self._printed(["--version"], is_checked=False))
        self.info: dict[str, Any] = {"version": version[1].strip() if version else "unknown", "tool": self._tool.name}
        if not self._is_batched:
            self.info["note"] = "logits of the last row only"

    def ask(self, method: str, rows: int, calls: int) -> float:
        """Seconds of a pass; `time` is all it can be asked."""
        assert method == "time"
        return self._batched(rows) if self._is_batched else self._single(rows, calls)

    def _batched(self, rows: int) -> float:
        positions = rows * (self._context + PASSES)  # enough wherever sequences have a cache of their own
        arguments = ["-m", str(self._model), "-c", str(-(-positions // 256) * 256), "-t", str(self._threads)]
        arguments += ["-npp", str(self._context), "-ntg", str(PASSES), "-npl", str(rows), "-pps"]
        try:
            text = self._printed([*arguments, *self._json_lines])
        except Unavailable:
            if not self._json_lines:
                raise
            self._json_lines = ()
            text = self._printed(arguments)
        return batched_seconds(text, rows)

    def _single(self, rows: int, calls: int) -> float:
        arguments = ["-m", str(self._model), "-p", str(rows), "-n", "0", "-d", str(self._context)]
        return single_seconds(
            self._printed([*arguments, "-r", str(calls), "-t", str(self._threads), "-o", "json"]), rows
        )

    def _printed(self, arguments: Sequence[str], is_checked: bool = True) -> str:
        """stdout, then stderr: builds differ in where the table goes."""
        with tempfile.TemporaryDirectory() as folder:  # some write a log into the current folder
            try:
                done = subprocess.run(
                    [str(self._tool), *arguments], cwd=folder, capture_output=True, timeout=LIMIT_S, check=False
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise Unavailable(f"{self._tool.name} cannot be run: {error}") from error
        text = (done.stdout + b"\n" + done.stderr).decode("utf-8", "replace")
        if is_checked and done.returncode:
            last = (text.strip().splitlines() or ["it printed nothing"])[-1]
            raise Unavailable(f"{self._tool.name} ended with {done.returncode}: {last[:LAST_CHARS]}")
        return text


def find_tool(path: Path) -> Path:
    """The measuring tool at a path or in a build's usual places; Unavailable where there is none."""
    if os.path.isfile(path):
        return path.resolve()
    for name in (BATCHED, SINGLE):
        for folder in (path, path / "bin", path / "build" / "bin"):
            if os.path.isfile(folder / name):
                return (folder / name).resolve()
    raise Unavailable(f"{path.name} holds neither {BATCHED} nor {SINGLE}, also not below bin or build/bin")


def batched_seconds(text: str, rows: int) -> float:
    """Seconds of a pass over so many sequences, from what llama-batched-bench printed: JSON lines, or its table."""
    for entry in _entries(text):
        if entry.get("pl") == rows and entry.get("tg"):
            if entry["speed_tg"] > 0:  # has more digits than the table's time
                return float(rows / entry["speed_tg"])
            return float(entry["t_tg"] / entry["tg"])
    raise Unavailable(f"{BATCHED} printed no line for {rows} sequences")


def _entries(text: str) -> list[dict[str, Any]]:
    found = []
    for line in map(str.strip, text.splitlines()):
        if line.startswith("{"):
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        elif line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if len(cells) == len(TABLE_FIELDS) and all(re.fullmatch(r"[\d.]+", cell) for cell in cells):
                found.append(dict(zip(TABLE_FIELDS, map(float, cells), strict=True)))
    return found


def single_seconds(text: str, rows: int) -> float:
    """Seconds of a prompt of so many tokens, from the JSON of llama-bench."""
    start, end = text.find("["), text.rfind("]")
    try:
        entries = json.loads(text[start : end + 1])
        own = [entry for entry in entries if entry["n_prompt"] == rows and entry["n_gen"] == 0]
        return float(median(own[0]["samples_ns"])) / 1e9
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise Unavailable(f"{SINGLE} printed no JSON with a prompt of {rows} tokens") from error
