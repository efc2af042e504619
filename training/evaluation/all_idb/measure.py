"""Measure the finished runs of the papers' experiments: the network, the same on one camera alone, and what needs no morphology, by the same splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from services.common.cell_classes import CLASSES
from services.retrieval.neighbours import legacy_vote, unit, vote
from services.retrieval.search import ExactSearch
from training.crops.packs import Pack
from training.datasets.all_idb import ALL_IDB2
from training.datasets.all_idb_fields import camera_of
from training.datasets.splits import Split
from training.evaluation.all_idb.confounders import (
    CAMERA,
    COLOURS,
    LOCATED_CELLS,
    WHOLE_CROPS,
    canon_crops,
    features_without_morphology,
    under_split,
)
from training.evaluation.all_idb.data import BenchmarkData
from training.evaluation.all_idb.protocols import CANON
from training.evaluation.all_idb.published import dss_crops, options_of, scored_pack, sources_of, splits_of
from training.evaluation.all_idb.rows import Row
from training.evaluation.confounders import colour_statistics
from training.learning.augmentation import augment
from training.learning.classification_task import Samples, outputs_of
from training.learning.devices import Worker
from training.learning.injection import inject_nothing
from training.metrics.by_patient import auc
from training.metrics.multi_label import global_threshold, label_accuracy, sample_jaccard
from training.runs.folder import PREDICTIONS_FILE, Predictions, TransferOptions, load_trained
from training.runs.patches import PatchPredictions

Double = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
NEIGHBOURS: Final = 3
"""Of system 6."""
_UNTUNED: Final = 0.5


@dataclass(frozen=True)
class Result:
    """One repetition.

    Attributes:
        accuracy, auc: on test, 0..1.
        canon_accuracy, canon_auc: on the test images of the Canon alone.
        blasts, normals, canon_blasts, canon_normals: how many were tested.
    """

    accuracy: float
    auc: float
    canon_accuracy: float
    canon_auc: float
    blasts: int
    normals: int
    canon_blasts: int
    canon_normals: int


@dataclass(frozen=True)
class RowFigures:
    """All figures of a row.

    Attributes:
        name: of the row.
        full: whether it is the full form.
        network: one result per repetition.
        baselines: by name, what the camera, colours or the size alone give by the same splits.
        further: other figures by name, one number per repetition.
    """

    name: str
    full: bool
    network: tuple[Result, ...]
    baselines: Mapping[str, tuple[Result, ...]]
    further: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


def scored(margins: Double, labels: Integers, canon: Flags) -> Result:
    """Figures of one repetition.

    Args:
        margins: (N,), above 0 for a blast.
        labels: (N,) 1 blast, 0 normal.
        canon: bool (N,), which the Canon took.
    """
    right = (margins > 0) == (labels == 1)
    return Result(
        accuracy=float(right.mean()),
        auc=auc(margins, labels),
        canon_accuracy=float(right[canon].mean()) if canon.any() else float("nan"),
        canon_auc=auc(margins[canon], labels[canon]) if canon.any() else float("nan"),
        blasts=int((labels == 1).sum()),
        normals=int((labels == 0).sum()),
        canon_blasts=int((labels[canon] == 1).sum()),
        canon_normals=int((labels[canon] == 0).sum()),
    )


def measure_row(row: Row, data: BenchmarkData, runs: Path, worker: Worker, seed: int = 0, *, full: bool) -> RowFigures:
    """Measure the finished run of a row.

    Raises:
        TrainingError: it is not finished, or its data are not there.
    """
    options, sources = options_of(row, data, runs, seed, full=full), sources_of(row, data)
    pack = scored_pack(row, options, sources, worker)
    parts = splits_of(row, options, pack)
    folder = options.runs / options.name
    if row.learns_patches:
        return _measure_patches(row, folder, pack, parts, full=full)
    labels, canon = pack.is_blast.astype(np.int64), canon_crops(pack, data.fields)
    network = []
    for name, split in parts.items():
        said = Predictions.load(folder / name / PREDICTIONS_FILE)
        network.append(scored(_in_order(said, pack.keys[split.test]), labels[split.test], canon[split.test]))
    features = _features(pack, data, canon)
    baselines = {name: _baseline(values, labels, canon, parts) for name, values in features.items()}
    further = _votes(options, folder, parts, data, worker) if row.recipe == "dss" else {}
    if row.sharpens:
        further = {"focus threshold": tuple(float(load_trained(folder / name).about["threshold"]) for name in parts)}
    return RowFigures(row.name, full, tuple(network), baselines, further)


def _in_order(said: Predictions, keys: NDArray[np.str_]) -> Double:
    """Margins of the test images in the order of their keys."""
    chosen = said.part == "test"
    margins = dict(zip(said.keys[chosen].tolist(), said.margin[chosen].tolist(), strict=True))
    return np.array([margins[key] for key in keys.tolist()], np.float64)


def _features(pack: Pack, data: BenchmarkData, canon: Flags) -> dict[str, Double]:
    """Features of the images of a pack without morphology, in its order."""
    sources = data.official_crops()
    whole, located = sources.pack(ALL_IDB2, WHOLE_CROPS), sources.pack(ALL_IDB2, LOCATED_CELLS)
    position = {key: i for i, key in enumerate(whole.keys.tolist())}
    return features_without_morphology(whole.select(np.array([position[key] for key in pack.keys.tolist()])), located, canon)


def _baseline(features: Double, labels: Integers, canon: Flags, parts: Mapping[str, Split]) -> tuple[Result, ...]:
    return tuple(scored(under_split(features, labels, split), labels[split.test], canon[split.test]) for split in parts.values())


def _measure_patches(row: Row, folder: Path, pack: Pack, parts: Mapping[str, Split], *, full: bool) -> RowFigures:
    """Figures of the label lymphoblast present; both labels together under ``further``."""
    canon = np.array([camera_of(group) == CANON for group in pack.groups.tolist()], np.bool_)
    blasts = pack.labels[:, 0].astype(np.int64)
    features = {CAMERA: canon[:, None].astype(np.float64), COLOURS: colour_statistics(pack.pixels)}
    network: list[Result] = []
    accuracies, overlaps = [], []
    tested: dict[str, Split] = {}
    for name, split in parts.items():
        said = PatchPredictions.load(folder / name / PREDICTIONS_FILE)
        test = split.test if len(split.test) else split.validation
        position = {key: i for i, key in enumerate(said.keys.tolist())}
        chosen = np.array([position[key] for key in pack.keys[test].tolist()], np.int64)
        tuning = said.part == "validation"
        threshold = global_threshold(said.probabilities[tuning], said.labels[tuning] > 0) if len(split.test) else _UNTUNED
        probabilities, labels = said.probabilities[chosen], said.labels[chosen] > 0
        network.append(scored(probabilities[:, 0] - threshold, blasts[test], canon[test]))
        accuracies.append(label_accuracy(probabilities >= threshold, labels))
        overlaps.append(sample_jaccard(probabilities >= threshold, labels))
        tested[name] = Split(split.train, split.validation[:0], test)
    baselines = {name: _baseline(values, blasts, canon, tested) for name, values in features.items()}
    return RowFigures(row.name, full, tuple(network), baselines, {"label accuracy": tuple(accuracies), "Jaccard by sample": tuple(overlaps)})


def _votes(options: TransferOptions, folder: Path, parts: Mapping[str, Split], data: BenchmarkData, worker: Worker) -> dict[str, tuple[float, ...]]:
    """Accuracy of the vote of the three nearest training crops: by logits as published, and repaired."""
    recipe = options.recipe
    target, nothing = dss_crops(recipe, data.official_crops(), data)
    labels = np.stack([target.is_blast == 0, target.is_blast == 1], axis=1).astype(np.int8)
    samples = Samples(target.pixels, labels, target.labels.argmax(axis=1), target.groups)
    published, repaired = [], []
    for name, split in parts.items():
        trained = load_trained(folder / name)
        every = np.ones(len(nothing), np.bool_)
        known, with_nothing = inject_nothing(samples, split, nothing, every, recipe.injection.nothing, options.seed)
        gallery, classes = known.pixels[with_nothing.train], known.labels[with_nothing.train].argmax(axis=1)
        augmented = augment(gallery, recipe.fine_tuning.augmentation, (options.seed, 0))
        of_augmented, of_gallery, of_queries = (
            list(outputs_of(trained.network, pixels, trained.normaliser, worker.device)) for pixels in (augmented, gallery, target.pixels[split.test])
        )
        true = target.is_blast[split.test]
        logits = [np.concatenate([o.logits for o in outputs]) for outputs in (of_augmented, of_queries)]
        indices = cdist(logits[1], logits[0]).argsort(axis=1, kind="stable")[:, :NEIGHBOURS]
        published.append(float((legacy_vote(classes[indices]) == true).mean()))
        embeddings = [unit(np.concatenate([o.embedding for o in outputs])) for outputs in (of_gallery, of_queries)]
        repaired.append(float((_repaired_vote(embeddings[0], classes, embeddings[1]) == true).mean()))
    return {"vote by logits, as published": tuple(published), "vote by embeddings, repaired": tuple(repaired)}


def _repaired_vote(gallery: NDArray[np.float32], classes: Integers, queries: NDArray[np.float32]) -> Integers:
    """Class with the largest distance-weighted share of the nearest crops, (M,)."""
    indices, distances = ExactSearch(gallery).nearest(queries, NEIGHBOURS)
    shares = [vote(distances, classes[indices] == c) for c in range(len(CLASSES) + 1)]
    return np.stack(shares, axis=1).argmax(axis=1)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation over repetitions, as the papers give them."""
    return float(np.mean(values)), float(np.std(values))
