"""The task of a network that learns a source and the target at once (DL4ALL)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from training.architectures.network import HEAD, SOURCE_HEAD, Network, Outputs
from training.datasets.splits import Split
from training.errors import RecipeError
from training.learning.classification_task import CellBatch, ClassificationTask, Normaliser, Samples, fit_normaliser, make_optimiser
from training.learning.devices import Worker, arithmetic
from training.learning.interleaved_step import LEGACY_BAR, OPEN_BAR, Learner, greedy_step, lowest, normalises_batches, recent, refresh, regular_step
from training.learning.loop import Figures
from training.learning.schedules import Rates, rates
from training.recipes.config import Interleaving, Selection, Stage, Variant

_BAR, _KEPT, _STEPS = "bar", "kept", "steps"
_READAPTATION: Final = 1 << 20
"""Tells the images of a readaptation from those of a step."""


@dataclass(frozen=True)
class Side:
    """One of the two data sets of a training.

    Attributes:
        samples: all of its crops.
        split: which of them are learned from; those of validation may count in statistics and weights.
        stage: how they are seen and weighed, with the batch of this side.
        multi_label: whether labels are independent.
    """

    samples: Samples
    split: Split
    stage: Stage
    multi_label: bool

    @property
    def seen(self) -> NDArray[np.int64]:
        """Crops that count in statistics and weights."""
        return np.concatenate([self.split.train, self.split.validation]) if self.stage.statistics_from_validation else self.split.train

    def normaliser(self) -> Normaliser:
        """Statistics of this side alone."""
        return fit_normaliser(self.stage.normalisation, self.samples.pixels[self.seen])

    def task(self, network: nn.Module, seed: int, worker: Worker) -> ClassificationTask:
        """Learning this side alone."""
        return ClassificationTask(
            network,
            self.stage,
            self.samples.select(self.split.train),
            self.samples.select(self.split.validation),
            self.normaliser(),
            worker,
            multi_label=self.multi_label,
            seed=seed,
            weights_from=self.samples.labels[self.seen],
        )


class TwoBatches(NamedTuple):
    """The batches of a step, on the CPU."""

    source: CellBatch
    target: CellBatch


class TwoDomains(nn.Module):
    """A network with a head for the source and one for the target, called with a batch of each.

    Args:
        network: with the heads ``HEAD`` and ``SOURCE_HEAD``.
        stage: whose precision holds.
        refreshes: whether the target's batch moves the batch normalisation once before it is learned from.
    """

    def __init__(self, network: Network, stage: Stage, *, refreshes: bool) -> None:
        super().__init__()
        self.network, self.precision, self.refreshes = network, stage.precision, refreshes

    def forward(self, source: Tensor, target: Tensor) -> tuple[Outputs, Outputs]:
        """Output of the network for a batch of the source and a batch of the target, normalised, float32 (N, 3, side, side)."""
        return self.of_source(source), self.of_target(target)

    def of_source(self, pixels: Tensor) -> Outputs:
        """Output for a batch of the source, with the source's head."""
        with arithmetic(self.precision, pixels.device):
            outputs: Outputs = self.network(pixels, SOURCE_HEAD)
        return outputs

    def of_target(self, pixels: Tensor) -> Outputs:
        """Output for a batch of the target, after the refresh."""
        if self.refreshes:
            with arithmetic(self.precision, pixels.device):
                refresh(self.network, pixels)
        with arithmetic(self.precision, pixels.device):
            outputs: Outputs = self.network(pixels, HEAD)
        return outputs


class OneHead(nn.Module):
    """A network that judges with one of its heads."""

    def __init__(self, network: Network, head: str) -> None:
        super().__init__()
        self.network, self.head = network, head

    def forward(self, pixels: Tensor) -> Outputs:
        """What it says of normalised images, float32 (N, 3, side, side)."""
        outputs: Outputs = self.network(pixels, self.head)
        return outputs


class InterleavedTask:
    """Source and target learned at once; a ``Task`` and a ``SteppingTask`` of the loop.

    Args:
        network: with the heads ``HEAD`` and ``SOURCE_HEAD``.
        how: variant and switches.
        source, target: the two sides; the target's stage says how weights move and what is kept.
        seed: of order and augmentation.
        worker: device and process.

    Raises:
        RecipeError: a batch does not fit the processes or the data, or a greedy variant is given several processes.
    """

    def __init__(self, network: Network, how: Interleaving, source: Side, target: Side, seed: int, worker: Worker) -> None:
        refuse_processes(how, worker)
        stage = target.stage
        has_statistics = normalises_batches(network)
        self.how, self.stage, self.worker = how, stage, worker
        self.source, self.target = source.task(network, seed, worker), target.task(network, seed, worker)
        self.judged = network
        self.domains = TwoDomains(network, stage, refreshes=how.refresh and has_statistics)
        self.network: nn.Module = self.domains
        self.optimiser = make_optimiser(network, stage, how.head_rate)
        self.epochs, self.steps_per_epoch = stage.epochs, min(self.source.steps_per_epoch, self.target.steps_per_epoch)
        self.readaptation = how.readaptation if has_statistics else 0
        self.memory: dict[str, float] = {}
        if how.is_greedy:
            self.memory |= {_BAR: OPEN_BAR if how.variant is Variant.GREEDY else LEGACY_BAR, _KEPT: 0.0, _STEPS: 0.0}
        sizes = (source.stage.batch, target.stage.batch)
        self._learner = Learner(self.network, self.optimiser, network.heads[SOURCE_HEAD], network.heads[HEAD], *sizes)

    def batch(self, step: int) -> TwoBatches:
        """This process's share of the images of a step; both data sets are shuffled anew for every epoch."""
        epoch, position = divmod(step, self.steps_per_epoch)
        source, target = (task.batch(epoch * task.steps_per_epoch + position) for task in (self.source, self.target))
        return TwoBatches(source, target)

    def loss(self, network: nn.Module, batch: TwoBatches) -> Tensor:
        """Sum of the two losses; ``take_step`` does not use it."""
        source, target = _Forward(self, network, batch).both()
        return source + target

    def take_step(self, network: nn.Module, batch: TwoBatches) -> Tensor:
        """A step by the variant; ``network`` is ``self.network``, possibly wrapped for several processes."""
        pair = _Forward(self, network, batch)
        if not self.how.is_greedy:
            return regular_step(self._learner, pair)
        bar = self.memory[_BAR]
        done = greedy_step(self._learner, pair, bar)
        is_legacy = self.how.variant is Variant.GREEDY_LEGACY
        self.memory[_BAR] = lowest(bar, done.target_loss) if is_legacy else recent(bar, done.target_loss, self.how.greedy_memory)
        self.memory[_KEPT] += done.kept
        self.memory[_STEPS] += 1
        return done.loss

    def rates(self, step: int) -> Rates:
        """Learning rate of all but the heads, and momentum, of a step."""
        options = self.stage.optimiser
        return rates(self.stage.schedule, options.rate, options.momentum, step, self.steps_per_epoch, self.epochs)

    def score(self, network: nn.Module, epoch: int) -> tuple[tuple[float, ...], Figures]:  # noqa: ARG002
        """Validation on the target, after a readaptation; and the share of source steps that were kept."""
        figures: Figures = {}
        if self.how.is_greedy:
            figures["kept"] = self.memory[_KEPT] / max(self.memory[_STEPS], 1.0)
            self.memory |= {_KEPT: 0.0, _STEPS: 0.0}
        if self.stage.selection is Selection.LAST:
            return (), figures
        self.readapt(epoch)
        score, measured = self.target.score(self.judged, epoch)
        return score, {**figures, **measured}

    def readapt(self, epoch: int) -> None:
        """Move the statistics of the batch normalisation by batches of the target's training images, drawn by seed and epoch."""
        size = len(self.target.train)
        for i in range(self.readaptation):
            key = (self.target.seed, _READAPTATION + epoch, i)
            chosen = np.random.default_rng(key).permutation(size)[: self.target.stage.batch]
            refresh(self.judged, self.target.inputs(self.target.augmented(chosen, key)))


@dataclass(frozen=True)
class _Forward:
    """The ``Pair`` of a step."""

    task: InterleavedTask
    called: nn.Module
    batch: TwoBatches

    def both(self) -> tuple[Tensor, Tensor]:
        task, (source, target) = self.task, self.batch
        of_source, of_target = self.called(task.source.inputs(source.pixels), task.target.inputs(target.pixels))
        return self._loss(task.source, of_source, source), self._loss(task.target, of_target, target)

    def source(self) -> Tensor:
        task, batch = self.task.source, self.batch.source
        return self._loss(task, self.task.domains.of_source(task.inputs(batch.pixels)), batch)

    def target(self) -> Tensor:
        task, batch = self.task.target, self.batch.target
        return self._loss(task, self.task.domains.of_target(task.inputs(batch.pixels)), batch)

    def _loss(self, side: ClassificationTask, outputs: Outputs, batch: CellBatch) -> Tensor:
        with arithmetic(self.task.stage.precision, self.task.worker.device):
            return side.loss_of(outputs, batch)


def refuse_processes(how: Interleaving, worker: Worker) -> None:
    """Refuse what one process alone can do.

    Raises:
        RecipeError: a greedy variant is given several: each would keep or undo steps of its own.
    """
    if how.is_greedy and worker.count > 1:
        raise RecipeError(
            f"interleaving.variant {how.variant.value} decides step by step whether it is undone and runs in one process, not {worker.count}; "
            "start it without torchrun, or use regular or self."
        )
