"""Clusters of equal size for a drafter's head: k-means on directions, then balanced (notes: speculation, 5.4)."""

from __future__ import annotations

import numpy as np

ROUNDS = 8
NEAREST = 16  # clusters that a row may go to before it takes whatever has room


def ordering(table: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """table (V, K) float32 -> token_ordering (V,) int64: row j of its (clusters, V / clusters) view is cluster j."""
    unit = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    centres = unit[np.sort(np.random.default_rng(seed).choice(len(unit), clusters, replace=False))]
    for _ in range(ROUNDS):
        order = _balanced(unit, centres)
        centres = unit[order].reshape(clusters, -1, unit.shape[1]).mean(1)
        centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    return np.sort(order.reshape(clusters, -1), axis=1).reshape(-1)


def _balanced(unit: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Rows in cluster order: the closest pairs of row and centre first, while the cluster has room."""
    clusters, room = len(centres), len(unit) // len(centres)
    near = min(NEAREST, clusters)
    ids, scores = np.empty((len(unit), near), np.int64), np.empty((len(unit), near), np.float32)
    for start in range(0, len(unit), 8192):
        part = unit[start : start + 8192] @ centres.T
        own = np.argpartition(part, -near, axis=1)[:, -near:]
        ids[start : start + len(part)] = own
        scores[start : start + len(part)] = np.take_along_axis(part, own, 1)
    free, home = np.full(clusters, room), np.full(len(unit), -1)
    for pair in np.argsort(-scores, axis=None, kind="stable").tolist():
        row = pair // near
        if home[row] < 0 and free[cluster := ids[row, pair % near]]:
            home[row] = cluster
            free[cluster] -= 1
    left = np.flatnonzero(home < 0)
    home[left] = np.repeat(np.arange(clusters), free)
    return np.argsort(home, kind="stable")
