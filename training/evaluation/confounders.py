"""How well the classes are told apart without morphology: by colours alone, the border alone, the focus.

    dl4all study confounders --data DIR... [--dataset NAME]
    dl4all study confounders --data composed.pack aml_cells --dataset composed_fields

Baselines are linear, cross-validated by group on training and calibration groups. A network that does not clearly beat
them has learned nothing of morphology. Of composed fields the seam is asked as well: a ring around each cell, without any cell in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.patching.grid import SIDE as PATCH_SIDE
from training.command import explained, program_parser
from training.crops.composition import Composition, compose_fields
from training.crops.packs import Pack
from training.crops.sources import Sources
from training.datasets.composed_fields import COMPOSED_FIELDS, ComposedCell, ComposedField
from training.datasets.dataset import Subset
from training.datasets.single_cells import AML_CELLS
from training.datasets.splits import grouped_folds
from training.learning.linear import linear_margins
from training.metrics.by_patient import Interval, auc, bootstrap_by_patient
from training.recipes.config import Input, InputKind

Double = NDArray[np.float64]
FOLDS: Final = 5
BORDER: Final = 0.08
"""Width of the border as a share of the side. A registered cell does not reach it."""
RING: Final = (12.0, 32.0)
"""Nearest and farthest distance in px from a composed cell of the ring in which its seam runs."""
_MIN_RING: Final = 200


def colour_statistics(pixels: NDArray[np.uint8]) -> Double:
    """Mean, deviation and the 10th, 25th, 75th and 90th percentile of each channel, float64 (N, 18), of uint8 (N, H, W, 3)."""
    flat = pixels.reshape(len(pixels), -1, 3).astype(np.float32) / 255.0
    quantiles = np.percentile(flat, [10, 25, 75, 90], axis=1).transpose(1, 0, 2).reshape(len(pixels), -1)
    return np.concatenate([flat.mean(axis=1), flat.std(axis=1), quantiles], axis=1).astype(np.float64)


def border_statistics(pixels: NDArray[np.uint8]) -> Double:
    """``colour_statistics`` of the outermost pixels alone."""
    side = pixels.shape[1]
    width = max(1, round(BORDER * side))
    ring = np.ones((side, side), np.bool_)
    ring[width:-width, width:-width] = False
    return colour_statistics(pixels[:, ring][:, :, None, :])


def cross_validated_scores(features: Double, is_blast: NDArray[np.int64], groups: NDArray[np.str_], seed: int = 0) -> Double:
    """Out-of-fold margins of a ridge logistic regression on standardised features, float64 (N,)."""
    fold = grouped_folds(groups, is_blast == 1, min(FOLDS, len(np.unique(groups))), seed)
    scores = np.empty(len(features))
    for k in np.unique(fold):
        train = fold != k
        scores[~train] = linear_margins(features[train], is_blast[train], features[~train])
    return scores


def report(pack: Pack) -> dict[str, Interval]:
    """AUC of each baseline, with its interval by group, on training and calibration groups.

    Args:
        pack: registered cells with focus scores.
    """
    cells = pack.select(pack.in_subset(Subset.TRAIN, Subset.CALIBRATION) & (pack.is_blast >= 0))
    labels = cells.is_blast.astype(np.int64)
    found = {}
    for name, features in (("colours of the crop", colour_statistics(cells.pixels)), ("colours of the border", border_statistics(cells.pixels))):
        found[name] = bootstrap_by_patient(auc, cross_validated_scores(features, labels, cells.groups), labels, cells.groups)
    for measure in ("focus_before", "radius", "upscale_factor"):
        values = cells.measures[measure].astype(np.float64)
        found[f"{measure} alone"] = bootstrap_by_patient(auc, values, labels, cells.groups)
    return found


def report_patches(pack: Pack) -> dict[str, Interval]:
    """AUC of colours alone for each label of patches, and for patches of one kind of cell alone, with its interval by group.

    Args:
        pack: patches with two independent labels.
    """
    patches = pack.select(pack.in_subset(Subset.TRAIN, Subset.CALIBRATION))
    first, second = pack.header.classes
    alone = patches.labels.sum(axis=1) == 1
    every = np.ones(len(patches), np.bool_)
    found = {}
    for name, features in (("colours of the patch", colour_statistics(patches.pixels)), ("colours of its border", border_statistics(patches.pixels))):
        for what, column, chosen in (
            (f"{first} present", 0, every),
            (f"{second} present", 1, every),
            (f"{first} alone, not {second} alone", 0, alone),
        ):
            labels, groups = patches.labels[chosen, column].astype(np.int64), patches.groups[chosen]
            scores = cross_validated_scores(features[chosen], labels, groups)
            found[f"{name}, {what}"] = bootstrap_by_patient(auc, scores, labels, groups)
    return found


def report_seams(fields: Sequence[ComposedField]) -> dict[str, Interval]:
    """AUC of the colours of the ring around a cell, where the seam runs, for its being a blast, with its interval by patient."""
    rings = [(field, cell, ring_around(field, cell)) for field in fields for cell in field.cells]
    rings = [(field, cell, ring) for field, cell, ring in rings if len(ring) >= _MIN_RING]
    features = np.concatenate([colour_statistics(ring[None, :, None, :]) for _, _, ring in rings])
    labels = np.array([int(cell.is_blast) for _, cell, _ in rings], np.int64)
    patients = np.array([field.patient for field, _, _ in rings])
    return {"ring around a cell, blast": bootstrap_by_patient(auc, cross_validated_scores(features, labels, patients), labels, patients)}


def ring_around(field: ComposedField, cell: ComposedCell) -> NDArray[np.uint8]:
    """Pixels, uint8 (M, 3), at ``RING`` px outside a cell, less what any cell covers or touches."""
    rows, columns = np.mgrid[: field.pixels.shape[0], : field.pixels.shape[1]]
    distance = np.hypot(rows - cell.y, columns - cell.x) - cell.radius
    ring = (distance >= RING[0]) & (distance <= RING[1])
    for other in field.cells:
        if other is not cell:
            ring &= np.hypot(rows - other.y, columns - other.x) > other.radius + RING[0]
    return field.pixels[ring]


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the baselines."""
    parser = program_parser("confounders", __doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of data sets, or packs")
    parser.add_argument("--dataset", default="aml_cells", help="which of them")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--cache", type=Path, default=Path("build/packs"), help="where prepared packs are kept")
    given = parser.parse_args(arguments)
    sources = Sources.find(given.data, given.cache)
    if given.dataset == COMPOSED_FIELDS:
        found = report_patches(sources.pack(COMPOSED_FIELDS, Input(kind=InputKind.CENTER_CROP, center_crop=PATCH_SIDE, side=given.side)))
        found |= report_seams(compose_fields(sources.dataset(AML_CELLS), Composition(), Subset.CALIBRATION))
    else:
        found = report(sources.pack(given.dataset, Input(kind=InputKind.REGISTERED_SHARPENED, side=given.side)))
    for name, interval in found.items():
        print(f"{given.dataset}, {name}: AUC {interval}")


if __name__ == "__main__":
    main()
