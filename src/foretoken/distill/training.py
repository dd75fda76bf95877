"""Training of the drafter: rollouts of 4 draft steps, target frozen, checkpoints that a resume goes on with exactly.

Loss of a step: half cross-entropy on the token that the target chose, or would choose in a given passage; half the
hybrid of KL divergence and total variation to its distribution, KL while they hardly overlap. Through the whole head,
and the same through the centroids for the clusters, because nothing is learnt through a choice of the best.
Source: LK losses, arXiv 2602.23881; rollouts on the drafter's own hidden row, EAGLE-3, arXiv 2503.01840.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from foretoken.config import DrafterConfig
from foretoken.distill.batches import STEPS, Batch, Rounds
from foretoken.distill.model import CENTROIDS, ORDERING, TABLE, Weights, guesses, step
from foretoken.distill.optim import Optimiser
from foretoken.distill.rounding import rounded
from foretoken.distill.speed import PRODUCTS, LogSoftmaxAt, keep_memory, product_dtype
from foretoken.errors import WeightsError

TEXTS, ROUNDS = 8, 32  # of a batch, where the head is small
MAX_SCORES = 1 << 23  # scores of one step of a batch: a large head takes fewer rounds
HELD_OUT_TEXTS, HELD_OUT_ROUNDS = 48, 16
EVALUATIONS = 20
SAVE_S = 60.0
MATRIX_RATE, TABLE_RATE, NORM_RATE = 0.005, 7e-4, 1e-3  # a good start is lost at four times as much
WEAK_START, BOLDNESS = 0.2, 3.0  # a start whose first drafts are right less often gains by three times the rates
ROUND_FROM = 0.7  # of the way: from here on weights are rounded to q8 in the forward pass
WARM_UP, FLOOR = 0.03, 0.02


@dataclass
class Course:
    """How far training is. `curve` has one point per evaluation; `loss` is a running mean; `best` is a step."""

    step: int = 0
    seconds: float = 0.0
    loss: float = math.nan
    best: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)


def rate(progress: float) -> float:
    """Factor of all learning rates: a short warm-up, then half a cosine down to FLOOR."""
    if progress < WARM_UP:
        return max(progress, 0.1 * WARM_UP) / WARM_UP
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def clusters_of(w: Weights, config: DrafterConfig) -> torch.Tensor | None:
    """(H,) the cluster of each row of the head; None for a dense head."""
    if not config.num_clusters:
        return None
    found = torch.empty(config.head_vocab_len, dtype=torch.long)
    found[w[ORDERING]] = torch.arange(config.head_vocab_len) // (config.head_vocab_len // config.num_clusters)
    return found


def better(one: Weights, other: Weights, config: DrafterConfig, rounds: Rounds) -> Weights:
    """The start that guesses more tokens of some training texts; its loss says less, for it may be too sure."""
    texts = rounds.own[:HELD_OUT_TEXTS]
    return one if sum(survival(one, config, rounds, texts)) >= sum(survival(other, config, rounds, texts)) else other


def loss_of(w: Weights, config: DrafterConfig, batch: Batch, cluster: torch.Tensor | None) -> torch.Tensor:
    """Mean loss of all steps; `cluster` as `clusters_of` gives it."""
    hidden, total = batch.hidden, torch.zeros(())
    for i in range(STEPS):
        z, hidden = step(w, config, batch.embedded[:, :, i], hidden, batch.rotated, batch.seen, batch.stored)
        flat, weight = z.flatten(0, 1), batch.weight[:, :, i].flatten()
        labels, likely, chance = (x[:, :, i].flatten(0, 1) for x in (batch.labels, batch.likely, batch.chance))
        own = _loss(F.linear(flat, w[TABLE]), labels, likely, chance)
        if cluster is not None:
            hard, soft = (torch.where(x < 0, x, cluster[x.clamp_min(0)]) for x in (labels, likely))
            own = own + _loss(F.linear(flat, w[CENTROIDS]), hard, soft, _merged(soft, chance))
        total = total + (own * weight).sum() / weight.sum().clamp_min(1)
    return total / STEPS


def _merged(ids: torch.Tensor, chance: torch.Tensor) -> torch.Tensor:
    """Probabilities (N, L) of ids (N, L) that may repeat: an id's first place has all of it, its others none."""
    same = ids[:, :, None] == ids[:, None, :]
    return (same * chance[:, None]).sum(2) * ~same.tril(-1).any(2)


def _loss(scores: torch.Tensor, labels: torch.Tensor, likely: torch.Tensor, chance: torch.Tensor) -> torch.Tensor:
    """(N,) from scores (N, H), labels (N,), likeliest (N, L) rows and their probabilities; −1 is no row."""
    rows = torch.cat([labels[:, None], likely], 1).clamp_min(0)
    logq = LogSoftmaxAt.apply(scores, rows)
    hard, logq = -logq[:, 0] * (labels >= 0), logq[:, 1:]
    p = chance * (likely >= 0)
    cross = -(p * logq).sum(1)
    overlap = torch.minimum(p, logq.exp()).sum(1)
    share = torch.exp(-3 * overlap.detach())
    return 0.5 * hard + 0.5 * (share * cross + (1 - share) * (1 - overlap))


@torch.no_grad()
def survival(w: Weights, config: DrafterConfig, rounds: Rounds, texts: Sequence[int]) -> list[float]:
    """Share of some texts' rounds whose drafts 1 … i all are the target's, by i, with the head as deployed in q8.

    As long as all agree the drafter is fed what the text says, so the text's tokens are what it would feed itself.
    """
    w, alive, every = rounded(w, "q8"), torch.zeros(STEPS), torch.zeros(STEPS)
    for start in range(0, len(texts), TEXTS):
        batch = rounds.fixed(texts[start : start + TEXTS], HELD_OUT_ROUNDS)
        hidden, agree = batch.hidden, torch.ones_like(batch.labels[:, :, 0], dtype=torch.bool)
        for i in range(STEPS):
            z, hidden = step(w, config, batch.embedded[:, :, i], hidden, batch.rotated, batch.seen, batch.stored)
            agree = agree & (guesses(w, config, z.flatten(0, 1)).view(agree.shape) == batch.labels[:, :, i])
            alive[i] += (agree * batch.weight[:, :, i]).sum()
            every[i] += batch.weight[:, :, i].sum()
    return [round(float(x), 4) for x in alive / every.clamp_min(1)]


class Training:
    """A drafter in training; `run` goes on until it is done or told to stop, and everything is in its checkpoint."""

    def __init__(self, w: Weights, config: DrafterConfig, rounds: Rounds, seed: int, path: Path) -> None:
        self.weights, self.course = w, Course()
        self.best = {name: x.detach().clone() for name, x in w.items()}  # as they were when most drafts were right
        self._config, self._rounds, self._seed, self._path = config, rounds, seed, path
        tables = [w[name] for name in (TABLE, CENTROIDS) if name in w]
        matrices = [x for n, x in w.items() if x.dim() == 2 and n not in (TABLE, CENTROIDS)]
        norms = [x for x in w.values() if x.dim() == 1 and x.is_floating_point()]
        self._products = product_dtype()
        rates = [(tables, TABLE_RATE), (norms, NORM_RATE)]
        self._optimiser = Optimiser(matrices, MATRIX_RATE, rates, self._products)
        self._cluster = clusters_of(w, config)
        keep_memory()
        if os.path.exists(path):
            self._load()
        for x in w.values():
            x.requires_grad_(x.is_floating_point())

    def run(
        self,
        progress: Callable[[Course], float],
        should_stop: Callable[[], bool],
        told: Callable[[Course, float], None],
    ) -> bool:
        """Train until `progress` of the course reaches 1; False where `should_stop` said so before. Saves both times.

        told  called after each step, with the course and its progress
        """
        begun, before, saved = time.monotonic(), self.course.seconds, time.monotonic()
        while (now := progress(self.course)) < 1 and not should_stop():
            self._evaluate_at(now)
            self._step(now)
            self.course.seconds = before + time.monotonic() - begun
            told(self.course, min(progress(self.course), 1.0))
            if time.monotonic() - saved > SAVE_S:
                self.save()
                saved = time.monotonic()
        is_done = now >= 1
        if is_done and (not self.course.curve or self.course.curve[-1]["step"] != self.course.step):
            self._evaluate(1.0)
        self.save()
        return is_done

    def _step(self, progress: float) -> None:
        rows = max(TEXTS, min(TEXTS * ROUNDS, MAX_SCORES // self._config.head_vocab_len))
        batch = self._rounds.random(self._seed * 1_000_003 + self.course.step, TEXTS, rows // TEXTS)
        w = rounded(self.weights, "q8") if progress > ROUND_FROM else self.weights
        with torch.autocast("cpu", torch.bfloat16, enabled=self._products == torch.bfloat16):
            loss = loss_of(w, self._config, batch, self._cluster)
        if not torch.isfinite(loss):
            raise WeightsError(f"the loss is {loss.item()} at step {self.course.step}: training went astray.")
        loss.backward()
        is_weak = self.course.curve[0]["survival"][0] < WEAK_START
        self._optimiser.step(rate(progress) * (BOLDNESS if is_weak else 1.0))
        self.course.step += 1
        value = float(loss.detach())
        self.course.loss = value if math.isnan(self.course.loss) else 0.95 * self.course.loss + 0.05 * value

    def _evaluate_at(self, progress: float) -> None:
        """Once in every twentieth of the way, before the first step too."""
        last = self.course.curve[-1]["progress"] if self.course.curve else -1.0
        if int(progress * EVALUATIONS) > int(last * EVALUATIONS) or last < 0:
            self._evaluate(progress)

    def _evaluate(self, progress: float) -> None:
        course = self.course
        loss = None if math.isnan(course.loss) else round(course.loss, 4)
        found = survival(self.weights, self._config, self._rounds, self._rounds.held_out[:HELD_OUT_TEXTS])
        point = {"step": course.step, "seconds": round(course.seconds, 1), "progress": round(progress, 4)}
        course.curve.append({**point, "loss": loss, "survival": found})
        if sum(found) >= max(sum(p["survival"]) for p in course.curve):
            course.best = course.step
            for name, x in self.weights.items():
                self.best[name].copy_(x.detach())

    def save(self) -> None:
        """The checkpoint, whole or not at all; raises OSError."""
        weights = {name: x.detach() for name, x in self.weights.items()}
        temporary = self._path.with_suffix(".tmp")
        state: dict[str, Any] = {"weights": weights, "best": self.best, "optimiser": self._optimiser.state()}
        state |= {"course": vars(self.course), "products": str(self._products)}
        try:
            with temporary.open("wb") as file:
                torch.save(state, file)
            os.replace(temporary, self._path)
        except BaseException as error:
            temporary.unlink(missing_ok=True)
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None  # torch hides the disk's error behind one of its own
            raise

    def _load(self) -> None:
        try:
            state = torch.load(self._path, weights_only=True)
            for name, x in self.weights.items():
                x.copy_(state["weights"][name])
                self.best[name].copy_(state["best"][name])
            self._optimiser.load(state["optimiser"])
            self.course = Course(**state["course"])
            self._products = {str(dtype): dtype for dtype in PRODUCTS}[state["products"]]
            self._optimiser.muon.dtype = self._products
        except Exception as error:  # whatever a damaged file makes of itself
            raise WeightsError(f"checkpoint {self._path} is damaged or of another drafter: {error}.") from error
