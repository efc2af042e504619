"""The target of a run: its cells, their split, and crops without a cell."""

from __future__ import annotations

from typing import Final

import numpy as np

from services.common.cell_classes import CLASSES, NOTHING
from training.crops.packs import Pack
from training.crops.sources import Sources, focus_of
from training.datasets.all_idb import ALL_IDB2, ALL_IDB_PATCHES
from training.datasets.all_idb_cells import ALL_IDB_CELLS
from training.datasets.cnmc import CNMC
from training.datasets.dataset import ImageKind, Subset
from training.datasets.own_cells import OWN_CELLS
from training.datasets.single_cells import AML_CELLS
from training.datasets.splits import Split, folds_by_image, grouped_folds, refuse_leak, require_classes, stratified_by_image
from training.errors import DatasetError
from training.recipes.config import Input, InputKind, Recipe
from training.runs.folder import FINAL, TransferOptions

TARGETS: Final = (AML_CELLS, ALL_IDB2, ALL_IDB_CELLS, CNMC, OWN_CELLS)


def crops_without_cells(sources: Sources, target: Pack, recipe: Recipe) -> Pack | None:
    """Crops without a nucleated cell in the middle, made as those of the cells; None if the recipe wants none."""
    injection, stage = recipe.injection, recipe.fine_tuning
    if not injection.nothing:
        return None
    if injection.source == "background":
        return sources.pack(target.header.dataset, stage.input.model_copy(update={"subject": NOTHING}), focus=focus_of(target))
    pack = sources.pack(ALL_IDB_PATCHES, Input(kind=InputKind.CENTER_CROP, side=stage.input.side))
    return pack.select(pack.labels.sum(axis=1) == 0)


def cell_pack(sources: Sources, name: str, recipe: Recipe) -> Pack:
    """Crops of the target that are blast or normal; ambiguous cells are left out, and copies where groups stay whole."""
    pack = sources.pack(choose(sources, name, TARGETS, "target", "--target"), recipe.fine_tuning.input)
    if pack.header.kind is not ImageKind.CELL:
        raise DatasetError(f"{pack.header.dataset} shows no single cells.")
    kept = pack if recipe.split.parts_fields else without_copies(pack)
    return kept.select(kept.is_blast >= 0)


def without_copies(pack: Pack) -> Pack:
    """A pack without files that stand in it once more in another group: the first stays, since no split may have the same picture on both sides.

    ALL-IDB2 has such crops. Where groups are people, a picture of two of them was refused before.
    """
    files, groups = pack.sha256.tolist(), pack.groups.tolist()
    first = dict(zip(reversed(files), reversed(groups), strict=True))
    return pack.select(np.array([not file or first[file] == group for file, group in zip(files, groups, strict=True)], np.bool_))


def choose(sources: Sources, name: str, known: tuple[str, ...], role: str, option: str) -> str:
    """The data set for a role: the one that is asked for, or the only one that is there.

    Raises:
        DatasetError: none or several are there.
    """
    if name:
        return name
    there = [n for n in known if n in sources.names]
    if len(there) != 1:
        raise DatasetError(
            f"{'Several data sets' if there else 'No data set'} for the {role}: {', '.join(there) or ', '.join(known)}; choose with {option}."
        )
    return there[0]


def splits(target: Pack, options: TransferOptions) -> dict[str, Split]:
    """The splits of a run by name, checked for leaks and missing classes.

    Raises:
        SplitError: a split leaks or lacks a class.
    """
    how = options.recipe.split
    one_hot = np.stack([target.is_blast == 0, target.is_blast == 1], axis=1).astype(np.int8)
    made: dict[str, Split] = {}
    if how.by == "image":
        for r in range(how.repetitions):
            made[f"repetition-{r}"] = stratified_by_image(target.is_blast.astype(np.int64), how.shares, options.seed * 1000 + r)
    elif how.by == "image_folds":
        for k, split in enumerate(folds_by_image(len(target), options.seed)):
            made[f"repetition-{k}"] = split
    else:
        training, calibration = target.in_subset(Subset.TRAIN), target.in_subset(Subset.CALIBRATION)
        check_test_subset(target)
        if options.folds:
            test = target.in_subset(Subset.TEST) & options.everyone
            development = np.flatnonzero(training | calibration | test)
            fold = grouped_folds(target.groups[development], target.is_blast[development] == 1, options.folds, options.seed)
            for k in range(options.folds):
                made[f"fold-{k}"] = Split(development[fold != k], development[fold == k], np.zeros(0, np.int64))
        else:
            made[FINAL] = Split(np.flatnonzero(training), np.flatnonzero(calibration), np.zeros(0, np.int64))
        for split in made.values():
            refuse_leak(split, target.groups, target.header.grouped_by, target.sha256)
    for split in made.values():
        require_classes(one_hot, CLASSES, split)
    return made


def check_test_subset(target: Pack) -> None:
    """Refuse test images that share a group or a file with the others, or that lack a class; all are of cells that are not ambiguous.

    Raises:
        SplitError: they leak or lack a class; a data set without test images passes.
    """
    test = np.flatnonzero(target.in_subset(Subset.TEST))
    if len(test):
        split = Split(np.flatnonzero(~target.in_subset(Subset.TEST)), np.zeros(0, np.int64), test)
        refuse_leak(split, target.groups, target.header.grouped_by, target.sha256)
        require_classes(np.stack([target.is_blast == 0, target.is_blast == 1], axis=1).astype(np.int8), CLASSES, split)
