"""Tests of the choice of the focus threshold."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from services.common.phantom import CellKind, single_cell
from services.preprocessing.focus import focus_score
from services.preprocessing.unsharpening import FocusParameters, sharpen_adaptively
from training.crops import threshold_tuning
from training.crops.threshold_tuning import CANDIDATES, tune_threshold

pytestmark = pytest.mark.slow

Bytes = NDArray[np.uint8]


def _cells(blurs: tuple[float, float]) -> tuple[list[Bytes], NDArray[np.int64], NDArray[np.str_]]:
    """Eight cells of either class; each class photographed with a blur of its own."""
    labels = np.arange(16) % 2
    kinds = (CellKind.LYMPHOCYTE, CellKind.BLAST)
    cells = [single_cell(i, kinds[label], side=128, cell_radius=25).image for i, label in enumerate(labels)]
    blurred = [np.asarray(cv2.GaussianBlur(c, (0, 0), blurs[label]), np.uint8) for c, label in zip(cells, labels, strict=True)]
    return blurred, labels.astype(np.int64), np.array([f"p{i // 2}" for i in range(16)])


def test_the_candidates_are_the_papers() -> None:
    assert (CANDIDATES[0], CANDIDATES[-1], len(CANDIDATES)) == (9.0, 6.1, 30)


def test_the_correlation_falls_where_sharpening_evens_out_the_focus() -> None:
    crops, labels, groups = _cells((0.8, 1.6))
    tuning = tune_threshold(crops, labels, groups)
    assert tuning.correlations[9.0] == pytest.approx(abs(np.corrcoef([focus_score(c) for c in crops], labels)[0, 1]), abs=0.05)
    least = min(tuning.correlations.values())
    assert least < tuning.correlations[9.0]
    first = max(t for t, r in tuning.correlations.items() if r == least)
    assert set(tuning.accuracies) == {round(first + 0.1 * i, 1) for i in range(-5, 6)}
    best = max(tuning.accuracies.values())
    assert tuning.threshold == max(t for t, a in tuning.accuracies.items() if a == best)


def test_the_choice_is_the_rule_that_serves() -> None:
    crops, *_ = _cells((1.0, 1.5))
    scores = np.array([threshold_tuning._scores(crop) for crop in crops])
    for threshold in (6.0, 6.8, 7.5):
        chosen = threshold_tuning._choices(scores, threshold, legacy=False)
        served = [sharpen_adaptively(c, 1.0, FocusParameters((1.0,), (threshold,), (50.0,))) for c in crops]
        assert [s.focus_after for s in served] == pytest.approx(scores[np.arange(len(crops)), chosen])
