"""Cross-validate a recipe of patches by patient: networks that learn composed fields judge the single cells of other patients.

The systems of patches and of cells can then be compared on the same patients, cells and folds. A cell is judged by the patch around the middle of its image.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import nn

from services.common.cell_classes import PATCH_LABELS
from training.crops.packs import Pack
from training.crops.sources import Sources
from training.datasets.composed_fields import COMPOSED_FIELDS
from training.datasets.single_cells import AML_CELLS
from training.datasets.splits import Split, require_classes
from training.errors import RecipeError
from training.learning.checkpoints import Weights, save_network
from training.learning.classification_task import Normaliser
from training.learning.devices import Worker, wait_for_all
from training.recipes.config import Input, InputKind, Recipe, as_json
from training.runs.fitting import predict
from training.runs.folder import NETWORK_FILE, PREDICTIONS_FILE, SPLIT, Predictions, TransferOptions, describe, leader_first, split_digest, vars_of
from training.runs.patches import fit_patches, patch_pack
from training.runs.pretraining import initial_weights
from training.runs.target import cell_pack, splits

_AS_CLASSES: Final = [PATCH_LABELS.index("other"), PATCH_LABELS.index("blast")]


def run(options: TransferOptions, sources: Sources, worker: Worker) -> Path:
    """Train a network per fold; finished ones are not done again.

    Args:
        options: with folds; those of cells for the same seed.
        sources: hold ``composed_fields`` and the ``aml_cells`` that these were composed of.
        worker: device and process.

    Returns:
        The folder of the run, laid out as ``training.runs.transfer.run`` does; its predictions are of cells.

    Raises:
        TrainingError: the data, the options or a file are at fault; what is finished stays.
    """
    recipe = options.recipe
    if recipe.split.by != "group" or options.target not in ("", COMPOSED_FIELDS):
        raise RecipeError(
            f"Patches are cross-validated by patient on {COMPOSED_FIELDS} alone: take --preset grouped and --data with what `dl4all data compose` made, "
            "or leave --folds out."
        )
    patches = leader_first(worker, lambda: patch_pack(sources, COMPOSED_FIELDS, recipe))
    every_cell = leader_first(worker, lambda: cell_pack(sources, AML_CELLS, recipe))
    cells = leader_first(worker, lambda: _located(every_cell, sources, recipe))
    folder = options.runs / options.name
    description: dict[str, Any] = {
        "recipe": as_json(recipe),
        "target": every_cell.header.dataset,
        "target_digest": every_cell.digest(),
        "located_digest": cells.digest(),
        "patches_digest": patches.digest(),
        "seed": options.seed,
        "folds": options.folds,
        **options.patients,
    }
    pretrained, begun = initial_weights(options, sources, worker)
    description |= begun
    describe(folder, description, recipe.gates, worker)
    for name, judged in splits(cells, options).items():
        learned = split_of_patches(patches, cells, judged)
        part = {**description, "part": name, SPLIT: split_digest(patches, learned)}
        _train_fold(options, patches, learned, cells, judged, folder / name, pretrained, part, worker)
    return folder


def split_of_patches(patches: Pack, cells: Pack, judged: Split) -> Split:
    """Which patches a fold of cells learns from and validates on: those of its patients. A patient may have none.

    Raises:
        SplitError: the training patches lack a label.
    """
    train, validation = (np.flatnonzero(np.isin(patches.groups, cells.groups[part])) for part in (judged.train, judged.validation))
    nothing = np.zeros(0, np.int64)
    require_classes(patches.labels, patches.header.classes, Split(train, nothing, nothing))
    return Split(train, validation, nothing)


def judge_cells(network: nn.Module, normaliser: Normaliser, cells: Pack, split: Split, worker: Worker) -> Predictions:
    """Predictions of a network of patches for the validation and test cells of a part; it sees the patch around the middle of the image.

    Returns:
        Predictions whose logits, float32 (N, 2), are those of other present and of blast present, instead of normal and blast.
    """
    said = predict(network, normaliser, cells, split, worker)
    return replace(said, logits=said.logits[:, _AS_CLASSES])


def _located(cells: Pack, sources: Sources, recipe: Recipe) -> Pack:
    """Without the images in which no cell is found, which the recipes of cells leave out."""
    found = sources.pack(cells.header.dataset, Input(kind=InputKind.REGISTERED, side=recipe.fine_tuning.input.side))
    return cells.select(np.isin(cells.keys, found.keys))


def _train_fold(
    options: TransferOptions,
    patches: Pack,
    learned: Split,
    cells: Pack,
    judged: Split,
    folder: Path,
    pretrained: Weights | None,
    description: dict[str, Any],
    worker: Worker,
) -> None:
    if (folder / NETWORK_FILE).exists() and (folder / PREDICTIONS_FILE).exists():
        return
    network, normaliser, figures = fit_patches(options, patches, learned, folder, pretrained, description, worker)
    if worker.leads:
        judge_cells(network, normaliser, cells, judged, worker).save(folder / PREDICTIONS_FILE)
        save_network(folder / NETWORK_FILE, network, {**description, "normaliser": vars_of(normaliser), **figures})
    wait_for_all(worker)
