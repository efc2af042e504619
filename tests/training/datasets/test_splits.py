"""Tests of splits: groups stay whole, leaks and missing classes are refused, the papers' splits are theirs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.properties import examples
from training.datasets.dataset import Dataset, GroupKind, ImageKind, LabelledImage, Subset
from training.datasets.splits import (
    Split,
    folds_by_image,
    greedy_folds,
    greedy_group_folds,
    grouped_folds,
    refuse_leak,
    require_classes,
    stratified_by_image,
    with_subsets,
)
from training.errors import SplitError

GROUPS = np.array(["a", "a", "b", "b", "c", "c"])


def _split(train: list[int], validation: list[int], test: list[int] | None = None) -> Split:
    return Split(*(np.array(p, np.int64) for p in (train, validation, test or [])))


def test_a_clean_split_passes() -> None:
    refuse_leak(_split([0, 1], [2, 3], [4, 5]), GROUPS, GroupKind.PATIENT, np.array(list("123456")))


def test_a_parted_patient_is_named() -> None:
    with pytest.raises(SplitError, match=r"train and test share 1 groups by patient, such as 'b'"):
        refuse_leak(_split([0, 1, 2], [4, 5], [3]), GROUPS, GroupKind.PATIENT)


def test_an_image_on_both_sides_is_told() -> None:
    with pytest.raises(SplitError, match="train and validation share 1 images"):
        refuse_leak(_split([0, 1], [1]), GROUPS, GroupKind.PATIENT)


def test_a_copy_of_a_file_in_another_group_is_told() -> None:
    with pytest.raises(SplitError, match="1 files with the same content"):
        refuse_leak(_split([0, 1], [2, 3]), GROUPS, GroupKind.BLOCK, np.array(["x", "y", "y", "z", "u", "v"]))


@pytest.mark.parametrize(("kind", "groups"), [(GroupKind.NONE, GROUPS), (GroupKind.PATIENT, np.array(["a", "a", "b", "b", "", ""]))])
def test_unknown_groups_cannot_be_split(kind: GroupKind, groups: np.ndarray) -> None:
    with pytest.raises(SplitError, match="Nothing is known"):
        refuse_leak(_split([0, 1], [2, 3]), groups, kind)


def test_a_missing_class_is_named_with_its_part() -> None:
    labels = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], np.int8)
    with pytest.raises(SplitError, match="No image of class blast in validation"):
        require_classes(labels, ("normal", "blast"), _split([0, 1], [2, 3]))
    with pytest.raises(SplitError, match="No image of class blast in the data"):
        require_classes(labels[[0, 2, 3]], ("normal", "blast"), _split([0, 1], [2]))


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.tuples(st.integers(0, 14), st.booleans()), min_size=10, max_size=80), st.integers(2, 5), st.integers(0, 3))
def test_grouped_folds_never_part_a_group(images: list[tuple[int, bool]], count: int, seed: int) -> None:
    groups = np.array([f"g{g:02d}" for g, _ in images])
    positive = np.array([p for _, p in images])
    names = np.unique(groups)
    if len(names) < count:
        with pytest.raises(SplitError):
            grouped_folds(groups, positive, count, seed)
        return
    fold = grouped_folds(groups, positive, count, seed)
    assert all(len(set(fold[groups == name])) == 1 for name in names)
    sizes = [len(np.unique(groups[fold == k])) for k in range(count)]
    assert max(sizes) - min(sizes) <= 1
    np.testing.assert_array_equal(fold, grouped_folds(groups, positive, count, seed))


def test_grouped_folds_are_stratified_by_positives_of_a_group() -> None:
    groups = np.repeat([f"g{i}" for i in range(6)], 10)
    positive = np.array([j < i * 2 for i in range(6) for j in range(10)])
    fold = grouped_folds(groups, positive, 2, 0)
    of_fold = [sorted(int(g[1]) for g in np.unique(groups[fold == k])) for k in range(2)]
    assert all(len({i // 2 for i in members}) == 3 for members in of_fold)


def test_greedy_folds_by_hand() -> None:
    """Two folds seeded by rows 0 and 1; p = (4/6, 2/6).

    Row 2 (1, 0): q0 = (1, 0) costs 0.5 (1 - 4/6) - 0.5 (0 - 2/6) = 1/3; q1 = (0, 1) costs -2/3: fold 1, now (0.5, 0.5).
    Row 3 (1, 0): fold 0 still costs 1/3; fold 1 costs 0.5 (0.5 - 4/6) - 0.5 (0.5 - 2/6) = -1/6: fold 1, now (2/3, 1/3).
    Row 4 (0, 1): fold 0 costs -0.5 (1/3) + 0.5 (-1/3) = -1/3; fold 1 costs 0: fold 0, now (1/2, 1/2).
    Row 5 (1, 0): fold 0 costs -1/6, fold 1 costs 0: fold 0.
    """
    labels = np.array([[1, 0], [0, 1], [1, 0], [1, 0], [0, 1], [1, 0]], np.int8)
    assert greedy_folds(labels, 2).tolist() == [0, 1, 1, 1, 0, 0]


def test_greedy_folds_keep_the_class_distribution() -> None:
    generator = np.random.default_rng(0)
    labels = (generator.random((2000, 6)) < [0.6, 0.7, 0.05, 0.3, 0.1, 0.02]).astype(np.int8)
    fold = greedy_folds(labels, 10)
    whole = labels.sum(axis=0) / labels.sum()
    for k in range(10):
        of_fold = labels[fold == k].sum(axis=0)
        np.testing.assert_allclose(of_fold / of_fold.sum(), whole, atol=0.03)


@pytest.mark.shared_data
def test_greedy_folds_of_the_real_table_part_slides_and_the_check_says_so(shared_data: Path) -> None:
    from training.datasets.tissue import adp_classes, adp_slide, read_adp_table

    rows = read_adp_table(shared_data / "adp_labels" / "ADP_EncodedLabels_Release1_Flat.csv.gz", 1)
    classes = adp_classes(1)
    labels = np.array([[c in codes for c in classes] for _, codes in rows], np.int8)
    slides = np.array([adp_slide(name) for name, _ in rows])
    fold = greedy_folds(labels, 10)
    counts = np.bincount(fold)
    assert counts.min() > 0
    with pytest.raises(SplitError, match="groups by slide"):
        refuse_leak(Split(np.flatnonzero(fold < 8), np.flatnonzero(fold == 8), np.flatnonzero(fold == 9)), slides, GroupKind.SLIDE)
    by_slide = greedy_group_folds(labels, slides, 10)
    refuse_leak(Split(np.flatnonzero(by_slide != 9), np.flatnonzero(by_slide == 9), np.zeros(0, np.int64)), slides, GroupKind.SLIDE)
    sizes = np.bincount(by_slide)
    assert sizes.max() < 1.25 * sizes.min()


def test_greedy_group_folds_need_enough_groups() -> None:
    with pytest.raises(SplitError, match="3 groups cannot make 4 folds"):
        greedy_group_folds(np.ones((6, 1), np.int8), GROUPS, 4)
    with pytest.raises(SplitError, match="2 images cannot make 3 folds"):
        greedy_folds(np.ones((2, 1), np.int8), 3)


def test_random_splits_keep_class_shares_and_cover_everything() -> None:
    labels = np.array([0] * 130 + [1] * 130)
    split = stratified_by_image(labels, (0.4, 0.1, 0.5), seed=3)
    assert [len(p) for _, p in split.named()] == [104, 26, 130]
    assert sorted(np.concatenate([p for _, p in split.named()]).tolist()) == list(range(260))
    assert all(labels[p].mean() == 0.5 for _, p in split.named())
    assert not np.array_equal(split.train, stratified_by_image(labels, (0.4, 0.1, 0.5), seed=4).train)


def _dataset(groups: int, subset: Subset = Subset.UNASSIGNED, kind: GroupKind = GroupKind.SUBJECT, test: int = 0) -> Dataset:
    images = [
        LabelledImage(Path(f"{g}-{i}.png"), "some", f"{g}-{i}", ("x",), f"g{g:02d}", Subset.TEST if g < test else subset, is_blast=int(i <= g % 3))
        for g in range(groups)
        for i in range(3)
    ]
    return Dataset("some", ImageKind.CELL, ("x",), kind, tuple(images))


def _groups_of(dataset: Dataset, subset: Subset) -> set[str]:
    return {i.group for i in dataset.images if i.subset is subset}


def test_subsets_are_given_by_group() -> None:
    given_to = with_subsets(_dataset(27))
    sizes = [len(_groups_of(given_to, s)) for s in (Subset.TRAIN, Subset.CALIBRATION, Subset.TEST)]
    assert sizes == [9, 12, 6], "four of nine calibrate where two would be too few"
    assert with_subsets(_dataset(27)) == given_to
    for groups, expected in ((45, [15, 20, 10]), (90, [50, 20, 20])):  # of every third group all cells are blasts
        assert [len(_groups_of(with_subsets(_dataset(groups)), s)) for s in (Subset.TRAIN, Subset.CALIBRATION, Subset.TEST)] == expected


def test_images_without_a_subset_among_others_are_told() -> None:
    given_to = with_subsets(_dataset(27))
    first, *others = given_to.images
    with pytest.raises(SplitError, match="1 images have no subset while others have one"):
        with_subsets(replace(given_to, images=(replace(first, subset=Subset.UNASSIGNED, is_blast=1), *others)))
    ambiguous = replace(given_to, images=(replace(first, subset=Subset.UNASSIGNED, is_blast=None), *others))
    assert with_subsets(ambiguous) == ambiguous


def test_a_test_set_of_the_publisher_is_kept() -> None:
    given_to = with_subsets(_dataset(20, Subset.TRAIN, test=5))
    assert _groups_of(given_to, Subset.TEST) == {f"g{g:02d}" for g in range(5)}
    assert len(_groups_of(given_to, Subset.CALIBRATION)) == 4


def test_too_few_or_unknown_groups_are_refused() -> None:
    with pytest.raises(SplitError, match="8 groups by subject are too few"):
        with_subsets(_dataset(8))
    with pytest.raises(SplitError, match="nothing is known"):
        with_subsets(_dataset(20, kind=GroupKind.NONE))


@pytest.mark.parametrize("groups", [26, 36, 45, 54, 72, 81, 90, 120])
def test_groups_of_one_class_each_are_counted_apart(groups: int) -> None:
    """Half of the patients are healthy: what calibrates must be enough of either half."""
    drawn = _dataset(groups)
    images = tuple(replace(i, is_blast=int(int(i.group[1:]) < groups // 2)) for i in drawn.images)
    given_to = with_subsets(replace(drawn, images=images))
    calibrating = [{i.group for i in given_to.images if i.subset is Subset.CALIBRATION and i.is_blast == label} for label in (0, 1)]
    assert min(map(len, calibrating)) >= min(9, 4 * (groups // 18))


def test_folds_by_image_are_those_of_the_papers_program() -> None:
    """First test indices of scikit-learn's KFold(5, shuffle=True, random_state=42) for 10 images: 1 8, 0 5, 2 7, 4 9, 3 6."""
    assert [split.test.tolist() for split in folds_by_image(10, 0)] == [[1, 8], [0, 5], [2, 7], [4, 9], [3, 6]]
