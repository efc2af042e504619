"""Cells of drawn slides are found once each, wherever the windows lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from services.common.phantom import PhantomOptions
from services.common.phantom.slide import PhantomSlide, SlideOptions
from services.patching.cells import LocatedCell
from services.patching.locating import run
from services.patching.slides.location import SlideScale, search, survey, survey_windows, windows_of
from services.patching.slides.opening import open_slide
from services.patching.slides.tiling import SeenCells
from tests.services.patching.drawn_maps import no_network

SIDE = 2304
MICRONS = 0.156
"""Red cells of the drawing have a radius of 24 px."""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PhantomSlide]:
    phantom = PhantomSlide(5, SlideOptions(SIDE, SIDE, PhantomOptions(cells=12, cell_radius=30.0)))
    path = tmp_path_factory.mktemp("slide") / "slide.tif"
    phantom.write(path)
    return path, phantom


def locate(path: Path, microns: float | None = None) -> tuple[list[LocatedCell], SlideScale]:
    slide = open_slide(path)
    scale = survey(slide, microns)
    seen, cells = SeenCells(512.0), []
    for window in windows_of(slide, scale)[1]:
        found = [c.moved(window.x, window.y) for c in run(search(slide, window, scale), no_network).cells]
        cells += [c for c, new in zip(found, seen.add(found), strict=True) if new]
    slide.close()
    return cells, scale


def centres(cells: list) -> np.ndarray:
    return np.array([(c.center_x, c.center_y) for c in cells]).reshape(-1, 2)


def distances(of: np.ndarray, to: np.ndarray) -> np.ndarray:
    return np.linalg.norm(of[:, None] - to[None], axis=2).min(axis=1)


@pytest.mark.slow
def test_every_cell_once(drawn: tuple[Path, PhantomSlide]) -> None:
    path, phantom = drawn
    cells, scale = locate(path)
    assert scale.red_cell_radius == pytest.approx(24, abs=1.5)
    truth, found = (away_from_border(c) for c in (phantom.cells(), cells))
    assert (distances(centres(truth), centres(cells)) < 20).mean() >= 0.97
    assert (distances(centres(found), centres(phantom.cells())) < 20).mean() >= 0.97
    assert abs(len(found) - len(truth)) <= 1


def away_from_border(cells: list) -> list:
    """Cells that the border of the slide does not cut."""
    return [c for c in cells if min(c.center_x, c.center_y) > 40 and max(c.center_x, c.center_y) < SIDE - 40]


def test_with_a_locator_no_threshold_of_the_stain_is_measured(drawn: tuple[Path, PhantomSlide]) -> None:
    slide = open_slide(drawn[0])
    by_stain, learned = survey(slide, None), survey(slide, None, learned=True)
    slide.close()
    assert by_stain.threshold is not None
    assert learned == replace(by_stain, threshold=None)


@pytest.mark.slow
def test_at_a_fixed_scale_quarters_have_the_same_cells(drawn: tuple[Path, PhantomSlide], tmp_path: Path) -> None:
    path, _ = drawn
    whole, _ = locate(path, MICRONS)
    half, crop = SIDE // 2, 2 * 4 * 45
    pixels = tifffile.imread(path)
    quarters: list[np.ndarray] = []
    for x in (0, half):
        for y in (0, half):
            quarter = tmp_path / "quarter.tif"
            tifffile.imwrite(quarter, np.ascontiguousarray(pixels[y : y + half, x : x + half]), tile=(256, 256), photometric="rgb", compression="lzw")
            quarters.append(centres(locate(quarter, MICRONS)[0]) + np.array([x, y]))
    together, alone = np.concatenate(quarters), centres(whole)
    away = [points[(np.abs(points - half) > crop / 2).all(axis=1)] for points in (together, alone)]
    assert len(away[0]) == len(away[1]) > 20
    assert distances(away[0], away[1]).max() < 3
    assert distances(away[1], away[0]).max() < 3


def test_surveyed_windows_lie_inside_and_are_few() -> None:
    for size in [(32, 32), (900, 100_000), (4000, 3000), (100_000, 80_000)]:
        windows = survey_windows(*size, SlideScale(0.25, None, None))
        assert 1 <= len(windows) <= 12
        assert all(x >= 0 and y >= 0 and x + w <= size[0] and y + h <= size[1] for x, y, w, h in windows)


@pytest.mark.parametrize("microns", [None, 0.02, 0.1, 0.25, 0.5, 2.0, 10.0])
def test_windows_are_bounded_at_every_scale(microns: float | None) -> None:
    scale = SlideScale(microns, None, None)
    assert scale.core >= scale.margin > 0
    assert scale.core % scale.reduction == scale.margin % scale.reduction == 0
    assert (scale.core + 2 * scale.margin) ** 2 * 3 <= 64 * 2**20


def test_blank_glass_has_no_cells(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    noise = np.random.default_rng(0).integers(230, 240, (1500, 1500, 3), np.uint8)
    tifffile.imwrite(path, noise, tile=(256, 256), photometric="rgb", compression="lzw")
    cells, scale = locate(path)
    assert cells == []
    assert scale.threshold is None
