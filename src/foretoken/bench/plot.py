"""Pictures of measurements, with matplotlib, which is an extra and imported only when a picture is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foretoken.errors import InputError

SUFFIXES = (".png", ".svg", ".pdf")
SIZE = (7.0, 4.2)  # inches


def check(path: Path) -> None:
    """Refuse, before anything is measured, a picture that could not be drawn or kept."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"the picture {path.name[:80]!r} should end in {', '.join(SUFFIXES)}.")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path.parent} is no folder, so no picture can be kept there.")
    _pyplot()


def lines(path: Path, title: str, x: str, y: str, series: Mapping[str, Mapping[str, float]]) -> None:
    """One line per series over numbers; `series` maps a label to {number as text: value}."""
    axes = _axes(title, x, y)
    for label, points in series.items():
        axes.plot([float(at) for at in points], list(points.values()), marker="o", label=label)
    _keep(axes, path)


def bars(path: Path, title: str, y: str, groups: Mapping[str, Mapping[str, float | None]]) -> None:
    """Groups of bars: `groups` maps a group's name to {label: value}; None leaves a gap."""
    labels = list(dict.fromkeys(label for group in groups.values() for label in group))
    axes, width = _axes(title, "", y), 0.8 / max(len(labels), 1)
    for place, label in enumerate(labels):
        heights = [group.get(label) or 0.0 for group in groups.values()]
        axes.bar([i + place * width for i in range(len(groups))], heights, width, label=label)
    middle = width * (len(labels) - 1) / 2
    axes.set_xticks([i + middle for i in range(len(groups))], list(groups), rotation=20, ha="right")
    _keep(axes, path)


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise InputError("a picture needs matplotlib. Install it with: pip install 'foretoken-mtp[plot]'") from error
    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot


def _axes(title: str, x: str, y: str) -> Any:
    _, axes = _pyplot().subplots(figsize=SIZE, layout="constrained")
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    return axes


def _keep(axes: Any, path: Path) -> None:
    axes.legend(fontsize="small")
    axes.set_ylim(bottom=0)
    try:
        axes.figure.savefig(path, dpi=150)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error
