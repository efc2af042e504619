"""How far features get on ALL-IDB that never saw it: the embeddings of the releases, and a network of ImageNet, with two simple classifiers.

A classifier is learned on the training part of a split alone: the nearest neighbour, or logistic regression, of embeddings of unit length. Every
release of cells takes part; a release of patches judges its cells with the network of another release, which takes part itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from scipy.spatial.distance import cdist

from services.common.checks import MAX_CELLS_PER_CALL
from services.common.engines.onnx_runtime import open_session
from services.common.releases import Release, ReleaseStore, Role
from services.preprocessing.unsharpening import FocusParameters
from services.retrieval.neighbours import unit
from training.architectures.efficientnet_lite import IMAGENET_MEAN, IMAGENET_STD, EfficientNetLite0, imagenet_weights
from training.crops.packs import Pack
from training.crops.sources import Sources
from training.datasets.all_idb import ALL_IDB2
from training.datasets.all_idb_cells import ALL_IDB_CELLS
from training.datasets.all_idb_fields import SMUDGED
from training.datasets.dataset import Dataset, Subset
from training.datasets.single_cells import AML_CELLS
from training.datasets.splits import Split, stratified_by_image
from training.errors import SplitError
from training.evaluation.all_idb.confounders import canon_crops
from training.evaluation.all_idb.protocols import CANON, FIGURES, OLYMPUS, honest_protocols, scored_cells
from training.export.onnx_model import INPUT
from training.files.array_file import SUFFIX, read_arrays, write_arrays
from training.learning.linear import linear_margins
from training.metrics.by_patient import RESAMPLES, Interval, auc, bootstrap_by_patient
from training.recipes.config import Input, InputKind

Float = NDArray[np.float32]
Double = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Scorer = Callable[[Double, Integers, Split], Double]
"""Of features (N, D), labels (N,) and a split: margins of its test rows, above 0 for a blast. Labels of test rows are not read."""

REPETITIONS: Final = 10
SHARES: Final = (0.5, 0.0, 0.5)
"""Training, validation and test part of the papers' protocol."""
IMAGENET: Final = "efficientnet-lite0-imagenet"
IMAGENET_CROPS: Final = Input(kind=InputKind.CENTER_CROP, center_crop=256, side=160)
RIDGES: Final = (0.01, 0.1, 1.0)
_EMBEDDING: Final = "embedding"
_BATCH: Final = 32


@dataclass(frozen=True)
class Embedder:
    """A network that is not trained any more.

    Attributes:
        name: release id, or ``IMAGENET``.
        wanted: how its crops are made.
        focus: parameters of their sharpening; None without it.
        checksum: SHA-256 of the model file, or of all weights.
        embed: embeddings float32 (N, D) of crops uint8 (N, side, side, 3).
    """

    name: str
    wanted: Input
    focus: FocusParameters | None
    checksum: str
    embed: Callable[[NDArray[np.uint8]], Float]


@dataclass(frozen=True)
class Embedded:
    """Crops of a pack with features float64 (N, D)."""

    pack: Pack
    features: Double

    def select(self, chosen: Flags) -> Embedded:
        """Some of them, by mask."""
        return Embedded(self.pack.select(chosen), self.features[chosen])

    @property
    def labels(self) -> Integers:
        """1 blast, 0 normal, -1 neither, int64 (N,)."""
        return self.pack.is_blast.astype(np.int64)


@dataclass(frozen=True)
class PapersFigures:
    """Figures of the papers' protocol, over its repetitions.

    Attributes:
        crops: that can be scored.
        left_out: crops in which no cell was located.
        accuracy, accuracy_deviation: on the test part, mean and standard deviation.
        auc: mean, of both cameras.
        canon_auc: mean, of the test crops of the Canon alone; NaN where it took none of a class.
    """

    crops: int
    left_out: int
    accuracy: float
    accuracy_deviation: float
    auc: float
    canon_auc: float


@dataclass(frozen=True)
class PooledFigure:
    """AUC of the pooled margins of cells that a protocol tests.

    Attributes:
        protocol: name of the protocol.
        title: for people.
        auc: with its interval by block, or by patient.
        blasts, normals: cells scored.
    """

    protocol: str
    title: str
    auc: Interval
    blasts: int
    normals: int


@dataclass(frozen=True)
class SmudgedCells:
    """Smudged cells, each judged by the classifier of the fold where its block is tested.

    Attributes:
        cells: judged.
        called_blast: of them, with a margin above 0.
    """

    cells: int
    called_blast: int

    @property
    def share(self) -> float:
        """Share that is called a blast; NaN without cells."""
        return self.called_blast / self.cells if self.cells else float("nan")


@dataclass(frozen=True)
class FrozenRow:
    """All figures of one set of features and one classifier.

    Attributes:
        features: name of the embedder.
        classifier: name of the classifier.
        papers: on ALL-IDB2.
        honest: one figure for each of ``FIGURES``.
        smudged: of ``all_idb_cells``.
        left_out_blasts, left_out_normals, left_out_smudged: windows in which no cell was located.
    """

    features: str
    classifier: str
    papers: PapersFigures
    honest: tuple[PooledFigure, ...]
    smudged: SmudgedCells
    left_out_blasts: int
    left_out_normals: int
    left_out_smudged: int


@dataclass(frozen=True)
class FrozenFigures:
    """What this study finds.

    Attributes:
        rows: features by classifiers.
        linear_layer: of the network of ImageNet, learned on cells of AML patients.
        left_out_releases: releases of patches.
    """

    rows: tuple[FrozenRow, ...]
    linear_layer: tuple[PooledFigure, ...]
    left_out_releases: tuple[str, ...]


def by_neighbour(features: Double, labels: Integers, split: Split) -> Double:
    """Distance to the nearest normal training row less that to the nearest blast; a ``Scorer``.

    Raises:
        SplitError: no training row is of one of the classes.
    """
    _require_both(labels[split.train])
    return _nearest(features, split, labels, 0) - _nearest(features, split, labels, 1)


def by_regression(features: Double, labels: Integers, split: Split) -> Double:
    """``linear_margins`` of the training rows; a ``Scorer``.

    Raises:
        SplitError: no training row is of one of the classes.
    """
    _require_both(labels[split.train])
    return linear_margins(features[split.train], labels[split.train], features[split.test])


CLASSIFIERS: Final[Mapping[str, Scorer]] = {"nearest neighbour": by_neighbour, "logistic regression": by_regression}


def papers_splits(labels: Integers, seed: int = 0) -> list[Split]:
    """The papers' protocol: ``REPETITIONS`` random halves of the crops (N,), by image."""
    return [stratified_by_image(labels, SHARES, seed * 1000 + r) for r in range(REPETITIONS)]


def scored_part(split: Split, there: Integers) -> Split:
    """A split of all images as one of those that are there.

    Args:
        split: of N images.
        there: ascending indices (M,) of those that are there.
    """
    return Split(*(np.flatnonzero(np.isin(there, part)) for part in (split.train, split.validation, split.test)))


def papers_figures(crops: Embedded, dataset: Dataset, canon: Flags, scorer: Scorer, seed: int = 0) -> PapersFigures:
    """Judge ALL-IDB2 by the papers' protocol.

    Splits are of all crops, so that they are the same for all features. Crops in which no cell was located are neither learned nor scored.

    Args:
        crops: M crops.
        dataset: all crops, of one class or the other.
        canon: (M,) which of ``crops`` the Canon took.
        scorer: the classifier.
        seed: of the splits.

    Raises:
        SplitError: a class is missing in the training part of a split.
    """
    there = np.flatnonzero(np.isin([i.key for i in dataset.images], crops.pack.keys))
    labels = crops.labels
    accuracies, aucs, canon_aucs = [], [], []
    for whole in papers_splits(np.array([int(i.is_blast or 0) for i in dataset.images], np.int64), seed):
        split = scored_part(whole, there)
        margins, truth, of_canon = scorer(crops.features, labels, split), labels[split.test], canon[split.test]
        accuracies.append(float(((margins > 0) == (truth == 1)).mean()))
        aucs.append(auc(margins, truth))
        canon_aucs.append(auc(margins[of_canon], truth[of_canon]))
    left_out = len(dataset.images) - len(there)
    mean = float(np.mean(accuracies))
    return PapersFigures(len(there), left_out, mean, float(np.std(accuracies)), float(np.mean(aucs)), float(np.mean(canon_aucs)))


def honest_figures(windows: Embedded, scorer: Scorer, resamples: int = RESAMPLES) -> tuple[PooledFigure, ...]:
    """Judge cells of ALL-IDB1 by the honest protocols: one AUC for each of ``FIGURES``, over all parts together, with its interval by block.

    Args:
        windows: of ``all_idb_cells``; those that are neither blast nor normal are left out.
        scorer: the classifier.
        resamples: draws of blocks.

    Raises:
        SplitError: a split leaks, or a class is missing in its training part.
    """
    cells = windows.select(windows.labels >= 0)
    margins, tested = {}, {}
    for name, protocol in honest_protocols(cells.pack).items():
        margins[name], tested[name] = np.zeros(len(cells.pack)), np.zeros(len(cells.pack), np.bool_)
        for split in protocol.parts.values():
            margins[name][split.test] = scorer(cells.features, cells.labels, split)
            tested[name][split.test] = True
    found = []
    for figure in FIGURES:
        chosen = scored_cells(cells.pack, figure) & tested[figure.protocol]
        scores, labels, blocks = margins[figure.protocol][chosen], cells.labels[chosen], cells.pack.groups[chosen]
        found.append(_pooled(figure.protocol, figure.title, scores, labels, blocks, resamples))
    return tuple(found)


def smudged_cells(windows: Embedded, scorer: Scorer) -> SmudgedCells:
    """Judge every smudged cell by the classifier that learned from the other folds of its camera.

    Args:
        windows: of ``all_idb_cells``.
        scorer: the classifier.

    Raises:
        SplitError: a split leaks, or a class is missing in its training part.
    """
    known, smudged = np.flatnonzero(windows.labels >= 0), windows.pack.class_names == SMUDGED
    protocols = honest_protocols(windows.pack.select(known))
    called = judged = 0
    for name in (OLYMPUS, CANON):
        for fold, split in protocols[name].parts.items():
            test = np.flatnonzero(smudged & (windows.pack.folds == fold))
            if len(test):
                margins = scorer(windows.features, windows.labels, Split(known[split.train], np.zeros(0, np.int64), test))
                called, judged = called + int((margins > 0).sum()), judged + len(test)
    return SmudgedCells(judged, called)


def linear_layer_figures(cells: Embedded, crops: Embedded, canon: Flags, resamples: int = RESAMPLES) -> tuple[PooledFigure, ...]:
    """A linear layer that learned cells of AML patients, on ALL-IDB2 and on cells of other AML patients.

    Its ridge, one of ``RIDGES``, is the one that tells the cells of calibration patients apart best: nothing is chosen by ALL-IDB.

    Args:
        cells: of ``aml_cells``; training patients teach, those of calibration choose the ridge, those of test are judged.
        crops: M crops of ALL-IDB2; those that are kept back are left out, since this is no published protocol.
        canon: (M,) which of ``crops`` the Canon took.
        resamples: draws of blocks or patients.

    Raises:
        SplitError: a class is missing among the training cells.
    """
    usable = ~crops.pack.in_subset(Subset.KEPT_BACK)
    teaching = cells.select(cells.pack.in_subset(Subset.TRAIN) & (cells.labels >= 0))
    choosing, unseen = (cells.select(cells.pack.in_subset(subset) & (cells.labels >= 0)) for subset in (Subset.CALIBRATION, Subset.TEST))
    ridge = max(RIDGES, key=lambda r: auc(_learned_on(teaching, choosing, r), choosing.labels))
    figures = []
    for title, judged in (
        ("learned on AML cells, ALL-IDB2", crops.select(usable)),
        ("learned on AML cells, ALL-IDB2 of the Canon", crops.select(usable & canon)),
        ("learned on AML cells, unseen AML patients", unseen),
    ):
        margins = _learned_on(teaching, judged, ridge)
        figures.append(_pooled("linear-layer", title, margins, judged.labels, judged.pack.groups, resamples))
    return tuple(figures)


def frozen_rows(store: ReleaseStore, root: Path, official: Sources, cut: Sources, cache: Path, seed: int = 0) -> FrozenFigures:
    """All figures of all features.

    Args:
        store: the releases.
        root: see ``training.datasets.all_idb_fields``; says which camera took a crop.
        official: holds ALL-IDB2 without a table, as published.
        cut: holds ``all_idb_cells``, ALL-IDB2 with its table of fields, and ``aml_cells``.
        cache: folder where embeddings are kept.
        seed: of the splits of the papers' protocol.

    Raises:
        DatasetError: data are missing or broken.
        SplitError: a split leaks or lacks a class.
        TrainingError: the ImageNet weights are not installed.
    """
    crops, windows = official.dataset(ALL_IDB2), cut.dataset(ALL_IDB_CELLS)
    imagenet = imagenet_embedder()
    rows = []
    for embedder in (*(served_embedder(r, store) for r in store.releases if r.patches is None), imagenet):
        of_crops, of_windows = embedded(embedder, official, ALL_IDB2, cache), embedded(embedder, cut, ALL_IDB_CELLS, cache)
        canon = canon_crops(of_crops.pack, root)
        for classifier, scorer in track(CLASSIFIERS.items(), description=f"{embedder.name}: classifiers"):
            papers = papers_figures(of_crops, crops, canon, scorer, seed)
            rows.append(_row(embedder.name, classifier, papers, of_windows, windows, scorer))
    known = embedded(imagenet, cut, ALL_IDB2, cache)
    layer = linear_layer_figures(embedded(imagenet, cut, AML_CELLS, cache), known, canon_crops(known.pack, root))
    return FrozenFigures(tuple(rows), layer, tuple(r.id for r in store.releases if r.patches is not None))


def served_embedder(release: Release, store: ReleaseStore) -> Embedder:
    """The network of a release, as ONNX Runtime serves it, with crops made as served."""
    path = store.model_path(release.network)

    def embed(pixels: NDArray[np.uint8]) -> Float:
        session = open_session(path, threads=1)
        return np.concatenate([session.run([_EMBEDDING], {INPUT: batch})[0] for batch in _batches(pixels, MAX_CELLS_PER_CALL, release.id)])

    wanted = Input(kind=InputKind.REGISTERED_SHARPENED, side=release.input.side)
    focus = FocusParameters(**release.preprocessing.model_dump())
    return Embedder(release.id, wanted, focus, release.network.files[Role.CPU].sha256, embed)


def imagenet_embedder() -> Embedder:
    """EfficientNet-Lite0 with the weights of ImageNet.

    Raises:
        TrainingError: the package of the weights is not installed.
    """
    weights = imagenet_weights()
    network = EfficientNetLite0()
    network.load_state_dict({name.removeprefix("backbone."): tensor for name, tensor in weights.items()})
    network.eval()
    mean, std = (255.0 * torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode() + tensor.numpy().tobytes())

    def embed(pixels: NDArray[np.uint8]) -> Float:
        with torch.no_grad():
            batches = ((torch.from_numpy(batch).permute(0, 3, 1, 2).float() - mean) / std for batch in _batches(pixels, _BATCH, IMAGENET))
            return np.concatenate([network(batch).pooled.numpy() for batch in batches])

    return Embedder(IMAGENET, IMAGENET_CROPS, None, digest.hexdigest(), embed)


def embedded(embedder: Embedder, sources: Sources, name: str, cache: Path) -> Embedded:
    """Crops of a data set with embeddings of unit length; embeddings are made once and kept.

    Args:
        embedder: the network.
        sources: of the data set.
        name: of the data set.
        cache: folder where embeddings are kept, by network, model file and pack.

    Raises:
        DatasetError: the data set is missing or broken.
        ArrayFileError: a file in ``cache`` is damaged.
    """
    pack = sources.pack(name, embedder.wanted, focus=embedder.focus)
    about = {"features": embedder.name, "model": embedder.checksum, "pack": pack.digest()}
    path = cache / f"{embedder.name}-{hashlib.sha256(repr(about).encode()).hexdigest()[:16]}{SUFFIX}"
    if not path.exists():
        write_arrays(path, {_EMBEDDING: np.asarray(embedder.embed(pack.pixels), np.float32)}, about)
    return Embedded(pack, unit(read_arrays(path)[0][_EMBEDDING]).astype(np.float64))


def _row(features: str, classifier: str, papers: PapersFigures, windows: Embedded, dataset: Dataset, scorer: Scorer) -> FrozenRow:
    left_out = [image for image in dataset.images if image.key in windows.pack.header.left_out]
    blasts, normals = (sum(image.is_blast == label for image in left_out) for label in (1, 0))
    smudged = sum(SMUDGED in image.classes for image in left_out)
    return FrozenRow(features, classifier, papers, honest_figures(windows, scorer), smudged_cells(windows, scorer), blasts, normals, smudged)


def _pooled(protocol: str, title: str, margins: Double, labels: Integers, groups: NDArray[np.str_], resamples: int) -> PooledFigure:
    interval = bootstrap_by_patient(auc, margins, labels, groups, resamples)
    return PooledFigure(protocol, title, interval, int((labels == 1).sum()), int((labels == 0).sum()))


def _learned_on(teaching: Embedded, judged: Embedded, ridge: float) -> Double:
    _require_both(teaching.labels)
    return linear_margins(teaching.features, teaching.labels, judged.features, ridge)


def _nearest(features: Double, split: Split, labels: Integers, label: int) -> Double:
    """Distance of every test row to the nearest training row of a class."""
    known = features[split.train[labels[split.train] == label]]
    return np.asarray(cdist(features[split.test], known).min(axis=1), np.float64)


def _require_both(labels: Integers) -> None:
    if missing := {0: "normal", 1: "blast"}.keys() - set(labels.tolist()):
        raise SplitError(f"No training cell is {' or '.join(('normal', 'blast')[m] for m in sorted(missing))}: nothing can be learned of it.")


def _batches(pixels: NDArray[np.uint8], size: int, what: str) -> Iterable[NDArray[np.uint8]]:
    return track([pixels[i : i + size] for i in range(0, len(pixels), size)], description=f"{what}: embeddings")
