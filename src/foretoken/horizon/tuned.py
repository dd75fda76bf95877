"""What `foretoken tune` found on this machine, kept for later starts: clusters of drafters, and speeds by format.

Clusters are used where the user names none, for they change no text. Another format would, so it is only advised.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foretoken.horizon import disk, kept
from foretoken.horizon.learned import condition_key

WORTH_ADVICE = 1.1  # times as fast: formats are measured one after the other, so less may be the machine
MOST_CLUSTERS = 1 << 20  # and most drafters and speeds, in a file
MOST_DRAFTERS = 64
MOST_SPEED = 1e9


class Tuned:
    """The findings for one model, known by its files.

    folder    where they are kept; None, or one that is not there: nowhere
    files     the fingerprint of the target's files, and all else that speed depends on
    clusters  fingerprint of a drafter's files -> the clusters with which it was fastest
    speeds    format -> tokens per second at its fastest horizon
    problems  why what was kept could not be used, if so
    hint      what is faster than how the model was loaded, in a sentence; else empty
    """

    def __init__(self, folder: Path | None, *files: Any) -> None:
        self.clusters: dict[str, int] = {}
        self.speeds: dict[str, float] = {}
        self.hint = ""
        self.problems: list[str] = []
        self._drafters: Mapping[str, int] = {}
        self._key = condition_key(*files)
        self._path = None if folder is None or not os.path.isdir(folder) else disk.path_of(folder, self._key, "tune")
        if self._path is not None and (problem := disk.take_over(self._path, self._key, self._restore)):
            self.clusters, self.speeds = {}, {}
            self.problems.append(f"what tune found here before {problem}")

    @property
    def has_clusters(self) -> bool:
        """Whether a drafter scores the likeliest clusters of its head only."""
        return any(self._drafters.values())

    def load(self, format: str, drafters: Mapping[str, int]) -> None:
        """The model was loaded like this; drafters as in `pairing.Beside`."""
        self._drafters = drafters
        hints = list[str]()
        best, own = max(self.speeds, key=self.speeds.__getitem__, default=format), self.speeds.get(format)
        if own and self.speeds[best] >= WORTH_ADVICE * own:
            hints.append(f"format {best} ran {self.speeds[best] / own:.2f} times as fast as {format}")
        for drafter, count in drafters.items():
            if count and (better := self.clusters.get(drafter, count)) != count:
                hints.append(f"{better} clusters of a drafter were faster than {count}")
        self.hint = f"On the prompts that tune was given {', and '.join(hints)}." if hints else ""

    def keep(self, settings: Sequence[Mapping[str, Any]]) -> None:
        """Take over what can be compared in a report of tune: two formats or more, two numbers of clusters or more.

        Of clusters the gain over plain decoding counts, which was measured beside each of them and knows none.
        """
        formats, counts = ({s[name] for s in settings} for name in ("format", "draft_clusters"))
        if len(formats) > 1:
            self.speeds = {f: max(_most(s, "tok_per_s") for s in settings if s["format"] == f) for f in formats}
        if len(counts) > 1:
            best = max(settings, key=lambda setting: _most(setting, "speedup"))["draft_clusters"]
            self.clusters |= {drafter: best for drafter, count in self._drafters.items() if count}
        if self._path is not None and (len(formats) > 1 or len(counts) > 1):
            disk.write(self._path, self._key, {"clusters": self.clusters, "speeds": self.speeds})

    def _restore(self, found: Any) -> None:
        for drafter, count in kept.items(found["clusters"], MOST_DRAFTERS):
            self.clusters[drafter] = kept.whole(count, 1, MOST_CLUSTERS)
        for format, speed in kept.items(found["speeds"], MOST_DRAFTERS):
            self.speeds[format] = kept.number(speed, 0.0, MOST_SPEED)


def _most(setting: Mapping[str, Any], name: str) -> float:
    """A figure of a setting at the horizon where it is largest; what cannot be true does not count."""
    return max(own[name] or 0.0 for horizon, own in setting["by_horizon"].items() if horizon not in setting["noise"])
