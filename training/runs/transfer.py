"""Pretrain on a source, fine-tune on a target: what HistoTNet, ALLNet and the baseline share. Resumable at every point."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.architectures.build import build_network
from training.architectures.network import HEAD, Network
from training.crops.packs import Pack
from training.crops.sources import Sources
from training.datasets.splits import Split
from training.learning.checkpoints import Weights, save_network
from training.learning.classification_task import Normaliser, Samples, outputs_of
from training.learning.devices import Worker, wait_for_all
from training.learning.injection import inject_nothing, merged_classes, split_blasts
from training.recipes.config import Recipe, as_json
from training.runs.fitting import UNSPLIT, Fit, fit, predict, start_from, warm_up
from training.runs.folder import (
    NETWORK_FILE,
    PREDICTIONS_FILE,
    SPLIT,
    TransferOptions,
    as_judged,
    describe,
    identity,
    leader_first,
    split_digest,
    vars_of,
)
from training.runs.pretraining import initial_weights
from training.runs.target import cell_pack, crops_without_cells, splits


def run(options: TransferOptions, sources: Sources, worker: Worker) -> Path:
    """Train all parts of a run; finished ones are not done again.

    Returns:
        The folder of the run: ``run.json`` and one folder per part with its network and predictions.

    Raises:
        TrainingError: the data, the options or a file are at fault; what is finished stays.
    """
    recipe = options.recipe
    target = leader_first(worker, lambda: cell_pack(sources, options.target, recipe))
    made = splits(target, options)
    folder = options.runs / options.name
    description = {
        "recipe": as_json(recipe),
        "target": target.header.dataset,
        "target_digest": target.digest(),
        "seed": options.seed,
        "folds": options.folds,
        **options.patients,
    }
    pretrained, begun = initial_weights(options, sources, worker)
    description |= begun
    nothing = leader_first(worker, lambda: crops_without_cells(sources, target, recipe))
    if nothing is not None:
        description["nothing_digest"] = nothing.digest()
    describe(folder, description, recipe.gates, worker)
    for name, split in made.items():
        part = {**description, "part": name, SPLIT: split_digest(target, split)}
        fit_part(options, target, nothing, split, folder / name, pretrained, part, worker)
    return folder


def fit_part(
    options: TransferOptions,
    target: Pack,
    nothing: Pack | None,
    split: Split,
    folder: Path,
    pretrained: Weights | None,
    description: Mapping[str, Any],
    worker: Worker,
) -> None:
    """Train one part of a run on its split and let it predict; a finished part is not done again.

    Args:
        options: of the run.
        target: all its cells.
        nothing: crops without a cell, None for none.
        split: which cells are learned from, validate, and test.
        folder: of the part.
        pretrained: weights that it starts from, None for new ones.
        description: all that decides the training.
        worker: device and process.
    """
    if (folder / NETWORK_FILE).exists() and (folder / PREDICTIONS_FILE).exists():
        return
    recipe, stage = options.recipe, options.recipe.fine_tuning
    labels = np.stack([target.is_blast == 0, target.is_blast == 1], axis=1).astype(np.int8)
    samples, trained_on = Samples(target.pixels, labels, target.labels.argmax(axis=1), target.groups), split
    if nothing is not None:
        allowed = _may_be_learned(nothing, target, split.train, recipe)
        samples, trained_on = inject_nothing(samples, split, nothing, allowed, recipe.injection.nothing, options.seed)
    begun = "pretrained" if pretrained is not None else "from scratch"
    title = f"{recipe.system}, {description['part']}, {begun}, seed {options.seed}"
    how = Fit(stage, folder, identity(description), title, options.seed, multi_label=False, merged=merged_classes(recipe.injection))
    if recipe.injection.clusters > 1:
        unsplit = Fit(
            stage, folder / UNSPLIT, identity({**description, "part": UNSPLIT}), f"{title}, blasts unsplit", options.seed, multi_label=False
        )
        network, normaliser, _ = _trained(recipe, samples, trained_on, unsplit, pretrained, worker)
        embeddings = [o.embedding for o in outputs_of(network, samples.pixels[trained_on.train], normaliser, worker.device)]
        samples = split_blasts(samples, trained_on.train, np.concatenate(embeddings), recipe.injection.clusters, options.seed)
    network, normaliser, figures = _trained(recipe, samples, trained_on, how, pretrained, worker)
    if worker.leads:
        predict(as_judged(network, recipe), normaliser, target, split, worker).save(folder / PREDICTIONS_FILE)
        save_network(folder / NETWORK_FILE, network, {**description, "normaliser": vars_of(normaliser), **figures})
    wait_for_all(worker)


def _may_be_learned(nothing: Pack, target: Pack, training: NDArray[np.int64], recipe: Recipe) -> NDArray[np.bool_]:
    """Which crops without a cell a split may learn from: those of its training groups, or of its training images where it is by image; all patches."""
    if recipe.injection.source == "patches":
        return np.ones(len(nothing), np.bool_)
    if recipe.split.parts_fields:
        return np.isin(nothing.keys, target.keys[training])
    return np.isin(nothing.groups, target.groups[training])


def _trained(
    recipe: Recipe, samples: Samples, split: Split, how: Fit, pretrained: Weights | None, worker: Worker
) -> tuple[Network, Normaliser, dict[str, Any]]:
    """A network of the recipe, trained on samples with any number of classes."""
    torch.manual_seed(how.seed)
    network = build_network(recipe.network, {HEAD: samples.labels.shape[1]}, recipe.fine_tuning.input.side)
    if pretrained is not None:
        start_from(network, pretrained)
    if recipe.warm_up is not None:
        warm_up(network, recipe.warm_up, samples, split, how, worker)
    return network, *fit(network, samples, split, how, worker)
