"""Train a recipe that learns a source and the target at once (DL4ALL). Resumable at every point."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from services.common.cell_classes import CLASSES
from training.architectures.build import build_network
from training.architectures.network import HEAD, SOURCE_HEAD, Network
from training.crops.packs import Pack
from training.crops.sources import Sources
from training.datasets.dataset import GroupKind
from training.datasets.splits import Split, greedy_folds, stratified_by_image
from training.errors import RecipeError
from training.learning.checkpoints import Weights, save_network
from training.learning.classification_task import Samples
from training.learning.devices import Worker, wait_for_all
from training.learning.interleaved_step import batch_sizes
from training.learning.interleaved_task import InterleavedTask, OneHead, Side, refuse_processes
from training.learning.loop import LoopOptions, train
from training.recipes.config import Interleaving, Recipe, Selection, Stage, Variant, as_json
from training.runs.fitting import WARM_UP, Fit, fit, heads_alone, keep_selected, predict, start_from
from training.runs.folder import NETWORK_FILE, PREDICTIONS_FILE, SPLIT, TransferOptions, describe, identity, leader_first, split_digest, vars_of
from training.runs.pretraining import SOURCES
from training.runs.starting import starting_weights
from training.runs.target import cell_pack, choose, splits

_FOLDS: Final = 10
_GROUP_SHARES: Final = (0.7, 0.2, 0.1)


def run(options: TransferOptions, sources: Sources, worker: Worker) -> Path:
    """Train all parts of a run; finished ones are not done again.

    Returns:
        The folder of the run, laid out as ``training.runs.transfer.run`` does; its networks have the target's head alone.

    Raises:
        TrainingError: the data, the options or a file are at fault; what is finished stays.
    """
    recipe = options.recipe
    how = interleaving_of(recipe)
    refuse_processes(how, worker)
    target = leader_first(worker, lambda: cell_pack(sources, options.target, recipe))
    made = splits(target, options)
    name = choose(sources, options.source, SOURCES, "source", "--source")
    source = leader_first(worker, lambda: sources.pack(name, how.input, how.level))
    described = source_samples(source, how)
    description = {
        "recipe": as_json(recipe),
        "target": target.header.dataset,
        "target_digest": target.digest(),
        "source": source.header.dataset,
        "source_digest": source.digest(),
        "seed": options.seed,
        "folds": options.folds,
        **options.patients,
    }
    started, start = starting_weights(options)
    description |= start
    folder = options.runs / options.name
    describe(folder, description, recipe.gates, worker)
    for part, split in made.items():
        about = {**description, "part": part, SPLIT: split_digest(target, split)}
        _train_part(options, source, described, target, split, folder / part, started, about, worker)
    return folder


def interleaving_of(recipe: Recipe) -> Interleaving:
    """How a recipe learns source and target at once.

    Raises:
        RecipeError: it does not.
    """
    if recipe.interleaving is None or not recipe.interleaving.enabled:
        raise RecipeError(f"{recipe.system} does not learn source and target at once: it has no interleaving.")
    return recipe.interleaving


def source_samples(source: Pack, how: Interleaving) -> Samples:
    """Crops of the source with what is learned of them: their classes, or with the variant ``self`` the groups that they come from.

    Raises:
        RecipeError: groups are to be learned, and nothing is known of them.
    """
    labels = source.labels
    if how.variant is Variant.SELF:
        if source.header.grouped_by is GroupKind.NONE or "" in source.groups:
            raise RecipeError(f"{source.header.dataset} does not say what its images come from; interleaving.variant self needs that.")
        labels = group_labels(source.groups)
    return Samples(source.pixels, labels, labels.argmax(axis=1), source.groups)


def group_labels(groups: NDArray[np.str_]) -> NDArray[np.int8]:
    """Each group as a class of its own, in alphabetical order: int8 (N, groups), one 1 per row."""
    names, inverse = np.unique(groups, return_inverse=True)
    labels = np.zeros((len(groups), len(names)), np.int8)
    labels[np.arange(len(groups)), inverse] = 1
    return labels


def source_split(samples: Samples, how: Interleaving, seed: int) -> Split:
    """Which crops of the source are learned from, see ``Interleaving.part``. Nothing is ever measured on the source."""
    nothing = np.zeros(0, np.int64)
    if how.part == "all":
        return Split(np.arange(len(samples)), nothing, nothing)
    if how.variant is Variant.SELF:
        return stratified_by_image(samples.fine, _GROUP_SHARES, seed)
    fold = greedy_folds(samples.labels, _FOLDS)
    return Split(np.flatnonzero(fold < 8), np.flatnonzero(fold == 8), np.flatnonzero(fold == 9))


def _sides(recipe: Recipe, source: Pack, described: Samples, target: Pack, split: Split, seed: int) -> tuple[Side, Side]:
    how, stage = interleaving_of(recipe), recipe.fine_tuning
    learned = source_split(described, how, seed)
    of_source, of_target = batch_sizes(len(learned.train), len(split.train), stage.batch, proportional=how.proportional)
    labels = np.stack([target.is_blast == 0, target.is_blast == 1], axis=1).astype(np.int8)
    cells = Samples(target.pixels, labels, target.labels.argmax(axis=1), target.groups)
    is_multi_label = source.header.multi_label and how.variant is not Variant.SELF
    return (
        Side(described, learned, how.source_stage(stage, of_source), is_multi_label),
        Side(cells, split, stage.model_copy(update={"batch": of_target}), False),
    )


def _train_part(
    options: TransferOptions,
    source: Pack,
    described: Samples,
    target: Pack,
    split: Split,
    folder: Path,
    started: Weights | None,
    about: Mapping[str, Any],
    worker: Worker,
) -> None:
    if (folder / NETWORK_FILE).exists() and (folder / PREDICTIONS_FILE).exists():
        return
    recipe = options.recipe
    how = interleaving_of(recipe)
    tissue, cells = _sides(recipe, source, described, target, split, options.seed)
    torch.manual_seed(options.seed)
    network = build_network(recipe.network, {HEAD: len(CLASSES), SOURCE_HEAD: described.labels.shape[1]}, cells.stage.input.side)
    if started is not None:
        start_from(network, started)
    title = f"{recipe.system}, {about['part']}, {how.variant.value} with {source.header.dataset}, seed {options.seed}"
    if recipe.warm_up is not None:
        _warm_up(network, recipe.warm_up, tissue, cells, Fit(recipe.warm_up, folder, identity(about), title, options.seed, multi_label=False), worker)
    began = time.monotonic()
    task = InterleavedTask(network, how, tissue, cells, options.seed, worker)
    stage = cells.stage
    progress = train(task, LoopOptions(folder, identity(about), title, options.seed, stage.average_decay, stage.precision), worker)
    keep_selected(task.network, stage, progress)
    if stage.selection is Selection.LAST:
        task.readapt(stage.epochs + 1)
    del network.heads[SOURCE_HEAD]
    network.eval()
    if worker.leads:
        normaliser = task.target.normaliser
        predict(network, normaliser, target, split, worker).save(folder / PREDICTIONS_FILE)
        figures = {"history": progress.history, "steps": progress.step, "last_session_seconds": round(time.monotonic() - began, 1)}
        learned = {"source_classes": described.labels.shape[1], "batches": [tissue.stage.batch, stage.batch]}
        save_network(folder / NETWORK_FILE, network, {**about, "normaliser": vars_of(normaliser), **learned, **figures})
    wait_for_all(worker)


def _warm_up(network: Network, stage: Stage, source: Side, target: Side, then: Fit, worker: Worker) -> None:
    """Train the head of the source alone, then that of the target, each in a folder below that of the training that follows."""
    with heads_alone(network):
        for head, side in ((SOURCE_HEAD, source), (HEAD, target)):
            seen = side.stage
            kept = ("input", "augmentation", "normalisation", "statistics_from_validation", "class_weights", "label_smoothing", "precision")
            own = stage.model_copy(update={name: getattr(seen, name) for name in kept})
            described = identity({"before": then.identity, "stage": WARM_UP, "head": head})
            how = Fit(own, then.folder / WARM_UP / head, described, f"{then.title}, head {head}", then.seed, side.multi_label)
            fit(OneHead(network, head), side.samples, side.split, how, worker)
