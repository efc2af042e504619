"""The training of the locator: batches of windows, and the loss of its maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from services.patching.locator_maps import CELL, KINDS, NUCLEUS, OFFSET_X, OFFSET_Y, Kind
from training.learning.devices import Worker
from training.learning.loop import Figures
from training.learning.schedules import Rates, rates
from training.location.targets import Targets, stack, targets_of
from training.location.windows import Draws
from training.recipes.config import Schedule, ScheduleKind

_HEAT_WEIGHT: Final = 2.0
_OFFSET_WEIGHT: Final = 0.5
_CENTRE_WEIGHTS: Final[Mapping[Kind, float]] = {Kind.NUCLEATED: 1.0, Kind.SMUDGED: 2.0, Kind.PLATELET: 1.0}
"""Weights of centres by kind: smudged cells are few."""


@dataclass(frozen=True)
class Windows:
    """Windows of one step on the CPU: float32 (B, 3, S, S) in 0..1, and their targets as tensors."""

    images: Tensor
    targets: dict[str, Tensor]


class LocatorTask:
    """Trains a locator on windows that are drawn anew in every step."""

    def __init__(
        self, network: nn.Module, draws: Draws, *, batch: int, steps: int, epochs: int, rate: float, decay: float, seed: int, worker: Worker
    ) -> None:
        self.network = network
        self.optimiser: torch.optim.Optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
        self.steps_per_epoch = steps
        self.epochs = epochs
        self._draws, self._batch, self._rate, self._seed, self._worker = draws, batch, rate, seed, worker

    def batch(self, step: int) -> Windows:
        """The windows of a step."""
        rng = np.random.default_rng([self._seed, step, self._worker.rank])
        windows = [self._draws.window(rng) for _ in range(self._batch)]
        pixels = np.stack([w.pixels for w in windows]).transpose(0, 3, 1, 2)
        targets = stack([targets_of(w) for w in windows])
        return Windows(torch.from_numpy(pixels).float() / 255.0, {f.name: torch.from_numpy(getattr(targets, f.name)) for f in fields(Targets)})

    def loss(self, network: nn.Module, batch: Windows) -> Tensor:
        """Loss of a step."""
        device = self._worker.device
        said = network(batch.images.to(device, memory_format=torch.channels_last))
        return loss_of_maps(said, {name: t.to(device) for name, t in batch.targets.items()})

    def rates(self, step: int) -> Rates:
        """One cycle."""
        return rates(Schedule(kind=ScheduleKind.ONE_CYCLE), self._rate, 0.9, step, self.steps_per_epoch, self.epochs)

    def score(self, network: nn.Module, epoch: int) -> tuple[tuple[float, ...], Figures]:
        """Nothing is chosen by an epoch: the last weights, averaged, are taken."""
        del network, epoch
        return (), {}


def loss_of_maps(said: Tensor, wanted: dict[str, Tensor]) -> Tensor:
    """Sum of the losses of heat maps, whole cells, nuclei and offsets, 0-d.

    Args:
        said: float32 (B, CHANNELS, h, w), logits and offsets.
        wanted: tensors by the names of ``Targets``.
    """
    offsets = said[:, OFFSET_X : OFFSET_Y + 1]
    apart = functional.smooth_l1_loss(offsets, wanted["offset"], reduction="none", beta=0.2).sum(dim=1) * wanted["offset_weight"]
    return (
        _HEAT_WEIGHT * _focal(said[:, :KINDS], wanted["heat"], wanted["heat_weight"])
        + _overlap(said[:, CELL], wanted["cell"], wanted["cell_weight"])
        + _overlap(said[:, NUCLEUS], wanted["nucleus"], wanted["nucleus_weight"])
        + _OFFSET_WEIGHT * apart.sum() / wanted["offset_weight"].sum().clamp(min=1.0)
    )


def _focal(logits: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Penalty-reduced focal loss of Objects as Points, equation 1, per centre."""
    log_yes, log_no = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    probability = logits.sigmoid()
    is_centre = (wanted == 1.0).float() * weight
    by_kind = torch.tensor([_CENTRE_WEIGHTS[kind] for kind in Kind], device=logits.device)[:, None, None]
    found = -((1 - probability) ** 2 * log_yes) * is_centre * by_kind
    empty = -((1 - wanted) ** 4 * probability**2 * log_no) * (1 - is_centre) * weight
    return (found.sum() + empty.sum()) / is_centre.sum().clamp(min=1.0)


def _overlap(logits: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy plus one minus the Dice coefficient of a mask, over the batch."""
    entropy = functional.binary_cross_entropy_with_logits(logits, wanted, weight, reduction="sum") / weight.sum().clamp(min=1.0)
    probability = logits.sigmoid() * weight
    both = (probability * wanted).sum()
    return entropy + 1 - (2 * both + 1) / (probability.sum() + (wanted * weight).sum() + 1)
