"""Dated files of what was measured: the report, when, with which version, on what kind of machine.

They may be shown to anybody: no host name, no user, no path. `bench/results/README.md` explains them to readers.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from foretoken import files
from foretoken.errors import InputError
from foretoken.ops import native

RESULTS = Path(__file__).parents[3] / "bench" / "results"  # of a checkout
CPUINFO = Path("/proc/cpuinfo")
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
FLAGS = re.compile(r"(avx|amx|fma|f16c|sse4|asimd|sve|i8mm|bf16).*")  # those that kernels ask for


def machine() -> dict[str, Any]:
    """The processor by name, its flags that matter, whether huge pages need to be asked for, and what runs us."""
    text = _read(CPUINFO)
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.M)
    pages = re.search(r"\[(\w+)\]", _read(HUGE_PAGES))
    return {
        "processor": name[1].strip() if name else platform.processor() or platform.machine(),
        "flags": sorted(flag for flag in flags[1].split() if FLAGS.fullmatch(flag)) if flags else [],
        "system": platform.system(),
        "huge_pages": pages[1] if pages else None,
        "malloc": os.environ.get("GLIBC_TUNABLES"),  # may ask for huge pages for everyone
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def target(where: str | Path) -> Path:
    """The folder or the .json file that `save` is to write; asked before anything is measured.

    where   "auto" for bench/results of a checkout, else a folder, or a .json file that is not there yet
    raises  InputError where nothing could be written
    """
    if str(where) == "auto":
        if not os.path.isdir(RESULTS.parent):
            raise InputError("results are kept in a checkout only (bench/results). Name a folder or a .json file.")
        return RESULTS
    path = Path(where)
    if os.path.isdir(path):
        return path
    if path.suffix != ".json" or not os.path.isdir(path.absolute().parent):
        raise InputError(f"{str(path)[:80]!r} is no folder, nor a .json file in one. Nothing could be kept there.")
    files.check_writable(path, "report")
    if os.path.exists(path):
        raise InputError(f"{str(path)[:80]!r} exists already. Name another file, or a folder.")
    return path


def save(report: Mapping[str, Any], what: str, path: Path) -> Path:
    """Write the report with date, version, machine, instruction set and threads; returns the file.

    what    "decode", "verify-cost e2b" …: part of the name where a folder is given, DATE-WHAT.json, numbered from the
            second of a day on
    path    from `target`
    raises  InputError where it cannot be written
    """
    day = date.today().isoformat()
    text = json.dumps(_dated(report, what, day), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        if path.suffix == ".json" and not os.path.isdir(path):
            return _written(path, text)
        path.mkdir(exist_ok=True)
        stem = f"{day}-{re.sub(r'[^a-z0-9]+', '-', what.lower()).strip('-')}"
        number = 1
        while os.path.exists(file := path / f"{stem}{f'-{number}' if number > 1 else ''}.json"):
            number += 1
        return _written(file, text)
    except OSError as error:
        raise InputError(f"the result cannot be kept: {error.strerror or error}.") from error


def _dated(report: Mapping[str, Any], what: str, day: str) -> dict[str, Any]:
    about = {"date": day, "what": what, "version": _version(), "machine": machine()}
    return about | {"isa": native.isa(), "threads": native.threads()} | dict(report)


def _version() -> str | None:
    try:
        return version("foretoken-mtp")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return None


def _written(file: Path, text: str) -> Path:
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise
    except OSError:  # a full disk leaves no half of it
        file.unlink(missing_ok=True)
        raise
    return file


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
