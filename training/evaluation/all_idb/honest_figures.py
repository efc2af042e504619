"""Figures of the honest protocols: of trained networks over their seeds, and of what needs no morphology."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.crops.packs import Pack
from training.datasets.all_idb_cells import ALL_IDB_CELLS
from training.evaluation.all_idb.confounders import CAMERA, LOCATED_CELLS, WHOLE_CROPS, canon_windows, features_without_morphology, under_split
from training.evaluation.all_idb.data import BenchmarkData
from training.evaluation.all_idb.honest import SEEDS, Network, cell_windows, margins_of, options_of, smudged_margins
from training.evaluation.all_idb.protocols import CANON, FIGURES, OLYMPUS, Protocol, honest_protocols, scored_cells
from training.learning.devices import Worker
from training.metrics.by_patient import Interval, auc, bootstrap_of

Double = NDArray[np.float64]


@dataclass(frozen=True)
class HonestFigure:
    """One AUC, pooled over the parts of a protocol, mean over seeds.

    Attributes:
        title: of the figure, see ``protocols.FIGURES``.
        auc: with its interval by session or block. There are few of these: the interval is a weak one.
        by_seed: AUC of each seed.
        blasts, normals: cells scored.
    """

    title: str
    auc: Interval
    by_seed: tuple[float, ...]
    blasts: int
    normals: int


@dataclass(frozen=True)
class HonestFigures:
    """All figures of one network or baseline.

    Attributes:
        name: of the network, or of the baseline.
        figures: one for each of ``protocols.FIGURES``.
        smudged: smudged cells that were judged, in all seeds.
        smudged_called_blast: of them.
    """

    name: str
    figures: tuple[HonestFigure, ...]
    smudged: int = 0
    smudged_called_blast: int = 0


def measure_network(network: Network, data: BenchmarkData, runs: Path, worker: Worker, seeds: Sequence[int] = SEEDS) -> HonestFigures:
    """Measure the finished runs of a network.

    Raises:
        TrainingError: a run is not finished, or the data are not there.
    """
    windows = cell_windows(data, network.side)
    cells = windows.select(windows.is_blast >= 0)
    protocols = honest_protocols(cells)
    folders = [runs / options_of(network, data, runs, seed).name for seed in seeds]
    margins = {name: [margins_of(folder, protocol, cells) for folder in folders] for name, protocol in protocols.items()}
    smudged = np.concatenate([smudged_margins(folder, protocols[camera], windows, worker) for folder in folders for camera in (OLYMPUS, CANON)])
    return HonestFigures(network.name, pooled(cells, margins), len(smudged), int((smudged > 0).sum()))


def measure_baselines(data: BenchmarkData) -> dict[str, HonestFigures]:
    """What the colours alone and the size alone give by the same splits. The camera alone says nothing within one camera."""
    sources = data.cells()
    whole, located = sources.pack(ALL_IDB_CELLS, WHOLE_CROPS), sources.pack(ALL_IDB_CELLS, LOCATED_CELLS)
    cells = whole.select(whole.is_blast >= 0)
    features = features_without_morphology(cells, located, canon_windows(cells))
    protocols = honest_protocols(cells)
    return {
        name: HonestFigures(name, pooled(cells, {key: [_linear_margins(values, cells, protocol)] for key, protocol in protocols.items()}))
        for name, values in features.items()
        if name != CAMERA
    }


def pooled(cells: Pack, margins: Mapping[str, Sequence[Double]]) -> tuple[HonestFigure, ...]:
    """One figure for each of ``protocols.FIGURES``.

    Args:
        cells: N cells that are blast or normal.
        margins: by protocol and seed, float64 (N,), NaN for cells that the protocol does not test.
    """
    labels = cells.is_blast.astype(np.int64)
    found = []
    for figure in FIGURES:
        of_seeds = margins[figure.protocol]
        chosen = scored_cells(cells, figure) & ~np.isnan(of_seeds[0])
        scores, truth = [m[chosen] for m in of_seeds], labels[chosen]
        interval = bootstrap_of(partial(_mean_auc, scores, truth), cells.groups[chosen])
        by_seed = tuple(auc(s, truth) for s in scores)
        found.append(HonestFigure(figure.title, interval, by_seed, int((truth == 1).sum()), int((truth == 0).sum())))
    return tuple(found)


def _mean_auc(scores: Sequence[Double], labels: NDArray[np.int64], weights: Double) -> float:
    return float(np.mean([auc(s, labels, weights) for s in scores]))


def _linear_margins(features: Double, cells: Pack, protocol: Protocol) -> Double:
    margins = np.full(len(cells), np.nan)
    for split in protocol.parts.values():
        margins[split.test] = under_split(features, cells.is_blast.astype(np.int64), split)
    return margins
