"""Pictures of measurements, with matplotlib, which is an extra and imported only when a picture is asked for."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from math import nan
from pathlib import Path
from typing import Any

from foretoken import files
from foretoken.errors import InputError

SUFFIXES = (".png", ".svg", ".pdf")
SIZE = (7.0, 4.2)  # inches
SHIFT = 0.12  # of one line's points beside another's
QUARTILES = "error bars: quartiles, from 3 repeats on"
Point = tuple[float, tuple[float, float] | None]  # a value and its quartiles, which are drawn as an error bar


def check(path: Path) -> None:
    """Refuse, before anything is measured, a picture that could not be drawn or kept."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"the picture {path.name[:80]!r} should end in {', '.join(SUFFIXES)}.")
    files.check_writable(path, "picture")
    _pyplot()


def keep(figure: Any, path: Path, dpi: int) -> None:
    """Write a picture; raises InputError, and leaves no half of a new one."""
    drawn, was_there = io.BytesIO(), os.path.lexists(path)
    figure.savefig(drawn, dpi=dpi, format=path.suffix[1:].lower())
    try:
        path.write_bytes(drawn.getvalue())
    except OSError as error:
        if not was_there:
            path.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error


def plain(text: str) -> str:
    """A name as it is, in which a dollar begins no formula."""
    return text.replace("$", r"\$")


def lines(path: Path, title: str, x: str, y: str, series: Mapping[str, Mapping[str, Point]], ideal: str) -> None:
    """One line per series over numbers; `series` maps a label to {number as text: point}; a line at 1 is `ideal`."""
    axes = _axes(title, f"{x} ({QUARTILES})", y)
    numbers = sorted({int(at) for points in series.values() for at in points})
    for place, (label, points) in enumerate(series.items()):
        values = [value for value, _ in points.values()]
        at = [int(number) + SHIFT * place for number in points]  # or error bars would hide each other
        axes.errorbar(at, values, _bars(points.values()), marker="o", capsize=3, label=label)
    axes.set_xticks(numbers)
    _keep(axes, path, ideal, highest=max(value for points in series.values() for value, _ in points.values()))


def curves(path: Path, title: str, x: str, y: str, series: Mapping[str, Mapping[float, float]]) -> None:
    """One curve per series of values over numbers, with no error bars."""
    axes = _axes(title, x, y)
    for label, points in series.items():
        axes.plot(list(points), list(points.values()), marker=".", label=label)
    _keep(axes, path, "", highest=max(value for points in series.values() for value in points.values()))


def bars(path: Path, title: str, y: str, groups: Mapping[str, Mapping[str, Point | None]], level: str = "") -> None:
    """Groups of bars: `groups` maps a group's name to {label: point}; None leaves a gap.

    level  what a line at 1 means, where there is one; labels are explained where there is more than one
    """
    labels = list(dict.fromkeys(label for group in groups.values() for label in group))
    axes, width = _axes(title, QUARTILES, y), (0.8 if len(labels) > 1 else 0.5) / max(len(labels), 1)
    highest = 0.0
    for place, label in enumerate(labels):
        points = [(i, point) for i, group in enumerate(groups.values()) if (point := group.get(label)) is not None]
        heights, errors = [value for _, (value, _) in points], _bars([point for _, point in points])
        axes.bar([i + place * width for i, _ in points], heights, width, yerr=errors, capsize=3, label=label)
        highest = max(highest, *heights, 0.0)
    middle = width * (len(labels) - 1) / 2
    axes.set_xticks([i + middle for i in range(len(groups))], [_tick(name, own) for name, own in groups.items()])
    if len(groups) > 4:
        axes.tick_params("x", rotation=20)
    _keep(axes, path, level, highest, has_legend=len(labels) > 1)


def _tick(name: str, group: Mapping[str, Point | None]) -> str:
    """A group's name, with the value where it has one bar."""
    points = [point for point in group.values() if point is not None]
    return f"{plain(name)}\n{points[0][0]:.3g}" if len(group) == len(points) == 1 else plain(name)


def _bars(points: Iterable[Point]) -> list[list[float]]:
    """How far the quartiles stand below and above the values; nan, which is not drawn, where they are not known."""
    ends = [(value, quartiles or (nan, nan)) for value, quartiles in points]
    return [[value - low for value, (low, _) in ends], [high - value for value, (_, high) in ends]]


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise InputError(
            "a picture needs matplotlib. Install it with: pip install 'foretoken-mtp[plot]'; "
            "in a checkout: pip install '.[plot]'"
        ) from error
    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot


def _axes(title: str, x: str, y: str) -> Any:
    _, axes = _pyplot().subplots(figsize=SIZE, layout="constrained")
    axes.set(title=plain(title), xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    return axes


def _keep(axes: Any, path: Path, level: str, highest: float, has_legend: bool = True) -> None:
    if level:
        axes.axhline(1.0, color="black", linestyle="--", linewidth=1, label=level)
    if has_legend:
        axes.legend(fontsize="small")
    # An error bar may leave the picture, values never do.
    axes.set_ylim(0, min(axes.get_ylim()[1], 2 * max(highest, 1.0 if level else 0.0)) or 1.0)
    keep(axes.figure, path, 150)
