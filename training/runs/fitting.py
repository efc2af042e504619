"""Train one network on one split, and let it predict."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from training.architectures.network import Network
from training.crops.packs import Pack
from training.datasets.splits import Split
from training.errors import ArrayFileError
from training.learning.checkpoints import Progress, Weights
from training.learning.classification_task import ClassificationTask, Normaliser, Samples, fit_normaliser, logits_of
from training.learning.devices import Worker
from training.learning.loop import LoopOptions, train
from training.recipes.config import Selection, Stage
from training.runs.folder import Predictions, identity

WARM_UP, UNSPLIT = "warm-up", "unsplit"


def start_from(network: nn.Module, weights: Weights) -> None:
    """Take over pretrained weights, all but those of the heads; fixed kernels included. An embedder stays new where the weights have none.

    Raises:
        ArrayFileError: the weights are of another network.
    """
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("heads.")}
    new = ("heads.",) if any(name.startswith("embedder.") for name in kept) else ("heads.", "embedder.")
    missing, unexpected = network.load_state_dict(kept, strict=False)
    if unexpected or any(not name.startswith(new) for name in missing):
        raise ArrayFileError("The pretrained weights are of another network.")


@dataclass(frozen=True)
class Fit:
    """One training of one network: how, where, and what it is called; ``heads`` and ``merged`` as ``ClassificationTask`` takes them."""

    stage: Stage
    folder: Path
    identity: str
    title: str
    seed: int
    multi_label: bool
    heads: tuple[slice, ...] = ()
    merged: tuple[tuple[int, ...], ...] = ()


def fit(network: nn.Module, samples: Samples, split: Split, how: Fit, worker: Worker) -> tuple[Normaliser, dict[str, Any]]:
    """Train a network and leave it with the weights that the stage keeps; returns its normaliser and what the training was."""
    stage = how.stage
    seen = np.concatenate([split.train, split.validation]) if stage.statistics_from_validation else split.train
    normaliser = fit_normaliser(stage.normalisation, samples.pixels[seen])
    task = ClassificationTask(
        network,
        stage,
        samples.select(split.train),
        samples.select(split.validation),
        normaliser,
        worker,
        multi_label=how.multi_label,
        seed=how.seed,
        weights_from=samples.labels[seen],
        heads=how.heads,
        merged=how.merged,
    )
    began = time.monotonic()
    progress = train(task, LoopOptions(how.folder, how.identity, how.title, how.seed, stage.average_decay, stage.precision), worker)
    keep_selected(network, stage, progress)
    network.eval()
    return normaliser, {"history": progress.history, "steps": progress.step, "last_session_seconds": round(time.monotonic() - began, 1)}


def keep_selected(network: nn.Module, stage: Stage, progress: Progress) -> None:
    """Give a network, as it was trained, the weights that its stage keeps."""
    if stage.selection is not Selection.LAST:
        network.load_state_dict(progress.best)
    elif progress.average:
        network.load_state_dict(progress.average)


def warm_up(network: Network, stage: Stage, samples: Samples, split: Split, then: Fit, worker: Worker) -> None:
    """Train the heads of a network alone, before the training ``then`` of all of it, in a folder below that one's."""
    described = identity({"before": then.identity, "stage": WARM_UP})
    with heads_alone(network):
        fit(network, samples, split, Fit(stage, then.folder / WARM_UP, described, f"{then.title}, heads", then.seed, then.multi_label), worker)


@contextmanager
def heads_alone(network: Network) -> Iterator[None]:
    """Hold all weights but those of the heads; the statistics of the batch normalisation move all the same."""
    held = [p for name, p in network.named_parameters() if p.requires_grad and not name.startswith("heads.")]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


def predict(network: nn.Module, normaliser: Normaliser, target: Pack, split: Split, worker: Worker) -> Predictions:
    """Predictions for the validation and test images of a part."""
    chosen = np.concatenate([split.validation, split.test])
    names = np.array(["validation"] * len(split.validation) + ["test"] * len(split.test))
    logits = logits_of(network, target.pixels[chosen], normaliser, worker.device)
    return Predictions(target.keys[chosen], target.groups[chosen], target.is_blast[chosen], logits, names)
