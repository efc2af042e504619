"""Train a recipe of patches: two independent labels per patch, blast present and other cell present."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from services.common.cell_classes import PATCH_LABELS
from training.architectures.build import build_network
from training.architectures.network import HEAD, Network
from training.crops.packs import Pack
from training.crops.sources import Sources
from training.datasets.all_idb import ALL_IDB_PATCHES
from training.datasets.composed_fields import COMPOSED_FIELDS
from training.datasets.dataset import ImageKind, Subset
from training.datasets.splits import MIN_GROUPS, Split, draw_subsets, greedy_folds, refuse_leak, require_classes, stratified_by_image
from training.errors import ArrayFileError, DatasetError, RecipeError
from training.files.array_file import read_arrays, write_arrays
from training.files.whole_files import write_json
from training.learning.checkpoints import Weights, load_network, save_network
from training.learning.classification_task import Normaliser, Samples, logits_of
from training.learning.devices import Worker, wait_for_all
from training.metrics.by_patient import auc
from training.metrics.multi_label import global_threshold, label_accuracy, sample_jaccard
from training.recipes.config import Recipe, as_json
from training.runs.fitting import Fit, fit, start_from, warm_up
from training.runs.folder import (
    FINAL,
    NETWORK_FILE,
    PREDICTIONS_FILE,
    SPLIT,
    TransferOptions,
    describe,
    identity,
    leader_first,
    split_digest,
    vars_of,
)
from training.runs.pretraining import initial_weights
from training.runs.report import CURVES_FILE, SUMMARY_FILE, draw_curves
from training.runs.target import choose

TARGETS: Final = (COMPOSED_FIELDS, ALL_IDB_PATCHES)
"""What the two logits of a patch say is present."""
FOLDS: Final = 5
_KIND: Final = "patch predictions 1"


@dataclass(frozen=True)
class PatchPredictions:
    """Predictions of a network for patches that it did not learn from.

    Attributes:
        keys, groups: str (N,).
        labels: int8 (N, 2), of ``PATCH_LABELS``.
        logits: float32 (N, 2).
        part: ``validation`` or ``test``, str (N,).
    """

    keys: NDArray[np.str_]
    groups: NDArray[np.str_]
    labels: NDArray[np.int8]
    logits: NDArray[np.float32]
    part: NDArray[np.str_]

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Of each label, float64 (N, 2)."""
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(self.logits.astype(np.float64), -50, 50))), np.float64)

    def save(self, path: Path) -> None:
        """Write them to one file."""
        words = {name: getattr(self, name).tolist() for name in ("keys", "groups", "part")}
        write_arrays(path, {"labels": self.labels, "logits": self.logits}, {"kind": _KIND, **words})

    @classmethod
    def load(cls, path: Path) -> PatchPredictions:
        """Read what ``save`` wrote."""
        arrays, about = read_arrays(path)
        if about.get("kind") != _KIND:
            raise ArrayFileError(f"{path} holds no predictions of patches.")
        words = {name: np.array(about[name], dtype=np.str_) for name in ("keys", "groups", "part")}
        return cls(labels=arrays["labels"], logits=arrays["logits"], **words)


def run(options: TransferOptions, sources: Sources, worker: Worker) -> Path:
    """Train all parts of a run; finished ones are not done again.

    Returns:
        The folder of the run, laid out as ``training.runs.transfer.run`` does.

    Raises:
        TrainingError: the data, the options or a file are at fault; what is finished stays.
    """
    if options.folds:
        raise RecipeError("This trains one network of patches; training.runs.patch_cross_validation trains one per fold.")
    recipe = options.recipe
    target = leader_first(worker, lambda: patch_pack(sources, options.target, recipe))
    folder = options.runs / options.name
    description: dict[str, Any] = {
        "recipe": as_json(recipe),
        "target": target.header.dataset,
        "target_digest": target.digest(),
        "seed": options.seed,
        "folds": options.folds,
    }
    made = splits(target, recipe, options.seed)
    pretrained, begun = initial_weights(options, sources, worker)
    description |= begun
    describe(folder, description, recipe.gates, worker)
    for name, split in made.items():
        part = {**description, "part": name, SPLIT: split_digest(target, split)}
        _train_part(options, target, split, folder / name, pretrained, part, worker)
    return folder


def patch_pack(sources: Sources, name: str, recipe: Recipe) -> Pack:
    """Patches of the target.

    Raises:
        DatasetError: it is none of patches with two labels.
    """
    pack = sources.pack(choose(sources, name, TARGETS, "target", "--target"), recipe.fine_tuning.input)
    if pack.header.kind is not ImageKind.PATCH or pack.labels.shape[1] != len(PATCH_LABELS):
        raise DatasetError(f"{pack.header.dataset} holds no patches with two labels.")
    return pack


def splits(target: Pack, recipe: Recipe, seed: int) -> dict[str, Split]:
    """The splits of a run by name, checked for leaks, where groups stay whole, and missing classes.

    Raises:
        SplitError: a split leaks or lacks a class.
    """
    how = recipe.split
    made: dict[str, Split] = {}
    if how.by == "image":
        joint = target.labels.astype(np.int64) @ np.array([2, 1], np.int64)
        for r in range(how.repetitions):
            made[f"repetition-{r}"] = stratified_by_image(joint, how.shares, seed * 1000 + r)
    elif how.by == "multi_label_folds":
        fold = greedy_folds(target.labels, FOLDS)
        made[FINAL] = Split(np.flatnonzero(fold < FOLDS - 2), np.flatnonzero(fold == FOLDS - 2), np.flatnonzero(fold == FOLDS - 1))
    else:
        subsets = _subsets(target)
        split = Split(*(np.flatnonzero(subsets == s.value) for s in (Subset.TRAIN, Subset.CALIBRATION, Subset.TEST)))
        refuse_leak(split, target.groups, target.header.grouped_by, target.sha256)
        made[FINAL] = Split(split.train, split.validation, np.zeros(0, np.int64))
    for split in made.values():
        require_classes(target.labels, target.header.classes, split)
    return made


def _subsets(target: Pack) -> NDArray[np.str_]:
    """Subset of each patch: the one it comes with, or drawn by group, stratified by patches with blasts."""
    if (target.subsets != Subset.UNASSIGNED.value).any():
        return target.subsets
    blasts = [(str(group), bool(label)) for group, label in zip(target.groups, target.labels[:, 0], strict=True)]
    given = draw_subsets(blasts, max(1, len(np.unique(target.groups)) // MIN_GROUPS))
    return np.array([given[str(group)].value for group in target.groups])


def _train_part(
    options: TransferOptions, target: Pack, split: Split, folder: Path, pretrained: Weights | None, description: Mapping[str, Any], worker: Worker
) -> None:
    if (folder / NETWORK_FILE).exists() and (folder / PREDICTIONS_FILE).exists():
        return
    network, normaliser, figures = fit_patches(options, target, split, folder, pretrained, description, worker)
    if worker.leads:
        chosen = np.concatenate([split.validation, split.test])
        names = np.array(["validation"] * len(split.validation) + ["test"] * len(split.test))
        logits = logits_of(network, target.pixels[chosen], normaliser, worker.device)
        said = PatchPredictions(target.keys[chosen], target.groups[chosen], target.labels[chosen], logits, names)
        said.save(folder / PREDICTIONS_FILE)
        save_network(folder / NETWORK_FILE, network, {**description, "normaliser": vars_of(normaliser), **figures})
    wait_for_all(worker)


def fit_patches(
    options: TransferOptions, target: Pack, split: Split, folder: Path, pretrained: Weights | None, description: Mapping[str, Any], worker: Worker
) -> tuple[Network, Normaliser, dict[str, Any]]:
    """A network of the recipe, trained on one part's patches; its normaliser, and what the training was."""
    recipe = options.recipe
    samples = Samples(target.pixels, target.labels, target.labels.argmax(axis=1), target.groups)
    torch.manual_seed(options.seed)
    network = build_network(recipe.network, {HEAD: len(PATCH_LABELS)}, recipe.fine_tuning.input.side)
    if pretrained is not None:
        start_from(network, pretrained)
    title = f"{recipe.system}, {description['part']}, seed {options.seed}"
    how = Fit(recipe.fine_tuning, folder, identity(description), title, options.seed, multi_label=True)
    if recipe.warm_up is not None:
        warm_up(network, recipe.warm_up, samples, split, how, worker)
    return network, *fit(network, samples, split, how, worker)


def write_patch_report(folder: Path) -> list[str]:
    """Write ``summary.json`` and ``curves.svg`` of a run of patches.

    Returns:
        The figures as lines of text; the threshold is tuned on validation patches and applied to all.
    """
    summary: dict[str, float] = {}
    parts = sorted(p.parent for p in folder.glob(f"*/{PREDICTIONS_FILE}"))
    for path in parts:
        said = PatchPredictions.load(path / PREDICTIONS_FILE)
        validation = said.part == "validation"
        threshold = global_threshold(said.probabilities[validation], said.labels[validation] > 0)
        summary[f"{path.name}, threshold"] = threshold
        for part in np.unique(said.part):
            chosen = said.part == part
            labels, probabilities = said.labels[chosen], said.probabilities[chosen]
            for i, name in enumerate(PATCH_LABELS):
                summary[f"{path.name}, {part}, AUC of {name} present"] = auc(probabilities[:, i], labels[:, i].astype(np.int64))
            summary[f"{path.name}, {part}, label accuracy"] = label_accuracy(probabilities >= threshold, labels > 0)
            summary[f"{path.name}, {part}, Jaccard by sample"] = sample_jaccard(probabilities >= threshold, labels > 0)
    write_json(folder / SUMMARY_FILE, summary)
    draw_curves({p.name: load_network(p / NETWORK_FILE)[1]["history"] for p in parts}, folder / CURVES_FILE)
    return [*(f"{name}: {value:.4f}" for name, value in summary.items()), f"learning curves: {folder / CURVES_FILE}"]
