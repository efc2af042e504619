"""Weights pretrained on a source of stained tissue, now or before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch

from training.architectures.build import build_network
from training.architectures.network import HEAD
from training.crops.packs import Pack
from training.crops.sources import Sources
from training.datasets.splits import Split, greedy_folds, greedy_group_folds, refuse_leak, require_classes
from training.datasets.tissue import ADP, ALL_LEVELS, LC25000_TILES, heads_of
from training.learning.checkpoints import Weights, load_network, save_network
from training.learning.classification_task import Samples
from training.learning.devices import Worker, wait_for_all
from training.recipes.config import Pretraining, Start, as_json
from training.runs.fitting import Fit, fit, start_from
from training.runs.folder import NETWORK_FILE, TransferOptions, identity, leader_first, vars_of
from training.runs.starting import starting_weights
from training.runs.target import choose

SOURCES: Final = (ADP, LC25000_TILES)
_SOURCE_FOLDS: Final = 10


def initial_weights(options: TransferOptions, sources: Sources, worker: Worker) -> tuple[Weights | None, dict[str, Any]]:
    """Weights that the target is learned from, None where they are drawn anew, and what a run notes of them.

    They are those of the recipe's ``start``, trained on the source where the recipe pretrains.

    Raises:
        TrainingError: the source, the options or a file are at fault.
    """
    started, start = starting_weights(options)
    if options.recipe.pretraining is None or not options.recipe.pretraining.enabled:
        return started, dict(start)
    weights, source = _pretrained(options, sources, worker, started, start)
    return weights, {**start, **source}


def _pretrained(
    options: TransferOptions, sources: Sources, worker: Worker, started: Weights | None, start: Mapping[str, str]
) -> tuple[Weights, dict[str, Any]]:
    """Weights of the recipe's network trained on the source, now or before, and what a run notes of the source."""
    recipe, stage = options.recipe, options.recipe.pretraining
    assert stage is not None
    name = choose(sources, options.source, SOURCES, "source", "--source")
    pack = leader_first(worker, lambda: sources.pack(name, stage.input, stage.level))
    described_recipe = as_json(recipe)
    begun = {"start": described_recipe["start"], **start} if recipe.start is not Start.SCRATCH else {}
    parts = {"network": described_recipe["network"], "stage": described_recipe["pretraining"], "seed": options.seed, "data": pack.digest()}
    digest = identity({**parts, **begun})
    folder = options.runs / f"source-{digest[:16]}"
    described = {"source": pack.header.dataset, "source_digest": pack.digest()}
    if not (folder / NETWORK_FILE).exists():
        split = source_split(pack, stage)
        samples = Samples(pack.pixels, pack.labels, pack.labels.argmax(axis=1), pack.groups)
        torch.manual_seed(options.seed)
        network = build_network(recipe.network, {HEAD: len(pack.header.classes)}, stage.input.side)
        if started is not None:
            start_from(network, started)
        title = f"{recipe.system}, source {pack.header.dataset}, seed {options.seed}"
        heads = heads_of(pack.header.classes) if stage.level == ALL_LEVELS else ()
        how = Fit(stage, folder, digest, title, options.seed, pack.header.multi_label, heads)
        normaliser, figures = fit(network, samples, split, how, worker)
        if worker.leads:
            save_network(folder / NETWORK_FILE, network, {**described, "recipe": described_recipe, "normaliser": vars_of(normaliser), **figures})
        wait_for_all(worker)
    weights, _ = load_network(folder / NETWORK_FILE)
    return weights, {**described, "source_run": folder.name}


def source_split(pack: Pack, stage: Pretraining) -> Split:
    """Nine folds of ten train, one validates; in the papers' way (by image) one more is left out as test.

    Raises:
        SplitError: the split leaks by slide or tile, or a class is missing from the training part.
    """
    nothing = np.zeros(0, np.int64)
    if stage.folds == "by_image":
        fold = greedy_folds(pack.labels, _SOURCE_FOLDS)
        return Split(np.flatnonzero(fold < 8), np.flatnonzero(fold == 8), np.flatnonzero(fold == 9))
    fold = greedy_group_folds(pack.labels, pack.groups, _SOURCE_FOLDS)
    split = Split(np.flatnonzero(fold != 9), np.flatnonzero(fold == 9), nothing)
    refuse_leak(split, pack.groups, pack.header.grouped_by, pack.sha256)
    if not pack.header.multi_label:
        require_classes(pack.labels, pack.header.classes, split)
    return split
