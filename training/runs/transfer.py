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
from training.datasets.splits import Parts
from training.learning.checkpoints import Weights, save_network
from training.learning.classification_task import Normaliser, Samples, outputs_of
from training.learning.devices import Place, wait_for_all
from training.learning.injection import inject_nothing, merged_classes, split_blasts
from training.recipes.config import Recipe, as_json
from training.runs.fitting import UNSPLIT, Fit, fit, predict, start_from, warm_up
from training.runs.folder import (
    NETWORK_FILE,
    PREDICTIONS_FILE,
    TransferOptions,
    as_judged,
    describe,
    division_digest,
    identity,
    leader_first,
    vars_of,
)
from training.runs.pretraining import pretrained_weights
from training.runs.target import cell_pack, crops_without_cells, divisions


def run(options: TransferOptions, sources: Sources, at: Place) -> Path:
    """Train all parts of a run; finished ones are not done again.

    Returns:
        The folder of the run: ``run.json`` and one folder per part with its network and predictions.

    Raises:
        TrainingError: the data, the options or a file are at fault; what is finished stays.
    """
    recipe = options.recipe
    target = leader_first(at, lambda: cell_pack(sources, options.target, recipe))
    parts = divisions(target, options)
    folder = options.runs / options.name
    description = {
        "recipe": as_json(recipe),
        "target": target.header.dataset,
        "target_digest": target.digest(),
        "seed": options.seed,
        "folds": options.folds,
        **options.patients,
    }
    pretrained: Weights | None = None
    source_of: dict[str, Any] = {}
    if recipe.pretraining is not None and recipe.pretraining.enabled:
        pretrained, source_of = pretrained_weights(options, sources, at)
        description |= source_of
    nothing = leader_first(at, lambda: crops_without_cells(sources, target, recipe))
    if nothing is not None:
        description["nothing_digest"] = nothing.digest()
    describe(folder, description, recipe.gates, at)
    for name, division in parts.items():
        part = {**description, "part": name, "division": division_digest(target, division)}
        _fine_tune(options, target, nothing, division, folder / name, pretrained, part, at)
    return folder


def _fine_tune(
    options: TransferOptions,
    target: Pack,
    nothing: Pack | None,
    parts: Parts,
    folder: Path,
    pretrained: Weights | None,
    description: Mapping[str, Any],
    at: Place,
) -> None:
    if (folder / NETWORK_FILE).exists() and (folder / PREDICTIONS_FILE).exists():
        return
    recipe, stage = options.recipe, options.recipe.fine_tuning
    labels = np.stack([target.is_blast == 0, target.is_blast == 1], axis=1).astype(np.int8)
    samples, trained_on = Samples(target.pixels, labels, target.labels.argmax(axis=1), target.groups), parts
    if nothing is not None:
        allowed = _may_be_learned(nothing, target, parts.train, recipe)
        samples, trained_on = inject_nothing(samples, parts, nothing, allowed, recipe.injection.nothing, options.seed)
    begun = "pretrained" if pretrained is not None else "from scratch"
    title = f"{recipe.system}, {description['part']}, {begun}, seed {options.seed}"
    how = Fit(stage, folder, identity(description), title, options.seed, multi_label=False, merged=merged_classes(recipe.injection))
    if recipe.injection.clusters > 1:
        unsplit = Fit(
            stage, folder / UNSPLIT, identity({**description, "part": UNSPLIT}), f"{title}, blasts unsplit", options.seed, multi_label=False
        )
        network, normaliser, _ = _trained(recipe, samples, trained_on, unsplit, pretrained, at)
        embeddings = [o.embedding for o in outputs_of(network, samples.pixels[trained_on.train], normaliser, at.device)]
        samples = split_blasts(samples, trained_on.train, np.concatenate(embeddings), recipe.injection.clusters, options.seed)
    network, normaliser, figures = _trained(recipe, samples, trained_on, how, pretrained, at)
    if at.leads:
        predict(as_judged(network, recipe), normaliser, target, parts, at).save(folder / PREDICTIONS_FILE)
        save_network(folder / NETWORK_FILE, network, {**description, "normaliser": vars_of(normaliser), **figures})
    wait_for_all(at)


def _may_be_learned(nothing: Pack, target: Pack, training: NDArray[np.int64], recipe: Recipe) -> NDArray[np.bool_]:
    """Which crops without a cell a division may learn from: places of its training groups, or images where it is by image; all patches."""
    if recipe.injection.source == "patches":
        return np.ones(len(nothing), np.bool_)
    if recipe.division.by == "image":
        return np.isin(nothing.keys, target.keys[training])
    return np.isin(nothing.groups, target.groups[training])


def _trained(
    recipe: Recipe, samples: Samples, parts: Parts, how: Fit, pretrained: Weights | None, at: Place
) -> tuple[Network, Normaliser, dict[str, Any]]:
    """A network of the recipe, trained on samples with any number of classes."""
    torch.manual_seed(how.seed)
    network = build_network(recipe.network, {HEAD: samples.labels.shape[1]}, recipe.fine_tuning.input.side)
    if pretrained is not None:
        start_from(network, pretrained)
    if recipe.warm_up is not None:
        warm_up(network, recipe.warm_up, samples, parts, how, at)
    return network, *fit(network, samples, parts, how, at)
