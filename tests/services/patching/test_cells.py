"""Tests of cell location against drawn truth."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from dl4all.imaging.v1 import imaging_pb2
from services.common.image_codec import decode_image
from services.common.phantom import CellKind, Phantom, PhantomCell, PhantomOptions, encode_png, single_cell, smear_field
from services.patching import cells as cells_module
from services.patching.cells import (
    MAX_MEASURED,
    LocatedCell,
    LocatedCells,
    central_cell,
    locate_cells,
    looks_like_single_cell,
)
from services.patching.locating import run
from services.patching.nuclei import MAX_PARTS
from services.patching.scale import MAX_RED_CELL_TO_SIDE
from services.patching.servicer import _locate
from services.patching.stained import RED_CELL_MICRONS
from tests.properties import examples
from tests.services.patching.drawn_maps import no_network
from training.datasets.fields import read_chula_fields

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


def _doubled(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cast(NDArray[np.uint8], cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC))


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_no_cells_among_red_cells_and_platelets(seed: int) -> None:
    assert locate_cells(smear_field(seed, dataclasses.replace(FIELD, cells=0)).image).cells == ()


@pytest.mark.parametrize("seed", range(2))
def test_no_cells_on_empty_ground(seed: int) -> None:
    empty = dataclasses.replace(FIELD, cells=0, platelets=0, red_cell_density=0.0, label=False)
    assert locate_cells(smear_field(seed, empty).image).cells == ()


@pytest.mark.slow
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
    doubled = _doubled(field.image)
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
    assert not given.scale_is_doubted


@pytest.mark.parametrize("factor", [0.1, 0.25, 0.5, 2.0, 2.54, 4.0, 10.0])
@pytest.mark.parametrize("enlarged", [1, 3])
def test_a_scale_that_contradicts_the_red_cells_is_doubted(field: Phantom, factor: float, enlarged: int) -> None:
    image = np.asarray(cv2.resize(field.image, None, fx=enlarged, fy=enlarged, interpolation=cv2.INTER_CUBIC), np.uint8)
    alone = locate_cells(image)
    assert alone.red_cell_radius is not None
    doubted = locate_cells(image, factor * RED_CELL_MICRONS / alone.red_cell_radius)
    assert doubted == dataclasses.replace(alone, scale_is_doubted=True)


def test_a_very_large_image_shows_the_cells_of_a_small_one(field: Phantom) -> None:
    small = locate_cells(field.image)
    large = locate_cells(np.asarray(cv2.resize(field.image, (9200, 6900), interpolation=cv2.INTER_LINEAR), np.uint8), masks=False)
    assert len(large.cells) == len(small.cells)
    assert max(c.radius for c in large.cells) > 512


def test_an_absurd_scale_is_not_believed(field: Phantom) -> None:
    side = min(field.image.shape[:2])
    blank = np.full_like(field.image, 230)
    blank[100:180, 100:180] = (90, 40, 130)
    believed, absurd = (locate_cells(blank, RED_CELL_MICRONS / (share * MAX_RED_CELL_TO_SIDE * side)) for share in (0.99, 1.01))
    assert not believed.scale_is_doubted
    assert absurd == dataclasses.replace(locate_cells(blank), scale_is_doubted=True)


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


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(32, 32), (32, 1500), (1100, 33), (32, 40_000), (60_000, 40)])
@pytest.mark.parametrize("seed", [0, 1])
def test_odd_shapes_and_noise_do_no_harm(height: int, width: int, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    for cell in locate_cells(noise).cells:
        assert 0 <= cell.x < cell.x + cell.width <= width
        assert 0 <= cell.y < cell.y + cell.height <= height


def _at(x: float, y: float, radius: float = 10.0) -> LocatedCell:
    return LocatedCell(x, y, radius, int(x - radius), int(y - radius), int(2 * radius), int(2 * radius), 1.0)


def _central(image: np.ndarray) -> LocatedCell:
    cell = central_cell(locate_cells(np.ascontiguousarray(image)).cells, *image.shape[:2])
    assert cell is not None
    return cell


@pytest.mark.parametrize("kind", [CellKind.BLAST, CellKind.LYMPHOCYTE])
@pytest.mark.parametrize("seed", range(3))
def test_twice_the_size_is_twice_the_radius(kind: CellKind, seed: int) -> None:
    image = single_cell(seed, kind, side=160, cell_radius=30).image
    small, large = _central(image), _central(_doubled(image))
    assert large.radius == pytest.approx(2 * small.radius, rel=0.04)


@pytest.mark.parametrize("seed", range(3))
def test_turns_and_flips_leave_the_radius(seed: int) -> None:
    image = single_cell(seed, CellKind.BLAST, side=160, cell_radius=30).image
    radius = _central(image).radius
    for turned in (image[::-1], image[:, ::-1], np.rot90(image), np.rot90(image, 2)):
        assert _central(turned).radius == pytest.approx(radius, rel=0.02)


def test_masks_fit_their_boxes_and_radii(field: Phantom) -> None:
    for factor in (1, 2):
        image = field.image if factor == 1 else _doubled(field.image)
        for cell in locate_cells(image).cells:
            assert cell.mask is not None
            assert cell.mask.shape == (cell.height, cell.width)
            assert math.sqrt(np.count_nonzero(cell.mask) / math.pi) == pytest.approx(cell.radius, rel=0.02)


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


@pytest.mark.slow
def test_a_speckled_image_is_bounded_work() -> None:
    image = np.full((1024, 1024, 3), 235, np.uint8)
    image[::12, ::12] = image[1::12, ::12] = (90, 50, 140)
    spread = cast(NDArray[np.uint8], cv2.dilate(255 - image, np.ones((9, 9), np.uint8)))
    assert len(locate_cells(255 - spread, microns_per_pixel=2.0).cells) == MAX_PARTS


def _marked(name: str, seed: int) -> np.ndarray:
    """A field without white cells with a scale bar or a caption, as a JPEG file would give it."""
    image = smear_field(seed, PhantomOptions(width=640, height=480, cells=0, cell_radius=28.0, platelets=0, label=False)).image.copy()
    ink = {"black": (0, 0, 0), "blue-black": (10, 10, 14), "red": (220, 20, 30)}[name]
    cv2.rectangle(image, (380, 440), (540, 452), ink, cv2.FILLED)
    cv2.putText(image, "20 um", (380, 420), cv2.FONT_HERSHEY_SIMPLEX, 1.6, ink, 5)
    cv2.circle(image, (120, 400), 30, ink, cv2.FILLED)
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, 85))
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.ascontiguousarray(decoded[..., ::-1])


@pytest.mark.parametrize("name", ["black", "blue-black", "red"])
def test_printed_marks_are_no_cells(name: str) -> None:
    assert [len(locate_cells(_marked(name, seed)).cells) for seed in range(2)] == [0, 0]


def _drawn_over(phantom: Phantom, blots: Sequence[tuple[float, float, float, tuple[float, float, float]]]) -> np.ndarray:
    """Lay stain on a phantom: disks of column, row, radius and optical density."""
    rows, columns = np.indices(phantom.image.shape[:2])
    density = np.zeros(phantom.image.shape)
    for x, y, radius, colour in blots:
        density[np.hypot(columns - x, rows - y) <= radius] += colour
    return np.asarray(np.clip(phantom.image * np.exp(-cv2.GaussianBlur(density, (0, 0), 1.0)), 0, 255).round(), np.uint8)


VIOLET = (0.8, 1.3, 0.4)


def test_a_loose_clump_of_platelets_is_no_cell() -> None:
    bare = smear_field(3, dataclasses.replace(FIELD, cells=0, platelets=0, red_cell_density=0.2))
    rng = np.random.default_rng(0)
    clump = [(400 + 45 * rng.standard_normal(), 300 + 45 * rng.standard_normal(), 5.0, VIOLET) for _ in range(14)]
    assert locate_cells(_drawn_over(bare, clump)).cells == ()


def test_the_cells_beside_a_pyknotic_one_are_found() -> None:
    """One nucleus with thrice the stain sets a peak of which the others reach less than the usual share."""
    phantom = smear_field(21, dataclasses.replace(FIELD, stain=0.7))
    first = phantom.cells[0]
    blot = (first.center_x, first.center_y, 0.9 * first.nucleus_radius, (1.6, 2.6, 0.6))
    assert len(_matches(phantom.cells, locate_cells(_drawn_over(phantom, [blot])).cells)) >= len(phantom.cells) - 1


def test_cells_are_found_where_no_red_cell_gives_the_scale() -> None:
    phantoms = [smear_field(seed, dataclasses.replace(FIELD, red_cell_density=0.0, platelets=0)) for seed in (1, 2)]
    for phantom in phantoms:
        cells = locate_cells(phantom.image).cells
        assert len(_matches(phantom.cells, cells)) == len(phantom.cells) == len(cells)


@pytest.mark.parametrize("sigma", [4.0, 7.0])
def test_cells_are_found_out_of_focus(sigma: float) -> None:
    phantom = smear_field(4, dataclasses.replace(FIELD, blur_sigma=sigma))
    cells = locate_cells(phantom.image).cells
    assert len(_matches(phantom.cells, cells)) == len(phantom.cells) == len(cells)


def test_cells_are_found_under_a_coloured_ring_of_light() -> None:
    phantom = smear_field(6, dataclasses.replace(FIELD, label=False))
    rows, columns = np.mgrid[-1:1:600j, -1:1:800j]
    spot = np.exp(-(rows**2 + columns**2) / 0.4)[..., None]
    lamp = np.array([0.85, 0.55, 0.62]) * (1 - spot) + np.array([0.45, 0.55, 0.52]) * spot
    cells = locate_cells(np.asarray((phantom.image * lamp).round(), np.uint8)).cells
    assert len(_matches(phantom.cells, cells)) == len(phantom.cells) == len(cells)


@pytest.mark.slow
def test_white_cells_that_touch_are_told_apart() -> None:
    options = dataclasses.replace(FIELD, cells=14, touching=1.0, kinds=(CellKind.LYMPHOCYTE, CellKind.BLAST), red_cell_density=0.0)
    phantoms = [smear_field(seed, options) for seed in range(4)]
    located = [locate_cells(p.image).cells for p in phantoms]
    found = sum(len(_matches(p.cells, cells)) for p, cells in zip(phantoms, located, strict=True))
    assert found >= 0.95 * sum(len(p.cells) for p in phantoms)
    assert found >= 0.95 * sum(map(len, located))


def test_a_small_field_is_no_crop(field: Phantom) -> None:
    """Fields of 224 px exist: many red cells across tell them from a crop around one cell."""
    small = smear_field(9, PhantomOptions(width=224, height=224, cells=6, cell_radius=9.0, platelets=2, label=False, light=0.4))
    cells = locate_cells(small.image).cells
    assert len(_matches(small.cells, cells)) >= len(small.cells) - 1
    assert len(cells) <= len(small.cells) + 1


def test_confidence_falls_with_contrast() -> None:
    phantom = smear_field(21, dataclasses.replace(FIELD, touching=0.0))
    pale = phantom.cells[0]
    bleached = phantom.image.copy()
    inside = phantom.mask == 1
    bleached[inside] = (255 * (np.maximum(bleached[inside], 1) / 255) ** 0.55).round()
    matched = _matches(phantom.cells, locate_cells(bleached).cells)
    of_pale = [c.confidence for t, c in matched if t == pale]
    assert not of_pale or of_pale[0] < min(c.confidence for t, c in matched if t != pale)


def test_fields_with_uneven_light_and_variable_focus(shared_data: Path) -> None:
    by_name = {f.path.stem: f for f in read_chula_fields(shared_data / "chula_fields")}
    for stem in ("B-30_0047", "E-12_0397", "M-3B_0382", "L-8_0488"):
        field = by_name[stem]
        cells = locate_cells(decode_image(field.path.read_bytes()).pixels).cells
        assert len(cells) == len(field.boxes), stem
        assert all(any(b.contains(c.center_x, c.center_y) for c in cells) for b in field.boxes), stem


@pytest.mark.slow
@pytest.mark.parametrize("cells", [3, 4, 6])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_small_field_with_a_large_cell_in_the_middle_keeps_all_its_cells(cells: int, seed: int) -> None:
    phantom = smear_field(seed, PhantomOptions(width=400, height=400, cells=cells))
    located = run(_locate(encode_png(phantom), imaging_pb2.ImageKind.IMAGE_KIND_AUTO, None, learned=False), no_network)
    assert located.kind == imaging_pb2.ImageKind.IMAGE_KIND_FIELD
    assert len(_matches(phantom.cells, located.cells)) == len(phantom.cells)


@pytest.mark.parametrize("kind", list(CellKind))
def test_a_crop_around_one_cell_is_told_without_being_said(kind: CellKind) -> None:
    located = run(_locate(encode_png(single_cell(3, kind)), imaging_pb2.ImageKind.IMAGE_KIND_AUTO, None, learned=False), no_network)
    assert (located.kind, len(located.cells)) == (imaging_pb2.ImageKind.IMAGE_KIND_CELL, 1)


def test_masks_are_left_out_where_they_are_not_wanted(field: Phantom) -> None:
    without = locate_cells(field.image, masks=False)
    assert without == locate_cells(field.image)
    assert all(c.mask is None for c in without.cells)
    assert all(c.mask is not None for c in locate_cells(field.image).cells)


_VIOLET, _PINK, _PALE = (90, 50, 140), (190, 140, 150), (235, 225, 230)


def _drawn(shape: str, side: int, ground: tuple[int, int, int]) -> NDArray[np.uint8]:
    """An image that no microscope makes."""
    y, x = np.mgrid[0:side, 0:side]
    distance, angle = np.hypot(x - side / 2, y - side / 2), np.arctan2(y - side / 2, x - side / 2)
    marked = {
        "specks": np.hypot(x % 17 - 8, y % 17 - 8) < 4.2,
        "stripes": (x + y) % 12 < 6,
        "open rings": (distance % 12 < 6) & (np.abs(angle) > 0.05),
        "spiral": (distance - angle * 16 / (2 * np.pi)) % 16 < 9,
        "checks": (x // 24 + y // 24) % 2 == 0,
        "bubbles": np.hypot(x % 40 - 20, y % 40 - 20) < 21,
        "blob": distance < 0.48 * side,
    }[shape]
    image = np.full((side, side, 3), ground, np.uint8)
    image[marked] = _VIOLET
    return image


@pytest.mark.parametrize("ground", [_PINK, _PALE], ids=["stained", "pale"])
@pytest.mark.parametrize("shape", ["specks", "stripes", "open rings", "spiral", "checks", "bubbles", "blob"])
def test_the_surroundings_that_are_measured_are_bounded(shape: str, ground: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    image = _drawn(shape, 300, ground)
    plain = cells_module._surroundings
    for scale in (None, 0.09, 1.0, 10.0):
        measured: list[int] = []

        def counted(
            nucleus: Any, confidence: float, index: int, claimed: NDArray[np.int32], stained: Any, measured: list[int] = measured
        ) -> LocatedCell:
            rows, columns = plain(nucleus, claimed.shape)
            measured.append((rows.stop - rows.start) * (columns.stop - columns.start))
            return LocatedCell(0, 0, 0, 0, 0, 0, 0, 0)

        monkeypatch.setattr(cells_module, "measure_nucleus", counted)
        located = locate_cells(image, scale)
        as_crop_and_as_field = 2
        assert isinstance(located, LocatedCells)
        assert sum(measured) <= as_crop_and_as_field * MAX_MEASURED * image.shape[0] * image.shape[1]


def test_large_surroundings_are_left_out_first(monkeypatch: pytest.MonkeyPatch, field: Phantom) -> None:
    every = locate_cells(field.image).cells
    monkeypatch.setattr(cells_module, "MAX_MEASURED", 0.25)
    fewer = locate_cells(field.image).cells
    assert 0 < len(fewer) < len(every)
    assert max(c.width * c.height for c in fewer) <= max(c.width * c.height for c in every)


@settings(deadline=None, max_examples=examples(60))
@given(
    arrays.arrays(np.uint8, st.tuples(st.integers(4, 12), st.integers(4, 12), st.just(3))),
    st.integers(8, 20),
    st.one_of(st.none(), st.floats(0.01, 10)),
)
def test_any_image_and_scale_is_located(coarse: np.ndarray, factor: int, scale: float | None) -> None:
    rgb = cast(NDArray[np.uint8], np.ascontiguousarray(coarse.repeat(factor, axis=0).repeat(factor, axis=1)))
    located = locate_cells(rgb, scale)
    for cell in located.cells:
        assert 0 <= cell.x < cell.x + cell.width <= rgb.shape[1]
        assert 0 <= cell.y < cell.y + cell.height <= rgb.shape[0]
        assert cell.mask is not None
        assert cell.mask.shape == (cell.height, cell.width)
