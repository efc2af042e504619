"""Choose the focus threshold of adaptive unsharpening on training patients: focus must not tell the class, and classes must stay apart.

Source: Genovese et al., ICASSP 2021. First the threshold at which the focus after sharpening correlates least with the class, among 9.0, 8.9,
..., 6.1; then, within 0.5 of it, the one at which a nearest neighbour in PCANet features is most often right, the largest on ties. What is ours:
where images have groups, the neighbour must be of another group, or it would recognise the patient.

    dl4all study threshold-tuning REGISTERED.pack --cells 400
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.preprocessing.focus import focus_score
from services.preprocessing.unsharpening import RADII, RADII_SIDE, unsharp_mask
from training.command import explained, program_parser
from training.crops.packs import read_pack
from training.crops.pcanet import features, filters, nearest_neighbour_accuracy
from training.datasets.dataset import Subset

Bytes = NDArray[np.uint8]
Double = NDArray[np.float64]
CANDIDATES: Final = tuple(round(9.0 - 0.1 * i, 1) for i in range(30))
REACH: Final = 5
"""Steps of 0.1 on either side of the first choice that are tried in the second."""
FEATURE_SIDE: Final = 128


@dataclass(frozen=True)
class Tuning:
    """What was tried and chosen.

    Attributes:
        correlations: |Pearson correlation| of focus and class by threshold.
        accuracies: accuracy of the nearest neighbour by threshold, for those near the least correlation.
        threshold: the choice.
    """

    correlations: dict[float, float]
    accuracies: dict[float, float]
    threshold: float


def tune_threshold(crops: Sequence[Bytes], labels: NDArray[np.int64], groups: NDArray[np.str_], *, legacy: bool = False) -> Tuning:
    """Choose a threshold.

    Args:
        crops: registered cells of training patients, uint8 (side, side, 3), all of one side.
        labels: (N,) 0 or 1, both present.
        groups: (N,) patients.
        legacy: keep the last radius where none suffices, as the program does, instead of the original.
    """
    scores = np.array([_scores(crop) for crop in crops])
    correlations = {t: _correlation(scores[np.arange(len(scores)), _choices(scores, t, legacy)], labels) for t in CANDIDATES}
    first = min(CANDIDATES, key=lambda t: (correlations[t], -t))
    near = sorted((round(first + 0.1 * i, 1) for i in range(-REACH, REACH + 1)), reverse=True)
    accuracies = {t: _accuracy(crops, _choices(scores, t, legacy), labels, groups) for t in near}
    return Tuning(correlations, accuracies, max(near, key=lambda t: (accuracies[t], t)))


def _scores(crop: Bytes) -> list[float]:
    """Score as it is and after each radius."""
    return [focus_score(crop), *(focus_score(_sharpened(crop, i)) for i in range(1, len(RADII) + 1))]


def _sharpened(crop: Bytes, choice: int) -> Bytes:
    return crop if choice == 0 else unsharp_mask(crop, RADII[choice - 1] * crop.shape[0] / RADII_SIDE)


def _choices(scores: Double, threshold: float, legacy: bool) -> NDArray[np.int64]:
    """Which column of the scores the adaptive rule chooses, (N,)."""
    suffices = scores <= threshold
    none = scores.shape[1] - 1 if legacy else 0
    return np.where(suffices.any(axis=1), suffices.argmax(axis=1), none)


def _correlation(scores: Double, labels: NDArray[np.int64]) -> float:
    return 0.0 if scores.std() == 0 else abs(float(np.corrcoef(scores, labels)[0, 1]))


def _accuracy(crops: Sequence[Bytes], choices: NDArray[np.int64], labels: NDArray[np.int64], groups: NDArray[np.str_]) -> float:
    images = np.stack([_gray(_sharpened(crop, int(choice))) for crop, choice in zip(crops, choices, strict=True)])
    return nearest_neighbour_accuracy(features(images, filters(images)), labels, groups)


def _gray(crop: Bytes) -> NDArray[np.float32]:
    gray = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    return cv2.resize(gray, (FEATURE_SIDE, FEATURE_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255.0


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Print what was tried, on training cells of a pack."""
    parser = program_parser("threshold-tuning", __doc__)
    parser.add_argument("pack", type=Path, help="pack of registered, unsharpened cells (dl4all data pack --input registered --quality 0)")
    parser.add_argument("--cells", type=int, default=400, help="training cells that are drawn")
    given = parser.parse_args(arguments)
    pack = read_pack(given.pack)
    training = np.random.default_rng(0).permutation(np.flatnonzero(pack.in_subset(Subset.TRAIN) & (pack.is_blast >= 0)))[: given.cells]
    tuning = tune_threshold(list(pack.pixels[training]), pack.is_blast[training].astype(np.int64), pack.groups[training])
    print("| threshold | correlation of focus and class | nearest neighbour right |\n|---|---|---|")
    for threshold in sorted({*tuning.correlations, *tuning.accuracies}, reverse=True):
        tried = [f"{found[threshold]:.3f}" if threshold in found else "" for found in (tuning.correlations, tuning.accuracies)]
        print(f"| {threshold} | {' | '.join(tried)} |")
    print(f"chosen: {tuning.threshold}")


if __name__ == "__main__":
    main()
