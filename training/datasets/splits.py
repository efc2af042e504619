"""Splits into train, validation and test: by group, checked for leaks; and the splits of the papers, for comparison with them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.datasets.dataset import Dataset, GroupKind, Subset
from training.errors import SplitError

COVERAGE: Final = 0.9
"""Nominal coverage per class where there are patients enough; see ``promised_coverage``."""
MIN_PATIENTS: Final = 4
"""Fewest calibration patients of a class: with fewer not even 0.8 can be promised."""
ROUNDING: Final = 1e-9
"""Tolerance by which a coverage may exceed a quotient of counts."""

Indices = NDArray[np.int64]
Names = NDArray[np.str_]
_SEED: Final = 2021
KFOLDS: Final = 5
_KFOLD_SEED: Final = 42
MIN_GROUPS: Final = 9
"""Fewest groups from which a calibration and a test part can be drawn."""


@dataclass(frozen=True)
class Split:
    """Indices of train, validation and test images of a data set; ``validation`` may be empty."""

    train: Indices
    validation: Indices
    test: Indices

    def named(self) -> tuple[tuple[str, Indices], ...]:
        """The parts that are not empty, with their names."""
        every = (("train", self.train), ("validation", self.validation), ("test", self.test))
        return tuple((name, indices) for name, indices in every if len(indices))


def refuse_leak(split: Split, groups: Names, grouped_by: GroupKind, sha256: Names | None = None) -> None:
    """Refuse a split that divides a group, overlaps, or has the same image on both sides.

    Args:
        split: the split.
        groups: group of each image, str (N,).
        grouped_by: what a group is.
        sha256: checksum of each image file; None to leave that check out.

    Raises:
        SplitError: it leaks, or nothing is known of what images share.
    """
    if grouped_by is GroupKind.NONE or "" in groups:
        raise SplitError("Nothing is known of what images share (no patients, slides or fields), so no split of them can be trusted.")
    named = split.named()
    for i, (first, a) in enumerate(named):
        for second, b in named[i + 1 :]:
            if shared := np.intersect1d(a, b).tolist():
                raise SplitError(f"{first} and {second} share {len(shared)} images.")
            if leaked := np.intersect1d(groups[a], groups[b]).tolist():
                raise SplitError(f"The split leaks: {first} and {second} share {len(leaked)} groups by {grouped_by.value}, such as {leaked[0]!r}.")
            if sha256 is not None and len(same := np.intersect1d(sha256[a], sha256[b])):
                raise SplitError(f"The split leaks: {first} and {second} share {len(same)} files with the same content.")


def require_classes(labels: NDArray[np.int8], classes: Sequence[str], split: Split) -> None:
    """Refuse a split where a part lacks a class that the data set has.

    Raises:
        SplitError: a class is missing, in all of the data or in a part.
    """
    for name, chosen in (("the data", np.arange(len(labels))), *split.named()):
        counts = labels[chosen].sum(axis=0)
        if missing := [c for c, n in zip(classes, counts, strict=True) if n == 0]:
            raise SplitError(f"No image of class {', '.join(missing)} in {name}: nothing can be learned or measured of it.")


def grouped_folds(groups: Names, is_positive: NDArray[np.bool_], count: int, seed: int) -> NDArray[np.int64]:
    """Fold of each image: groups stay whole, folds have alike numbers of groups, stratified by positives per group.

    Groups are ordered by their number of positives and cut into runs of ``count`` neighbours; each run is dealt to the
    folds in an order drawn with the seed.

    Raises:
        SplitError: fewer groups than folds.
    """
    names, inverse = np.unique(groups, return_inverse=True)
    if not 2 <= count <= len(names):
        raise SplitError(f"{len(names)} groups cannot make {count} folds.")
    positives = np.bincount(inverse, weights=is_positive.astype(np.float64), minlength=len(names))
    order = np.lexsort((np.arange(len(names)), positives))
    generator = np.random.default_rng(seed)
    fold = np.empty(len(names), np.int64)
    for start in range(0, len(names), count):
        run = order[start : start + count]
        fold[run] = generator.permutation(count)[: len(run)]
    return fold[inverse]


def greedy_folds(labels: NDArray[np.int8], count: int = 10) -> NDArray[np.int64]:
    """Multi-label folds by greedy assignment, as in HistoTNet's program.

    The first ``count`` rows seed one fold each. Row i goes to the fold with the least ``(y_i - 0.5) . (q_fold - p)``: p is the
    class distribution of all rows (sums to 1), q_fold that of the rows the fold has so far; ties go to the first fold.

    Args:
        labels: int8 (N, K), 0 or 1.
        count: number of folds.

    Returns:
        int64 (N,), fold of each row.

    Raises:
        SplitError: fewer rows than folds.
    """
    if len(labels) < count:
        raise SplitError(f"{len(labels)} images cannot make {count} folds.")
    y = labels.astype(np.float64)
    whole = y.sum(axis=0) / max(y.sum(), 1.0)
    counts = y[:count].copy()
    fold = np.empty(len(labels), np.int64)
    fold[:count] = np.arange(count)
    for i in range(count, len(labels)):
        totals = np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
        best = int(np.argmin((counts / totals - whole) @ (y[i] - 0.5)))
        fold[i] = best
        counts[best] += y[i]
    return fold


def greedy_group_folds(labels: NDArray[np.int8], groups: Names, count: int = 10) -> NDArray[np.int64]:
    """The greedy rule on groups instead of images: a group has the share of each class among its images.

    Larger groups first, each to the fold with the least ``(y_g - 0.5) . (q_fold - p)`` among those that have the fewest images.
    """
    names, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < count:
        raise SplitError(f"{len(names)} groups cannot make {count} folds.")
    sums = np.zeros((len(names), labels.shape[1]))
    np.add.at(sums, inverse, labels.astype(np.float64))
    whole = sums.sum(axis=0) / max(sums.sum(), 1.0)
    counts, images = np.zeros((count, labels.shape[1])), np.zeros(count)
    fold = np.empty(len(names), np.int64)
    for g in np.argsort(-sizes, kind="stable"):
        smallest = images <= images.min() + sizes[g] - 1
        totals = np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
        cost = (counts / totals - whole) @ (sums[g] / sizes[g] - 0.5)
        best = int(np.argmin(np.where(smallest, cost, np.inf)))
        fold[g], counts[best], images[best] = best, counts[best] + sums[g], images[best] + sizes[g]
    return fold[inverse]


def stratified_by_image(labels: NDArray[np.int64], shares: Sequence[float], seed: int) -> Split:
    """Random split with the same class shares, image by image: the protocol of the papers. Images of one patient get into different parts.

    Args:
        labels: int64 (N,), class of each image.
        shares: of train, validation and test; sum 1.
        seed: of the draw.
    """
    generator = np.random.default_rng(seed)
    parts: list[list[Indices]] = [[], [], []]
    for label in np.unique(labels):
        drawn = generator.permutation(np.flatnonzero(labels == label))
        cuts = np.rint(np.cumsum(shares)[:2] * len(drawn)).astype(int)
        for part, indices in zip(parts, np.split(drawn, cuts), strict=True):
            part.append(indices)
    train, validation, test = (np.sort(np.concatenate(p)).astype(np.int64) for p in parts)
    return Split(train, validation, test)


def folds_by_image(count: int, seed: int) -> tuple[Split, ...]:
    """Five shuffled folds of images in their order, not stratified; each tests once, a quarter of the others validates: the protocol of DSS-XAI.

    The folds are those of scikit-learn's ``KFold(5, shuffle=True, random_state=42)``, as in the paper's program. What validates is drawn with the
    seed; the program draws it anew each time.

    Args:
        count: of images.
        seed: of the draw of what validates.
    """
    order = np.arange(count)
    np.random.RandomState(_KFOLD_SEED).shuffle(order)
    splits = []
    for k, drawn in enumerate(np.array_split(order, KFOLDS)):
        test = np.sort(drawn)
        others = np.random.default_rng((seed, k)).permutation(np.setdiff1d(np.arange(count), test))
        validating = len(others) // (KFOLDS - 1)
        splits.append(Split(np.sort(others[validating:]), np.sort(others[:validating]), test))
    return tuple(splits)


def draw_subsets(images: Iterable[tuple[str, bool]], runs: int, calibrating: int = 2) -> dict[str, Subset]:
    """Give groups to train, calibration or test, stratified by their number of blasts.

    Groups are ordered by their number of blasts (ties by name) and cut into runs of neighbours; of each run two go to
    calibration and two to test, drawn with a fixed seed.

    Args:
        images: (group, whether it shows a blast) of every image.
        runs: number of runs.
        calibrating: groups of each run that calibrate.
    """
    blasts: Counter[str] = Counter()
    for group, is_blast in images:
        blasts[group] += is_blast
    ordered = sorted(blasts, key=lambda g: (blasts[g], g))
    generator = np.random.default_rng(_SEED)
    subsets = dict.fromkeys(ordered, Subset.TRAIN)
    for run in np.array_split(np.array(ordered), runs):
        drawn = generator.permutation(run)
        subsets.update(dict.fromkeys(drawn[:calibrating].tolist(), Subset.CALIBRATION))
        subsets.update(dict.fromkeys(drawn[calibrating : calibrating + 2].tolist(), Subset.TEST))
    return subsets


def with_subsets(dataset: Dataset) -> Dataset:
    """Give every group to train, calibration or test, if the data set does not say it.

    Drawn as the committed list of patients was: of nine neighbours by number of blasts two calibrate and two test. Where that would be
    too few of a class to calibrate for a coverage of 0.9, four of nine calibrate. Subsets that the data set has are kept, except that calibration
    groups are taken from its training groups where it has none; a set of groups whose blasts and normal cells are all for testing stays as it is.

    Raises:
        SplitError: groups are not known, or too few; or some images have a subset and some that could train have none.
    """
    if any(i.subset is Subset.CALIBRATION for i in dataset.images):
        if without := [i.key for i in dataset.images if i.subset is Subset.UNASSIGNED and i.is_blast is not None]:
            raise SplitError(
                f"{dataset.name}: {len(without)} images have no subset while others have one, such as {without[0]}; give all one, or none."
            )
        return dataset
    if dataset.grouped_by is GroupKind.NONE:
        raise SplitError(f"{dataset.name}: nothing is known of what images share, so it cannot be split for training.")
    fixed = (Subset.TEST, Subset.KEPT_BACK)
    free = [i for i in dataset.images if i.subset not in fixed]
    if all(i.is_blast is None for i in free):
        return dataset
    has_test = any(i.subset is Subset.TEST for i in dataset.images)
    names = {i.group for i in free}
    if len(names) < MIN_GROUPS:
        raise SplitError(f"{dataset.name}: {len(names)} groups by {dataset.grouped_by.value} are too few; at least {MIN_GROUPS} are needed.")
    runs = max(1, len(names) // MIN_GROUPS)
    labelled = [(i.group, bool(i.is_blast)) for i in free]
    given = draw_subsets(labelled, runs)
    if _fewest_calibrating(dataset, given) < patients_needed():
        given = draw_subsets(labelled, runs, MIN_PATIENTS)
    if has_test:
        given = {name: Subset.TRAIN if s is Subset.TEST else s for name, s in given.items()}
    images = tuple(i if i.subset in fixed else replace(i, subset=given[i.group]) for i in dataset.images)
    return replace(dataset, images=images)


def _fewest_calibrating(dataset: Dataset, given: Mapping[str, Subset]) -> int:
    """Calibration groups of the class that has the fewest."""
    return min(len({i.group for i in dataset.images if i.is_blast == label and given.get(i.group) is Subset.CALIBRATION}) for label in (0, 1))


def patients_needed(coverage: float = COVERAGE) -> int:
    """Calibration patients of each class that a nominal coverage needs: the least n with n / (n + 1) of at least it."""
    return math.ceil(coverage / (1.0 - coverage) - ROUNDING)
