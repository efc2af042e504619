"""How well the classes of ALL-IDB are told apart without morphology: by the camera alone, by colours alone, by the size alone."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.crops.packs import Pack
from training.datasets.all_idb_cells import WINDOW
from training.datasets.all_idb_fields import CROPS, read_crops
from training.datasets.splits import Split
from training.errors import DatasetError
from training.evaluation.all_idb.protocols import CANON, camera_cells
from training.evaluation.confounders import colour_statistics
from training.learning.linear import linear_margins
from training.recipes.config import Input, InputKind

Double = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
CAMERA, COLOURS, SIZE = "camera alone", "colours alone", "size alone"
WHOLE_CROPS: Final = Input(kind=InputKind.CENTER_CROP, side=WINDOW)
"""Crops for the colours: the whole image."""
LOCATED_CELLS: Final = Input(kind=InputKind.REGISTERED)
"""Crops for the size: their measures hold the radius of the cell."""


def canon_crops(crops: Pack, root: Path) -> Flags:
    """Which crops of ALL-IDB2 the Canon took, bool (N,).

    Args:
        crops: of ALL-IDB2, by their published names.
        root: see ``training.datasets.all_idb_fields``; its table says which field each crop was cut out of.

    Raises:
        DatasetError: the table is missing or broken, or lacks a crop.
    """
    cameras = {crop.name: crop.camera for crop in read_crops(root)}
    if missing := [key for key in crops.keys.tolist() if key not in cameras]:
        raise DatasetError(f"{root / CROPS} does not say which field {missing[0]} comes from.")
    return np.array([cameras[key] == CANON for key in crops.keys.tolist()], np.bool_)


def canon_windows(windows: Pack) -> Flags:
    """Which windows of ``all_idb_cells`` the Canon took, bool (N,), by their fold."""
    return camera_cells(windows, CANON)


def features_without_morphology(crops: Pack, located: Pack, canon: Flags) -> dict[str, Double]:
    """Features of crops that hold nothing of the shape or texture of a cell.

    Args:
        crops: N crops of ``WHOLE_CROPS``.
        located: the same images as ``LOCATED_CELLS``, less those in which no cell was found.
        canon: (N,) which crops the Canon took.

    Returns:
        By name, each float64 (N, D): the camera, 0 or 1 (D = 1); ``colour_statistics`` of the whole crop (D = 18); the radius of the central cell
        in px as the classical locator finds it (D = 1), NaN where it finds none.
    """
    radii = dict(zip(located.keys.tolist(), located.measures["radius"].tolist(), strict=True))
    size = np.array([radii.get(key, np.nan) for key in crops.keys.tolist()], np.float64)
    return {CAMERA: canon[:, None].astype(np.float64), COLOURS: colour_statistics(crops.pixels), SIZE: size[:, None]}


def under_split(features: Double, labels: Integers, split: Split) -> Double:
    """Margins of the test rows, float64 (M,), by a linear classifier of the training rows; a feature that does not vary there gives equal margins.

    Args:
        features: float64 (N, D); NaN counts as the mean of the training rows.
        labels: (N,) 1 blast, 0 normal; those of the test rows are not read.
        split: of the rows.
    """
    train, test = features[split.train], features[split.test]
    return linear_margins(_filled(train, train), labels[split.train], _filled(test, train))


def _filled(features: Double, train: Double) -> Double:
    known = ~np.isnan(train)
    means = np.where(known, train, 0.0).sum(axis=0) / np.maximum(1, known.sum(axis=0))
    return np.where(np.isnan(features), means, features)
