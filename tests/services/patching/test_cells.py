"""Tests of cell location against drawn truth."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pytest

from services.common.phantom import CellKind, Phantom, PhantomCell, PhantomOptions, single_cell, smear_field
from services.patching.cells import MAX_PARTS, LocatedCell, central_cell, locate_cells, looks_like_single_cell

FIELD = PhantomOptions(width=800, height=600, cells=8, cell_radius=32.0)
VARIATIONS: dict[str, dict[str, Any]] = {
    "as drawn": {},
    "without caption": {"label": False},
    "even light": {"light": 0.0},
    "uneven light": {"light": 0.4},
    "weak stain": {"stain": 0.7},
    "strong stain": {"stain": 1.3},
    "pink stain": {"stain_hue": -0.5},
    "blue stain": {"stain_hue": 0.5},
    "blur": {"blur_sigma": 2.0},
    "dark": {"brightness": 0.8},
    "noise": {"noise": 6.0},
    "touching cells": {"touching": 0.6},
    "many red cells": {"red_cell_density": 0.5},
    "small cells": {"cell_radius": 18.0, "cells": 14},
}


def _matches(truth: Sequence[PhantomCell], found: Sequence[LocatedCell]) -> list[tuple[PhantomCell, LocatedCell]]:
    """Pairs one to one, nearest first, with the found centre within the true radius."""
    pairs = sorted((math.hypot(t.center_x - f.center_x, t.center_y - f.center_y), i, j) for i, t in enumerate(truth) for j, f in enumerate(found))
    matched: dict[int, int] = {}
    for distance, i, j in pairs:
        if distance <= truth[i].radius and i not in matched and j not in matched.values():
            matched[i] = j
    return [(truth[i], found[j]) for i, j in matched.items()]


@pytest.mark.parametrize("name", VARIATIONS)
def test_cells_of_phantoms_are_found(name: str) -> None:
    phantoms = [smear_field(seed, dataclasses.replace(FIELD, **VARIATIONS[name])) for seed in (11, 12, 13)]
    located = [locate_cells(p.image).cells for p in phantoms]
    matches = [m for p, cells in zip(phantoms, located, strict=True) for m in _matches(p.cells, cells)]
    errors = [abs(found.radius / truth.radius - 1) for truth, found in matches]
    offsets = [math.hypot(found.center_x - truth.center_x, found.center_y - truth.center_y) / truth.radius for truth, found in matches]
    assert len(matches) >= 0.9 * sum(len(p.cells) for p in phantoms)
    assert len(matches) >= 0.9 * sum(map(len, located))
    assert np.median(errors) <= 0.05
    assert np.median(offsets) <= 0.05


@pytest.mark.parametrize("seed", range(4))
def test_no_cells_among_red_cells_and_platelets(seed: int) -> None:
    assert locate_cells(smear_field(seed, dataclasses.replace(FIELD, cells=0)).image).cells == ()


@pytest.mark.parametrize("seed", range(2))
def test_no_cells_on_empty_ground(seed: int) -> None:
    empty = dataclasses.replace(FIELD, cells=0, platelets=0, red_cell_density=0.0, label=False)
    assert locate_cells(smear_field(seed, empty).image).cells == ()


@pytest.mark.parametrize("look", [{}, {"stain": 1.4}, {"stain": 0.8, "stain_hue": -0.8}, {"stain_hue": 0.8}], ids=str)
def test_no_cells_where_red_cells_overlap(look: dict[str, Any]) -> None:
    alone = PhantomOptions(width=800, height=600, cells=0, platelets=0, label=False, **look)
    assert [len(locate_cells(smear_field(seed, alone).image).cells) for seed in range(4)] == [0, 0, 0, 0]


@pytest.fixture(scope="module")
def field() -> Phantom:
    return smear_field(21, FIELD)


def test_cells_come_from_top_to_bottom_inside_their_boxes(field: Phantom) -> None:
    cells = locate_cells(field.image).cells
    assert [c.center_y for c in cells] == sorted(c.center_y for c in cells)
    for cell in cells:
        assert 0 <= cell.x <= cell.center_x <= cell.x + cell.width <= field.image.shape[1]
        assert 0 <= cell.y <= cell.center_y <= cell.y + cell.height <= field.image.shape[0]
        assert 2 * cell.radius == pytest.approx(math.sqrt(cell.width * cell.height), rel=0.2)
        assert 0 <= cell.confidence <= 1


def test_large_fields_are_located_on_a_reduced_copy(field: Phantom) -> None:
    doubled = cv2.resize(field.image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    one, two = locate_cells(field.image), locate_cells(doubled)
    assert len(one.cells) == len(two.cells) >= 7
    assert one.red_cell_radius is not None
    assert two.red_cell_radius == pytest.approx(2 * one.red_cell_radius, rel=0.1)
    for a, b in zip(one.cells, two.cells, strict=True):
        assert (b.center_x, b.center_y) == pytest.approx((2 * a.center_x + 0.5, 2 * a.center_y + 0.5), abs=3)
        assert b.radius == pytest.approx(2 * a.radius, rel=0.05)


def test_a_given_scale_is_used(field: Phantom) -> None:
    red_cell_radius = locate_cells(field.image).red_cell_radius
    assert red_cell_radius is not None
    scale = 3.75 / red_cell_radius
    given = locate_cells(field.image, scale)
    assert given.red_cell_radius == pytest.approx(red_cell_radius)
    assert len(_matches(field.cells, given.cells)) == len(given.cells) >= 7
    # At a twentieth of the true scale every nucleus is smaller than a platelet may be.
    assert locate_cells(field.image, scale / 20).cells == ()


def test_the_image_is_left_as_it_is(field: Phantom) -> None:
    before = field.image.copy()
    locate_cells(field.image)  # the phantom's array is read-only
    np.testing.assert_array_equal(field.image, before)


@pytest.mark.parametrize("kind", list(CellKind))
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_cell_of_a_single_cell_image_is_found(kind: CellKind, seed: int) -> None:
    phantom = single_cell(seed, kind)
    cells = locate_cells(phantom.image).cells
    cell = central_cell(cells, *phantom.image.shape[:2])
    assert cell is not None
    assert _matches(phantom.cells, [cell])
    assert cell.radius == pytest.approx(phantom.cells[0].radius, rel=0.15)
    assert looks_like_single_cell(cells, *phantom.image.shape[:2])


@pytest.mark.parametrize(("height", "width"), [(32, 32), (32, 1500), (1100, 33)])
@pytest.mark.parametrize("seed", [0, 1])
def test_odd_shapes_and_noise_do_no_harm(height: int, width: int, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    for cell in locate_cells(noise).cells:
        assert 0 <= cell.x < cell.x + cell.width <= width
        assert 0 <= cell.y < cell.y + cell.height <= height


def _at(x: float, y: float, radius: float = 10.0) -> LocatedCell:
    return LocatedCell(x, y, radius, int(x - radius), int(y - radius), int(2 * radius), int(2 * radius), 1.0)


def test_central_cell_is_the_nearest_to_the_centre() -> None:
    near, far = _at(52, 49), _at(70, 50)
    assert central_cell((far, near), 100, 100) is near
    assert central_cell((), 100, 100) is None


def test_a_large_cell_over_the_centre_beats_a_small_one_beside_it() -> None:
    large, small = _at(60, 50, 30.0), _at(43, 50, 4.0)
    assert central_cell((small, large), 100, 100) is large


@pytest.mark.parametrize(
    ("cell", "height", "width", "expected"),
    [
        (_at(100, 100, 40), 200, 200, True),
        (_at(100, 100, 23), 200, 200, True),
        (_at(100, 100, 21), 200, 200, False),
        (_at(138, 100, 40), 200, 200, True),
        (_at(141, 100, 40), 200, 200, False),
        (_at(150, 100, 40), 200, 300, True),
        (_at(150, 100, 40), 200, 301, False),
        (_at(256, 256, 100), 512, 512, True),
        (_at(320, 240, 100), 480, 640, False),
        (_at(320, 320, 100), 641, 641, False),
    ],
)
def test_what_looks_like_a_single_cell(cell: LocatedCell, height: int, width: int, expected: bool) -> None:
    assert looks_like_single_cell((cell,), height, width) is expected


def test_a_field_does_not_look_like_a_single_cell(field: Phantom) -> None:
    assert not looks_like_single_cell(locate_cells(field.image).cells, *field.image.shape[:2])
    assert not looks_like_single_cell((), 200, 200)


def test_a_speckled_image_is_bounded_work() -> None:
    image = np.full((1024, 1024, 3), 235, np.uint8)
    image[::12, ::12] = image[1::12, ::12] = (90, 50, 140)
    image = cv2.dilate(255 - image, np.ones((9, 9), np.uint8))
    assert len(locate_cells(255 - image, microns_per_pixel=2.0).cells) == MAX_PARTS
