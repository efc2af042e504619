"""Train a network to tell classes, single or multi-label. Most recipes give this task to the loop."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from training.architectures.network import Outputs, merged_logits
from training.errors import RecipeError, SplitError
from training.learning.augmentation import augment
from training.learning.devices import Worker
from training.learning.loop import Figures
from training.learning.losses import (
    inverse_count_weights,
    multi_label_soft_margin,
    positive_weights,
    supervised_contrastive,
    triplet_margin,
    weighted_cross_entropy,
)
from training.learning.orthogonality import convolutional_orthogonality
from training.learning.schedules import Rates, rates
from training.recipes.config import ClassWeights, Normalisation, Selection, Stage

Pixels = NDArray[np.uint8]
Float = NDArray[np.float32]
EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Samples:
    """Crops with their labels; arrays share their first axis.

    Attributes:
        pixels: uint8 (N, side, side, 3).
        labels: int8 (N, K), 0 or 1; exactly one per row unless multi-label.
        fine: int64 (N,), finer class of each crop, for the losses of the embedding.
        groups: str (N,).
    """

    pixels: Pixels
    labels: NDArray[np.int8]
    fine: NDArray[np.int64]
    groups: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.pixels)

    def select(self, chosen: NDArray[Any]) -> Samples:
        """Samples by index or mask."""
        return Samples(self.pixels[chosen], self.labels[chosen], self.fine[chosen], self.groups[chosen])


@dataclass(frozen=True)
class Normaliser:
    """What is subtracted and divided by, per channel, in 0..1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Normalise uint8 (N, side, side, 3) to float32 (N, 3, side, side); the memory stays channels-last."""
        mean, std = (torch.tensor(v, dtype=torch.float32, device=pixels.device) * 255.0 for v in (self.mean, self.std))
        return pixels.float().sub_(mean).div_(std).permute(0, 3, 1, 2)


def fit_normaliser(kind: Normalisation, pixels: Pixels) -> Normaliser:
    """Statistics of crops, uint8 (N, side, side, 3); see ``Normalisation``."""
    match kind:
        case Normalisation.NONE:
            return Normaliser((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        case Normalisation.SCALAR:
            batches = [pixels[i : i + 1024] / np.float32(255.0) for i in range(0, len(pixels), 1024)]
            mean, std = float(np.mean([b.mean() for b in batches])), float(np.mean([b.std() for b in batches]))
            return Normaliser((mean,) * 3, (std,) * 3)
        case Normalisation.CHANNEL:
            sample = pixels[:: max(1, len(pixels) // 500)].reshape(-1, 3) / 255.0
            red, green, blue = sample.mean(axis=0).round(4).tolist()
            deviations = sample.std(axis=0).round(4).tolist()
            return Normaliser((red, green, blue), (deviations[0], deviations[1], deviations[2]))


class CellBatch(NamedTuple):
    """Crops of a step with their labels, on the CPU."""

    pixels: Tensor
    labels: Tensor
    fine: Tensor
    weights: Tensor


class ClassificationTask:
    """A network, the images that it learns from, and the images that validate it.

    Args:
        network: to train; moved to the device by the loop.
        stage: how.
        train: samples to learn from.
        validation: samples to score after each epoch; may be empty, unless the stage selects by them.
        normaliser: of the stage.
        multi_label: whether labels are independent.
        weights_from: labels that class weights are counted on; those of ``train`` if None.
        heads: columns of the heads that learn independent labels; their losses are added. One head if empty.
        merged: columns that are one class when the validation samples are scored; every column is its own if empty.
        seed: of order and augmentation.
        worker: device and process.

    Raises:
        RecipeError: the batch does not fit the processes or the data, or selection lacks validation samples.
    """

    def __init__(
        self,
        network: nn.Module,
        stage: Stage,
        train: Samples,
        validation: Samples,
        normaliser: Normaliser,
        worker: Worker,
        *,
        multi_label: bool,
        seed: int,
        weights_from: NDArray[np.int8] | None = None,
        heads: Sequence[slice] = (),
        merged: Sequence[Sequence[int]] = (),
    ) -> None:
        if stage.batch % worker.count:
            raise RecipeError(f"A batch of {stage.batch} cannot be shared by {worker.count} processes; change it with --set.")
        if len(train) < stage.batch:
            raise RecipeError(f"{len(train)} images are fewer than a batch of {stage.batch}; change it with --set.")
        if multi_label and stage.class_weights is ClassWeights.GROUP_ROOT:
            raise RecipeError("class_weights group_root is for one class per image; use inverse_count.")
        if not multi_label and stage.class_weights is ClassWeights.POSITIVE:
            raise RecipeError("class_weights positive is for independent labels; use inverse_count.")
        if stage.selection is not Selection.LAST and not len(validation):
            raise RecipeError(f"selection {stage.selection.value} needs validation images, and the split leaves none.")
        self.network, self.stage, self.train, self.validation = network, stage, train, validation
        self.normaliser, self.multi_label, self.seed, self.worker = normaliser, multi_label, seed, worker
        self.merged = merged
        self.epochs, self.steps_per_epoch = stage.epochs, len(train) // stage.batch
        self.optimiser = make_optimiser(network, stage)
        counted = train.labels if weights_from is None else weights_from
        class_weights = _class_weights(stage.class_weights, counted) * _weights_of_heads(heads, counted.shape[1])
        self.class_weights = torch.from_numpy(class_weights).to(worker.device)
        positive = positive_weights(counted) if stage.class_weights is ClassWeights.POSITIVE else np.ones(counted.shape[1], np.float32)
        self.positive_weights = torch.from_numpy(positive).to(worker.device)
        self.image_weights = torch.from_numpy(np.ones(len(train), np.float32) if multi_label else _image_weights(stage.class_weights, train, counted))
        self._pool = ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // worker.count), thread_name_prefix="augment")
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.zeros(0, np.int64))

    def batch(self, step: int) -> CellBatch:
        """This process's share of the images of a step, augmented."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng((self.seed, epoch)).permutation(len(self.train)))
        start = position * self.stage.batch
        chosen = self._order[1][start : start + self.stage.batch][self.worker.rank :: self.worker.count]
        pixels = self.augmented(chosen, (self.seed, step, self.worker.rank))
        labels, fine = torch.from_numpy(self.train.labels[chosen]), torch.from_numpy(self.train.fine[chosen])
        return CellBatch(pixels, labels, fine, self.image_weights[torch.from_numpy(chosen)])

    def augmented(self, chosen: NDArray[np.int64], key: tuple[int, ...]) -> Tensor:
        """Training images by index, changed as the key decides, uint8 (N, side, side, 3)."""
        return torch.from_numpy(augment(self.train.pixels[chosen], self.stage.augmentation, key, self._pool))

    def inputs(self, pixels: Tensor) -> Tensor:
        """Images, uint8 (N, side, side, 3), as the network takes them, on the device: float32 (N, 3, side, side)."""
        return self.normaliser(pixels.to(self.worker.device, non_blocking=True))

    def loss(self, network: nn.Module, batch: CellBatch) -> Tensor:
        """Loss of a batch."""
        return self.loss_of(network(self.inputs(batch.pixels)), batch)

    def loss_of(self, outputs: Outputs, batch: CellBatch) -> Tensor:
        """Loss of the network's output for a batch."""
        labels, fine, weights = (t.to(self.worker.device, non_blocking=True) for t in (batch.labels, batch.fine, batch.weights))
        if self.multi_label:
            loss = multi_label_soft_margin(outputs.logits, labels, self.class_weights, self.positive_weights)
        else:
            loss = weighted_cross_entropy(outputs.logits, labels.argmax(dim=1), weights, self.stage.label_smoothing)
        if self.stage.contrastive_weight:
            loss = loss + self.stage.contrastive_weight * supervised_contrastive(outputs.embedding, fine)
        if self.stage.triplet_weight:
            loss = loss + self.stage.triplet_weight * triplet_margin(outputs.embedding, fine, self.stage.triplet_margin)
        if self.stage.orthogonality_weight:
            loss = loss + self.stage.orthogonality_weight * convolutional_orthogonality(self.network, legacy=self.stage.orthogonality_legacy)
        return loss

    def rates(self, step: int) -> Rates:
        """Learning rate and momentum of a step."""
        return rates(self.stage.schedule, self.stage.optimiser.rate, self.stage.optimiser.momentum, step, self.steps_per_epoch, self.epochs)

    def score(self, network: nn.Module, epoch: int) -> tuple[tuple[float, ...], Figures]:
        """Validation accuracy (of labels, where there are several) and loss; by the stage's selection, larger is better."""
        if self.stage.selection is Selection.LAST or not len(self.validation):
            return (), {}
        logits = np.concatenate([o.logits for o in outputs_of(network, self.validation.pixels, self.normaliser, self.worker.device)])
        labels = torch.from_numpy(self.validation.labels)
        tensor = torch.from_numpy(logits)
        if self.multi_label:
            accuracy = float(((tensor > 0) == (labels > 0)).float().mean())
            loss = float(multi_label_soft_margin(tensor, labels, self.class_weights.cpu(), self.positive_weights.cpu()))
        else:
            if self.merged:
                tensor = merged_logits(tensor, self.merged)
                labels = torch.stack([labels[:, list(columns)].sum(dim=1) for columns in self.merged], dim=1)
            accuracy = float((tensor.argmax(1) == labels.argmax(1)).float().mean())
            loss = float(nn.functional.cross_entropy(tensor, labels.argmax(1)))
        figures = {"validation_accuracy": accuracy, "validation_loss": loss}
        return ((accuracy, float(epoch)) if self.stage.selection is Selection.BEST_LEGACY else (accuracy, -loss)), figures


class BatchOutputs(NamedTuple):
    """``Outputs`` as arrays in the CPU's memory."""

    logits: Float
    embedding: Float
    place_embeddings: Float


def outputs_of(network: nn.Module, pixels: Pixels, normaliser: Normaliser, device: torch.device) -> Iterator[BatchOutputs]:
    """Output of a network for crops, uint8 (N, side, side, 3), in evaluation mode and float32, batch by batch; no crop is left out."""
    was_training = network.training
    network.eval()
    with torch.no_grad():
        for start in range(0, len(pixels), EVALUATION_BATCH):
            batch = torch.from_numpy(pixels[start : start + EVALUATION_BATCH]).to(device)
            yield BatchOutputs(*(t.float().cpu().numpy() for t in network(normaliser(batch))))
    network.train(was_training)


def logits_of(network: nn.Module, pixels: Pixels, normaliser: Normaliser, device: torch.device) -> Float:
    """Logits of crops, float32 (N, K)."""
    return np.concatenate([o.logits for o in outputs_of(network, pixels, normaliser, device)])


def make_optimiser(network: nn.Module, stage: Stage, head_rate: float = 1.0) -> Optimizer:
    """The stage's optimiser over what is trainable; fixed kernels are never in it.

    Args:
        network: to train.
        stage: how.
        head_rate: learning rate of the heads of a ``Network``, in rates of all else.
    """
    trainable: list[Any] = [p for p in network.parameters() if p.requires_grad]
    if head_rate != 1.0:
        heads = [p for name, p in network.named_parameters() if p.requires_grad and name.startswith("heads.")]
        others = [p for name, p in network.named_parameters() if p.requires_grad and not name.startswith("heads.")]
        trainable = [{"params": others}, {"params": heads, "rate_scale": head_rate}]
    options = stage.optimiser
    if options.kind == "sgd":
        return torch.optim.SGD(trainable, options.rate, options.momentum, weight_decay=options.weight_decay)
    return torch.optim.AdamW(trainable, options.rate, weight_decay=options.weight_decay)


def _class_weights(kind: ClassWeights, labels: NDArray[np.int8]) -> Float:
    if kind in (ClassWeights.INVERSE_COUNT, ClassWeights.INVERSE_COUNT_LEGACY):
        return inverse_count_weights(labels, mask_empty=kind is ClassWeights.INVERSE_COUNT)
    return np.ones(labels.shape[1], np.float32)


def _weights_of_heads(heads: Sequence[slice], classes: int) -> Float:
    """Weights that make the mean over all classes the sum of the heads' means. One linear layer of all classes then equals one layer per head."""
    weights = np.ones(classes, np.float32)
    for head in heads:
        weights[head] = classes / len(weights[head])
    return weights


def _image_weights(kind: ClassWeights, samples: Samples, counted: NDArray[np.int8]) -> Float:
    if kind is ClassWeights.GROUP_ROOT:
        return group_root_weights(samples.groups, samples.labels.argmax(axis=1))
    weights = _class_weights(kind, counted)[samples.labels.argmax(axis=1)]
    return (weights / weights.mean()).astype(np.float32)


def group_root_weights(groups: NDArray[np.str_], classes: NDArray[np.int64]) -> Float:
    """Weights that give all classes the same total and, within a class, a group with n images the weight sqrt(n); mean 1.

    Raises:
        SplitError: there is only one class.
    """
    present = np.unique(classes)
    if len(present) < 2:
        raise SplitError("All training images are of one class.")
    weights = np.zeros(len(groups), np.float64)
    for label in present:
        of_class = classes == label
        _, inverse, counts = np.unique(groups[of_class], return_inverse=True, return_counts=True)
        share = 1.0 / np.sqrt(counts[inverse])
        weights[of_class] = share / share.sum()
    return np.asarray(weights / weights.mean(), np.float32)
