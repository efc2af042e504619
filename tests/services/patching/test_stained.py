"""Tests of the measurements before nuclei are chosen."""

from __future__ import annotations

import numpy as np
import pytest

from services.common.phantom import CellKind, PhantomOptions, single_cell, smear_field
from services.patching.stained import StainedImage, median_and_deviation, median_density


def test_medians_of_what_is_marked() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    mask = values >= 4
    assert median_and_deviation(values, mask) == pytest.approx((7.5, 2.38), abs=0.01)
    np.testing.assert_allclose(median_density(np.dstack([values] * 3), mask), 7.5)


@pytest.mark.parametrize("rows", [slice(1, None, 2), slice(0, None, 2)])
def test_a_sample_is_never_empty(rows: slice) -> None:
    mask = np.zeros((1000, 1000), bool)
    mask[rows] = True
    assert median_and_deviation(np.where(mask, 3.0, 0.0).astype(np.float32), mask) == (3.0, 0.0)


def test_fields_show_many_red_cells_and_crops_do_not() -> None:
    field = smear_field(1, PhantomOptions(width=400, height=400, cells=4, cell_radius=14.0)).image
    assert StainedImage.of(field, None, is_field=False).shows_many_red_cells
    crop = single_cell(1, CellKind.BLAST).image
    assert not StainedImage.of(crop, None, is_field=False).shows_many_red_cells


def test_a_given_scale_is_the_unit() -> None:
    image = StainedImage.of(smear_field(1, PhantomOptions(width=400, height=400, cells=2, cell_radius=14.0)).image, 0.5, is_field=True)
    assert image.unit == image.first_unit == 7.5


@pytest.mark.parametrize("scale", [0.05, 0.12, 0.6])
def test_rescaled_is_what_is_measured_with_the_scale(scale: float) -> None:
    field = smear_field(2, PhantomOptions(width=640, height=480, cells=5)).image
    unscaled = StainedImage.of(field, None, is_field=True)
    given, rescaled = StainedImage.of(field, scale, is_field=True), unscaled.rescaled(scale)
    np.testing.assert_array_equal(rescaled.violet, given.violet)
    assert (rescaled.sigma, rescaled.threshold, rescaled.unit) == (given.sigma, given.threshold, given.unit)
    assert unscaled.rescaled(None) is unscaled
