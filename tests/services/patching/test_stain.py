"""Tests of the stain model against drawn truth."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from services.common.phantom import Phantom, PhantomOptions, smear_field
from services.patching import stain
from services.patching.light import background_light

FIELD = PhantomOptions(width=640, height=480, cells=5, cell_radius=28.0, label=False, noise=1.0)


@pytest.fixture(scope="module")
def field() -> Phantom:
    return smear_field(5, FIELD)


def _density(phantom: Phantom) -> stain.Float:
    return stain.optical_density(phantom.image, background_light(phantom.image))


def test_background_has_no_density(field: Phantom) -> None:
    bare = smear_field(5, dataclasses.replace(FIELD, cells=0, platelets=0, red_cell_density=0.0, light=0.4))
    assert float(np.abs(_density(bare)).mean()) < 0.05
    assert float(_density(field)[field.mask > 0].sum(axis=-1).mean()) > 1.0


def test_uneven_light_is_divided_out() -> None:
    even, uneven = (smear_field(5, dataclasses.replace(FIELD, light=light)) for light in (0.0, 0.4))
    assert np.abs(even.image.astype(int) - uneven.image).mean() > 15
    assert float(np.abs(_density(even) - _density(uneven)).mean()) < 0.05


def test_density_follows_beer_and_lambert() -> None:
    light = np.full((2, 2, 3), 200.0, np.float32)
    rgb = np.array([[[200, 100, 50], [200, 200, 200]], [[0, 255, 66], [10, 20, 30]]], np.uint8)
    np.testing.assert_allclose(stain.optical_density(rgb, light), np.log(201.0 / (rgb + 1.0)), atol=1e-5)


def test_violet_index_by_hand() -> None:
    density = np.array([[[0.2, 0.5, 0.1], [0.9, 0.5, 0.1]]], np.float32)
    np.testing.assert_allclose(stain.violet_index(density), [[0.8, 0.4]], atol=1e-6)


def test_nuclei_are_more_violet_than_red_cells(field: Phantom) -> None:
    violet = stain.violet_index(_density(field))
    for cell in field.cells:
        rows, columns = np.indices(violet.shape)
        inside = np.hypot(columns - cell.center_x, rows - cell.center_y) < 0.3 * cell.nucleus_radius
        assert float(np.median(violet[field.mask > 0])) > 0.4
        assert float(violet[inside].mean()) > float(np.percentile(violet[field.mask == 0], 95))


def test_nucleus_threshold_is_a_share_of_the_peak() -> None:
    violet = np.zeros((100, 100), np.float32)
    violet[:10, :10] = 1.2
    assert stain.nucleus_threshold(violet, 100) == pytest.approx(stain.NUCLEUS_SHARE_OF_PEAK * 1.2)
    assert stain.nucleus_threshold(violet, 200) == pytest.approx(stain.NUCLEUS_SHARE_OF_PEAK * 0.6)
    assert stain.nucleus_threshold(np.zeros((10, 10), np.float32), 50) == stain.MIN_NUCLEUS_VIOLET
    assert stain.nucleus_threshold(violet, 1e9) == stain.MIN_NUCLEUS_VIOLET


def test_foreground_holds_the_cells(field: Phantom) -> None:
    foreground = stain.foreground_mask(_density(field))
    assert foreground[field.mask > 0].mean() > 0.85
    covered = field.options.red_cell_density + (field.mask > 0).mean()
    assert foreground.mean() == pytest.approx(covered, abs=0.12)


def test_foreground_of_an_empty_image_is_empty() -> None:
    assert not stain.foreground_mask(np.zeros((64, 64, 3), np.float32)).any()


def test_red_cell_radius_of_drawn_disks() -> None:
    rows, columns = np.mgrid[0:400, 0:400]
    mask = np.zeros((400, 400), bool)
    for x in range(40, 400, 80):
        for y in range(40, 400, 80):
            mask |= np.hypot(columns - x, rows - y) <= 20
    assert stain.red_cell_radius(*stain.distance_peaks(mask)) == pytest.approx(20, rel=0.1)
    assert stain.red_cell_radius(*stain.distance_peaks(mask[:160, :160])) is None


@pytest.mark.parametrize("radius", [1, 3, 8])
def test_disk(radius: int) -> None:
    disk = stain.disk(radius)
    assert disk.shape == (2 * radius + 1, 2 * radius + 1)
    assert disk.dtype == np.uint8
    np.testing.assert_array_equal(disk, disk[::-1, ::-1])
    assert disk.sum() == pytest.approx(math.pi * radius**2, abs=2 * radius + 1)


def test_holes_are_filled_and_bays_at_the_border_are_not() -> None:
    mask = np.zeros((20, 20), bool)
    mask[3:12, 3:12] = True
    mask[6:9, 6:9] = False
    mask[15:20, 3:12] = True
    mask[17:20, 6:9] = False
    filled = stain.fill_holes(mask)
    assert filled[6:9, 6:9].all()
    assert not filled[17:20, 6:9].any()


def test_whole_cells_are_measured_from_their_nuclei(field: Phantom) -> None:
    density = _density(field)
    violet = stain.violet_index(density)
    threshold = stain.nucleus_threshold(violet, 500)
    red_cells = stain.foreground_mask(density) & (violet < threshold)
    for number, truth in enumerate(field.cells, start=1):
        nucleus = (field.mask == number) & (violet > threshold)
        cell = stain.cell_mask(density, nucleus, red_cells)
        drawn = field.mask == number
        assert (cell & nucleus).sum() == nucleus.sum()
        assert (cell & drawn).sum() / (cell | drawn).sum() > 0.75
        assert stain.equivalent_radius(cell) == pytest.approx(truth.radius, rel=0.15)


def test_equivalent_radius() -> None:
    assert stain.equivalent_radius(np.ones((10, 10), bool)) == pytest.approx(math.sqrt(100 / math.pi))
    assert stain.equivalent_radius(np.zeros((10, 10), bool)) == 0.0


PINK, VIOLET = (0.25, 0.75, 0.55), (1.2, 1.9, 0.9)
"""Optical densities of red cells and of a nucleus."""


def _drawn(disks: list[tuple[int, int, int, tuple[float, float, float]]]) -> tuple[np.ndarray, np.ndarray]:
    """Optical density (200, 200, 3) with a little noise, and the mask of the first disk; disks are (x, y, radius, density)."""
    rows, columns = np.indices((200, 200))
    density = np.random.default_rng(0).normal(0, 0.01, (200, 200, 3))
    for x, y, radius, colour in disks:
        density[np.hypot(columns - x, rows - y) <= radius] = colour
    x, y, radius, _ = disks[0]
    return density.astype(np.float32), np.hypot(columns - x, rows - y) <= radius


def _cell_of(density: np.ndarray) -> np.ndarray:
    nucleus = stain.violet_index(density) > 0.8
    return stain.cell_mask(density, nucleus, stain.foreground_mask(density) & ~nucleus)


def test_a_cell_that_stands_alone_is_whole_though_its_cytoplasm_is_as_pink_as_the_red_cells() -> None:
    """A granulocyte: nucleus to one side, pink cytoplasm, red cells at a distance."""
    red_cells = [(x, y, 17, PINK) for x, y in ((25, 25), (175, 30), (30, 175), (172, 170))]
    density, truth = _drawn([(100, 100, 40, PINK), *red_cells, (85, 95, 20, VIOLET)])
    cell = _cell_of(density)
    assert (cell & truth).sum() / (cell | truth).sum() > 0.93


def test_a_red_cell_that_touches_is_not_taken_in() -> None:
    """A lymphocyte, nearly all nucleus, against a red cell: together they are not convex."""
    red_cells = [(x, y, 17, PINK) for x, y in ((25, 25), (175, 30), (30, 175), (172, 170))]
    density, _ = _drawn([(100, 100, 24, VIOLET), *red_cells, (138, 100, 17, PINK), (100, 100, 24, VIOLET)])
    assert stain.equivalent_radius(_cell_of(density)) == pytest.approx(24, rel=0.1)


def test_very_many_holes_are_not_all_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    density = np.full((120, 120, 3), 0.4, np.float32)
    density[3::6, 3::6] = density[4::6, 3::6] = density[3::6, 4::6] = density[4::6, 4::6] = 0.0
    density[50:66, 50:66] = 0.0
    looked_at: list[int] = []
    monkeypatch.setattr(stain, "MAX_HOLES", 5)

    def counted(hole: np.ndarray, area: float) -> bool:
        looked_at.append(len(hole))
        return True

    monkeypatch.setattr(stain, "_is_pallor", counted)
    mask = stain.foreground_mask(density)
    assert len(looked_at) == 5
    assert mask[58, 58]
