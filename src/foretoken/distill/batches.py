"""Rounds of recorded texts as tensors: what the drafter is fed, what the target chose, what is trained on.

A round at bonus index b is fed the embedding of token b, the hidden row that chose it, keys before b, and position b
for all its steps; later steps get the text's next tokens and the drafter's own hidden row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from foretoken.config import DrafterConfig
from foretoken.distill.model import Rotation, masks, rotations
from foretoken.distill.records import Records
from foretoken.models.gemma4 import Gemma4

STEPS = 4


@dataclass(frozen=True)
class Batch:
    """R rounds of each of B texts; padded ones have weight 0.

    embedded (B, R, STEPS, D), hidden (B, R, D); rotated, seen, stored as `model.step` takes them
    likely   (B, R, STEPS, L) head rows of the target's likeliest tokens, −1 where the head lacks them; chance alike
    labels   (B, R, STEPS) head rows of the tokens that the target chose, of a given passage those that it likes best;
             −1 where the head lacks them
    weight   (B, R, STEPS) 1 where the text has such a token, also for tokens that the head lacks
    """

    embedded: torch.Tensor
    hidden: torch.Tensor
    rotated: dict[str, Rotation]
    seen: dict[str, torch.Tensor]
    stored: dict[str, tuple[torch.Tensor, torch.Tensor]]
    likely: torch.Tensor
    chance: torch.Tensor
    labels: torch.Tensor
    weight: torch.Tensor


class Rounds:
    """Batches of records for one drafter. `head_ids` (H,) are the tokens of its head's rows."""

    def __init__(self, records: Records, config: DrafterConfig, target: Gemma4, head_ids: np.ndarray) -> None:
        self._records, self._config, self._target = records, config, target
        self._row_of = np.full(config.vocab_len, -1, np.int64)
        self._row_of[head_ids] = np.arange(len(head_ids))
        usable = [i for i, text in enumerate(records.texts) if len(text.ids) - max(text.start, 1) >= 2]
        self.training = [i for i in usable if not records.texts[i].is_held_out]
        self.held_out = [i for i in usable if records.texts[i].is_held_out]
        lengths = np.array([len(self._places(i)) for i in self.training], np.float64)
        self._shares = lengths / lengths.sum()

    @property
    def own(self) -> list[int]:
        """Training texts that the target wrote."""
        return [i for i in self.training if not self._records.texts[i].is_given]

    def random(self, seed: int, count: int, rounds: int) -> Batch:
        """A batch of `count` training texts, long ones more often, and up to `rounds` rounds of each; by the seed."""
        rng = np.random.default_rng(seed)
        texts = rng.choice(self.training, min(count, len(self.training)), replace=False, p=self._shares).tolist()
        return self._batch(texts, [self._some(rng, index, rounds) for index in texts], rounds)

    def fixed(self, texts: Sequence[int], rounds: int) -> Batch:
        """Up to `rounds` rounds of each text, evenly spread."""
        places = [self._places(index) for index in texts]
        return self._batch(
            texts, [p[np.linspace(0, len(p) - 1, min(rounds, len(p))).astype(int)] for p in places], rounds
        )

    def _places(self, index: int) -> np.ndarray:
        """Indices at which a round may begin: tokens of the answer, with one more after them."""
        text = self._records.texts[index]
        return np.arange(max(text.start, 1), len(text.ids) - 1)

    def _some(self, rng: np.random.Generator, index: int, rounds: int) -> np.ndarray:
        places = self._places(index)
        return rng.choice(places, min(rounds, len(places)), replace=False)

    def _batch(self, texts: Sequence[int], places: Sequence[np.ndarray], rounds: int) -> Batch:
        records, config = self._records, self._config
        size = (len(texts), rounds)
        bonus, weight = np.ones(size, np.int64), np.zeros((*size, STEPS), np.float32)
        tokens, is_given = np.zeros((*size, STEPS + 1), np.int32), np.zeros((len(texts), 1, 1), bool)
        rows = np.zeros((*size, STEPS + 1), np.int64)  # records of what chose these tokens
        for r, (index, at) in enumerate(zip(texts, places, strict=True)):
            ids, first, count = np.array(records.texts[index].ids, np.int32), int(records.first[index]), len(at)
            bonus[r, :count] = at
            reach = at[:, None] + np.arange(STEPS + 1)
            weight[r, :count] = reach[:, 1:] < len(ids)
            reach = np.minimum(reach, len(ids) - 1)
            tokens[r, :count], rows[r, :count] = ids[reach], first + reach - 1
            is_given[r] = records.texts[index].is_given
        chosen = np.where(is_given, records.likely[rows[..., 1:], 0], tokens[..., 1:])
        embedded = self._target.embed(tokens[..., :STEPS].reshape(-1)).reshape(*size, STEPS, -1)
        b = torch.from_numpy(bonus)
        longest = max(len(records.texts[index].ids) for index in texts)
        return Batch(
            embedded=torch.from_numpy(embedded),
            hidden=torch.from_numpy(records.hidden[rows[..., 0]]),
            rotated=rotations(config, b),
            seen=masks(config, b, longest),
            stored={layer.kind: self._stored(layer.kind, texts, longest) for layer in config.layers},
            likely=torch.from_numpy(self._row_of[records.likely[rows[..., 1:]]]),
            chance=torch.from_numpy(records.chance[rows[..., 1:]]),
            labels=torch.from_numpy(self._row_of[chosen]),
            weight=torch.from_numpy(weight),
        )

    def _stored(self, kind: str, texts: Sequence[int], longest: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (B, Hkv, S, Dh) of texts, padded with zeros."""
        found = []
        for array in (self._records.keys[kind], self._records.values[kind]):
            out = np.zeros((len(texts), longest, *array.shape[1:]), np.float32)
            for r, index in enumerate(texts):
                own = array[int(self._records.first[index]) : int(self._records.first[index + 1])]
                out[r, : len(own)] = own
            found.append(torch.from_numpy(out).transpose(1, 2))
        return found[0], found[1]
