"""The picture of `foretoken tune`: four panels for the fastest setting. Imports matplotlib only when asked to draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foretoken.bench import plot
from foretoken.bench.answers import AUTO
from foretoken.bench.tune import label_of

SIZE = (11.0, 7.5)  # inches
HEADROOM = 1.08  # above the highest point


def draw(path: Path, report: dict[str, Any]) -> None:
    """Throughput and rejection rate over horizon, accepted by position, rounds by horizon; `plot.check` comes first."""
    plot.check(path)
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    spot = report["sweet_spot"]
    setting = next(s for s in report["settings"] if all(s[key] == spot[key] for key in ("format", "draft_clusters")))
    by_horizon = setting["by_horizon"]
    fixed = [h for h in by_horizon if h.isdigit()]
    figure, axes = pyplot.subplots(2, 2, figsize=SIZE, layout="constrained")
    figure.suptitle(plot.plain(f"{report['model']} {label_of(setting)}: what pays on these prompts"))
    _over_horizon(axes[0][0], by_horizon, fixed, "tok_per_s", "tokens per second")
    _over_horizon(axes[0][1], by_horizon, fixed, "rejection_rate", "rejected draft tokens, %", 100.0)
    longest = max(fixed, key=int)
    for name in (longest, AUTO):
        shares = by_horizon[name]["accepted_by_position"]
        axes[1][0].plot(range(1, len(shares) + 1), shares, marker="o", label=f"horizon {name}")
    axes[1][0].set(xlabel="position in the draft", ylabel="share kept", ylim=(0, 1.05))
    axes[1][0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[1][0].legend(fontsize="small")
    rounds = by_horizon[AUTO]["horizon_rounds"]
    axes[1][1].bar(list(rounds), list(rounds.values()))
    axes[1][1].set(xlabel="draft tokens with a row, chosen by auto", ylabel="rounds")
    for own in axes.flat:
        own.grid(alpha=0.3)
        own.set_axisbelow(True)
    try:
        plot.keep(figure, path, 130)
    finally:
        pyplot.close(figure)


def _over_horizon(
    axes: Any, by_horizon: dict[str, Any], fixed: list[str], name: str, label: str, unit: float = 1.0
) -> None:
    """A line over fixed horizons, and a level for what auto reached; `unit` is what 1 is shown as."""
    points = [(int(h), unit * by_horizon[h][name]) for h in fixed if by_horizon[h][name] is not None]
    values = [y for _, y in points]
    axes.plot([x for x, _ in points], values, marker="o", label="fixed")
    auto = by_horizon[AUTO][name]
    if auto is not None:
        values.append(unit * auto)
        axes.axhline(values[-1], color="black", linestyle="--", linewidth=1, label=f"auto: {values[-1]:.1f}")
    axes.set(xlabel="horizon", ylabel=label)
    axes.set_xticks([int(h) for h in fixed])
    axes.set_ylim(0, HEADROOM * max(values, default=0.0) or 1.0)
    axes.legend(fontsize="small")
