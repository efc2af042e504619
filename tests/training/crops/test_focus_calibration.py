"""Tests of the fit of focus parameters."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from services.common.phantom import CellKind, single_cell
from services.preprocessing.unsharpening import FocusParameters
from training.crops import focus_calibration
from training.crops.focus_calibration import fit_focus_parameters, fit_legacy_threshold, with_tuned_threshold
from training.crops.threshold_tuning import Tuning
from training.datasets.dataset import LabelledImage
from training.errors import DatasetError

pytestmark = pytest.mark.slow

FITTED = FocusParameters((0.35, 1.0, 2.0), (6.0, 6.5, 7.0), (6.9, 8.0, 8.5))


@pytest.fixture
def images(tmp_path: Path) -> list[LabelledImage]:
    made = []
    for i in range(8):
        path = tmp_path / f"{i}.png"
        kind = (CellKind.LYMPHOCYTE, CellKind.BLAST)[i % 2]
        picture = cv2.GaussianBlur(single_cell(i, kind, side=160, cell_radius=30).image, (0, 0), 0.6 + 0.3 * (i % 3))
        cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        made.append(LabelledImage(path=path, source="cells", key=path.name, classes=(), group=f"p{i // 2}", is_blast=i % 2))
    return made


def _cell(path: Path, picture: np.ndarray) -> LabelledImage:
    cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return LabelledImage(path=path, source="cells", key=path.name, classes=(), group=path.stem, is_blast=0)


def test_factors_that_no_cell_is_large_enough_for_are_left_out(images: list[LabelledImage]) -> None:
    fitted = fit_focus_parameters(images, 128)
    assert fitted.upscale_factors == (1.0, 1.4, 2.0), "the largest cells have a radius of 40 px"
    assert np.isfinite([*fitted.thresholds, *fitted.limits]).all()
    assert fitted.threshold(0.35) == fitted.threshold(1.0) < fitted.limit(0.35)


def test_cells_that_are_all_too_small_or_not_there_are_told(tmp_path: Path) -> None:
    small = [_cell(tmp_path / f"{i}.png", single_cell(i, CellKind.LYMPHOCYTE, side=160, cell_radius=12).image) for i in range(3)]
    with pytest.raises(DatasetError, match="All 3 cells are too small for crops of 128 px"):
        fit_focus_parameters(small, 128)
    blank = [_cell(tmp_path / "blank.png", np.full((96, 96, 3), 230, np.uint8))]
    with pytest.raises(DatasetError, match="No cell was found in any of 1 images"):
        fit_focus_parameters(blank, 128)


def test_an_unreadable_image_is_left_to_the_preparation_that_names_all(images: list[LabelledImage]) -> None:
    whole = fit_focus_parameters(images[1:], 64)
    images[0].path.write_bytes(b"no image")
    assert fit_focus_parameters(images, 64) == whole


def test_the_tuned_threshold_moves_all_thresholds_alike(images: list[LabelledImage], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(focus_calibration, "tune_threshold", lambda *_, **__: Tuning({}, {}, 6.9))
    moved = with_tuned_threshold(FITTED, images, 64)
    assert (moved.upscale_factors, moved.limits) == (FITTED.upscale_factors, FITTED.limits)
    shifts = np.subtract(moved.thresholds, FITTED.thresholds)
    assert shifts[1] == pytest.approx(shifts[2], abs=2e-3)
    assert moved.thresholds[0] == pytest.approx(min(6.0 + shifts[1], 6.9), abs=2e-3), "never above the limit"


@pytest.mark.parametrize("legacy", [False, True])
def test_it_is_tuned_on_the_cells_that_serve(images: list[LabelledImage], legacy: bool) -> None:
    moved = with_tuned_threshold(FITTED, images, 64, legacy=legacy)
    assert moved.thresholds != FITTED.thresholds
    assert all(t <= limit for t, limit in zip(moved.thresholds, moved.limits, strict=True))


def test_the_legacy_threshold_is_one_number_that_refuses_nothing(images: list[LabelledImage]) -> None:
    quarter, tuned = (fit_legacy_threshold(images, 64, tuned=tuned) for tuned in (False, True))
    for parameters in (quarter, tuned):
        assert len(parameters.thresholds) == 1
        assert parameters.limit(3.0) == 120.0
    assert tuned.thresholds[0] == round(tuned.thresholds[0], 1)
