"""Whether a model fits in memory, asked before any is taken. Knows plans and formats, nothing of what is in files."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foretoken.errors import WeightsError
from foretoken.weights.formats import FORMATS, in_format
from foretoken.weights.gemma4 import PANEL, Part

WORKING_BYTES = 128 << 20  # a piece of rows being packed, and what runs beside
CGROUPS = Path("/sys/fs/cgroup")


def packed_bytes(parts: Sequence[Part], ops: Any) -> int:
    """Bytes that settled parts stay in memory with; a mapped table is none of them."""
    kinds = {(part.format, part.layout, part.size[1]) for part in parts if part.is_packed}
    sizes = {kind: _unit_bytes(*kind, ops) for kind in kinds}  # each asked once: a model has few widths

    def size(part: Part) -> int:
        if not part.is_packed:
            return 4 * math.prod(part.shapes[0])
        rows, width = part.size
        return -(-rows // _unit(part.layout)) * sizes[part.format, part.layout, width]

    return sum(size(part) for part in parts if not part.is_mapped)


def refuse_too_large(what: Any, parts: Sequence[Part], format: str, plan: Sequence[Part], ops: Any) -> None:
    """Raise WeightsError, naming a format that would fit, where the model needs more memory than there is.

    what    the model, as the message names it
    parts   settled for `format`; `plan` is the same list before it was settled
    """
    have = available_bytes()
    need = packed_bytes(parts, ops) + WORKING_BYTES
    if have is None or need <= have:
        return
    smaller, advice = FORMATS[FORMATS.index(format) + 1 :], "No format is smaller"
    for other in smaller:
        other_need = packed_bytes(in_format(plan, other), ops) + WORKING_BYTES
        if other_need <= have:
            advice = f"Format {other} would fit: it needs {_shown(other_need)}"
            break
        advice = f"Format {other} needs {_shown(other_need)}, which does not fit either"
    raise WeightsError(
        f"{what} needs {_shown(need)} of memory in format {format}, {_shown(have)} are available. "
        f"{advice}. Free memory or take a smaller model."
    )


def available_bytes() -> int | None:
    """Memory that this process may still take: of the machine, and of its control group; None where nobody says."""
    limits = [limit for limit in (_of_machine(), _of_control_group()) if limit is not None]
    return min(limits, default=None)


def _unit(layout: str) -> int:
    """Rows that are packed together."""
    return PANEL if layout == "panels" else 1


def _unit_bytes(format: str | None, layout: str, width: int, ops: Any) -> int:
    return len(ops.pack(np.zeros((_unit(layout), width), np.float32), format, layout).data)


def _shown(count: int) -> str:
    return f"{count:,} bytes ({count / 1e9:.1f} GB)"


def _of_machine() -> int | None:
    """Free and reclaimable memory where Linux says so, else all that is built in, else None."""
    lines = _text(Path("/proc/meminfo")).splitlines()
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    if found:
        return int(found[0]) << 10
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _of_control_group() -> int | None:
    """The tightest limit of the process's control group and those around it, less what is used and not just cached."""
    own = [line[3:] for line in _text(Path("/proc/self/cgroup")).splitlines() if line.startswith("0::")]
    folder = CGROUPS / (own[0].strip("/") if own else "")
    tree = [folder, *(above for above in folder.parents if above.is_relative_to(CGROUPS))]
    found = [_left(above, "memory.max", "memory.current", "") for above in tree]
    found.append(_left(CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"))  # version 1
    return min((left for left in found if left is not None), default=None)


def _left(folder: Path, limit: str, used: str, prefix: str) -> int | None:
    limit_text, used_text = _text(folder / limit).strip(), _text(folder / used).strip()
    if not limit_text.isdigit() or not used_text.isdigit():  # absent, or "max"
        return None
    stat = dict(line.split()[:2] for line in _text(folder / "memory.stat").splitlines())
    cached = sum(int(stat.get(prefix + name, 0)) for name in ("inactive_file", "active_file"))
    return max(int(limit_text) - int(used_text) + cached, 0)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
