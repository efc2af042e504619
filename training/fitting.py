"""Fit a cell network: in memory, seeded, with a progress bar."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.augmentation import augment
from training.losses import supervised_contrastive

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class FittingOptions:
    """How long and how strongly to fit.

    Attributes:
        epochs: passes over the training cells.
        batch: cells per step.
        peak_rate: highest learning rate (AdamW, one cycle: linear warm-up over a tenth, cosine to zero).
        weight_decay: AdamW's.
        contrastive_weight: weight of the supervised contrastive loss of the embedding.
        average_decay: decay per step of the moving average of the weights, which is what is returned.
        seed: of weights, order and augmentation.
    """

    epochs: int = 24
    batch: int = 96
    peak_rate: float = 3e-3
    weight_decay: float = 5e-4
    contrastive_weight: float = 0.3
    average_decay: float = 0.995
    seed: int = 7


@dataclass(frozen=True)
class TrainingCells:
    """Registered cells with labels.

    Attributes:
        pixels: uint8 (N, side, side, 3).
        is_blast: int64 (N,), 0 or 1.
        classes: int64 (N,), class index for the embedding.
        weights: float32 (N,), weight of each cell in the classification loss, mean 1.
    """

    pixels: Bytes
    is_blast: NDArray[np.int64]
    classes: NDArray[np.int64]
    weights: NDArray[np.float32]


def channel_statistics(pixels: Bytes) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel in 0..1 of uint8 (N, H, W, 3)."""
    sample = pixels[:: max(1, len(pixels) // 500)].reshape(-1, 3) / 255.0
    return sample.mean(axis=0).round(4).tolist(), sample.std(axis=0).round(4).tolist()


def patient_weights(patients: NDArray[np.str_], is_blast: NDArray[np.int64]) -> NDArray[np.float32]:
    """Weights that give both classes the same total and, within a class, large patients less than their size."""
    weights = np.zeros(len(patients), np.float64)
    for label in (0, 1):
        of_class = is_blast == label
        _, inverse, counts = np.unique(patients[of_class], return_inverse=True, return_counts=True)
        share = 1.0 / np.sqrt(counts[inverse])
        weights[of_class] = share / share.sum()
    return np.asarray(weights / weights.mean(), np.float32)


def fit(
    network: nn.Module, cells: TrainingCells, mean: list[float], std: list[float], options: FittingOptions, log: Callable[[str], None] = print
) -> nn.Module:
    """Fit a network that returns ``Outputs``; returns the moving average of its weights in evaluation mode."""
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(options.average_decay), use_buffers=True)
    generator = torch.Generator().manual_seed(options.seed)
    images = torch.from_numpy(cells.pixels)
    target, classes = torch.from_numpy(cells.is_blast), torch.from_numpy(cells.classes)
    weights = torch.from_numpy(cells.weights)
    normalise = _normaliser(mean, std)
    steps_per_epoch = len(images) // options.batch
    steps = options.epochs * steps_per_epoch
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.peak_rate, weight_decay=options.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _one_cycle(step, steps))
    with Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[loss]}"), TimeRemainingColumn()) as progress:
        task = progress.add_task("training", total=steps, loss="")
        for epoch in range(options.epochs):
            network.train()
            order = torch.randperm(len(images), generator=generator)
            total = 0.0
            for step in range(steps_per_epoch):
                chosen = order[step * options.batch : (step + 1) * options.batch]
                batch = augment(images[chosen].permute(0, 3, 1, 2).float() / 255.0, generator)
                outputs = network(normalise(batch))
                entropy = functional.cross_entropy(outputs.logits, target[chosen], reduction="none", label_smoothing=0.02)
                loss = (entropy * weights[chosen]).mean()
                loss = loss + options.contrastive_weight * supervised_contrastive(outputs.embedding, classes[chosen])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                average.update_parameters(network)
                total += loss.item()
                progress.update(task, advance=1, loss=f"epoch {epoch + 1}/{options.epochs} loss {total / (step + 1):.4f}")
            log(f"epoch {epoch + 1}: loss {total / steps_per_epoch:.4f}")
    return average.module.eval()


def _normaliser(mean: list[float], std: list[float]) -> Callable[[Tensor], Tensor]:
    m, s = torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(std).view(1, 3, 1, 1)
    return lambda x: (x - m) / s


def _one_cycle(step: int, steps: int) -> float:
    warm_up = max(1, steps // 10)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))
