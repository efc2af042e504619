"""Tests of nuclei in drawn maps of nuclear stain."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from services.patching import nuclei as nuclei_module
from services.patching import stain
from services.patching.nuclei import MAX_BOXES, MAX_PARTS, MAX_TOUCHING, find_nuclei, split_at_necks, split_by_flooding
from services.patching.nucleus import Nucleus

UNIT = 20.0


def _disks(*disks: tuple[float, float, float], shape: tuple[int, int] = (200, 300)) -> np.ndarray:
    rows, columns = np.indices(shape)
    return np.any([np.hypot(columns - x, rows - y) <= r for x, y, r in disks], axis=0)


def _nucleus(mask: np.ndarray) -> Nucleus:
    return Nucleus(mask, 0, 0)


def test_a_nucleus_measures_its_map() -> None:
    mask = _disks((100, 100, 20))
    (found,) = find_nuclei(np.where(mask, 2.0, 0.0).astype(np.float32), 1.0, mask, UNIT, split_at_necks)
    assert found.radius == pytest.approx(20, rel=0.02)
    assert (found.left, found.top) == (80, 80)
    assert found.mean == pytest.approx(2.0)
    assert found.hull_mean == pytest.approx(2.0, rel=0.05)


def test_fringes_have_an_empty_hull() -> None:
    ring = _disks((100, 100, 26)) & ~_disks((100, 100, 24)) & (np.indices((200, 300))[0] < 115)
    (found,) = find_nuclei(np.where(ring, 2.0, 0.0).astype(np.float32), 1.0, np.ones_like(ring), UNIT, split_at_necks)
    assert found.hull_mean < 0.4 * found.mean


@pytest.mark.parametrize("radii", [(24, 24), (30, 22)])
def test_touching_nuclei_are_cut_where_their_circles_cross(radii: tuple[int, int]) -> None:
    a, b = radii
    distance = 0.9 * (a + b)
    mask = _disks((90, 100, a), (90 + distance, 100, b))
    pieces = sorted(split_at_necks(_nucleus(mask), UNIT), key=lambda n: n.left)
    assert len(pieces) == 2
    crossing = 90 + (distance**2 + a**2 - b**2) / (2 * distance)
    assert pieces[0].left + pieces[0].mask.shape[1] == pytest.approx(crossing, abs=2.5)
    assert sum(np.count_nonzero(p.mask) for p in pieces) == np.count_nonzero(mask)


@pytest.mark.parametrize("gap", [1.5, 1.25])
def test_an_indented_nucleus_is_one(gap: float) -> None:
    kidney = _disks((90, 100, 24), (90 + gap * 16, 100, 24))
    assert len(split_at_necks(_nucleus(kidney), UNIT)) == 1


def test_without_a_scale_nothing_is_cut() -> None:
    mask = _disks((90, 100, 24), (134, 100, 24))
    assert len(split_at_necks(_nucleus(mask), None)) == len(split_by_flooding(_nucleus(mask), None)) == 1


def test_flooding_cuts_what_necks_cut() -> None:
    mask = _disks((90, 100, 24), (134, 100, 24))
    assert len(split_by_flooding(_nucleus(mask), UNIT)) == len(split_at_necks(_nucleus(mask), UNIT)) == 2


def _found(nuclei: np.ndarray, cells: np.ndarray) -> int:
    nuclear = np.where(nuclei, 2.0, 0.0).astype(np.float32)
    return len(find_nuclei(nuclear, 1.0, cells, UNIT, split_at_necks, cells))


def test_lobes_in_one_cell_are_one_nucleus() -> None:
    lobes = _disks((80, 100, 18), (121, 100, 18))
    assert _found(lobes, _disks((100, 100, 46))) == 1


def test_nuclei_of_two_cells_with_background_around_are_two() -> None:
    nuclei = _disks((80, 100, 18), (121, 100, 18))
    cells = cv2.dilate(nuclei.astype(np.uint8), stain.disk(4)) > 0
    assert _found(nuclei, cells) == 2


def test_small_lobes_are_joined_whatever_is_around() -> None:
    lobes = _disks((80, 100, 13), (105, 100, 13), (92, 122, 13))
    assert _found(lobes, cv2.dilate(lobes.astype(np.uint8), stain.disk(4)) > 0) == 1


def test_a_mass_is_cut_into_a_bounded_number() -> None:
    centres = [(x, y, 7.0) for x in range(10, 250, 13) for y in range(10, 250, 13)]
    mass = _disks(*centres, shape=(260, 260))
    pieces = split_at_necks(_nucleus(mass), 6.0)
    assert 1 < len(pieces) <= MAX_TOUCHING
    assert sum(math.pi * p.radius**2 for p in pieces) == pytest.approx(np.count_nonzero(mass))


@pytest.mark.parametrize("unit", [3.0, 9.0, 11.5, 14.0, 25.0, 70.0, 120.0])
def test_peaks_are_those_of_a_dilation_by_the_disk(unit: float) -> None:
    noise = np.random.default_rng(3).normal(size=(190, 230)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 6.0)
    smooth[20:60, 30:90] = smooth.max()  # a plateau
    depth = (unit * (0.2 + (smooth - smooth.min()) / np.ptp(smooth))).astype(np.float32)
    reach = min(max(2, round(0.8 * unit)), nuclei_module.MAX_SEED_REACH)
    expected = (depth >= cv2.dilate(depth, stain.disk(reach))) & (depth > 0.6 * unit)
    found = nuclei_module._peaks(depth, unit)
    np.testing.assert_array_equal(found, expected)
    assert found.any()


def test_flooding_cuts_into_a_bounded_number() -> None:
    mass = _disks(*[(x, y, 7.0) for x in range(10, 250, 13) for y in range(10, 250, 13)], shape=(260, 260))
    pieces = split_by_flooding(_nucleus(mass), 6.0)
    assert len(pieces) == MAX_TOUCHING
    assert len(split_by_flooding(_nucleus(mass), 0.4)) == MAX_TOUCHING


def test_parts_are_bounded_in_number_after_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    joined: list[int] = []

    def counted(parts: list[Nucleus], *_: object) -> list[Nucleus]:
        joined.append(len(parts))
        return parts

    monkeypatch.setattr(nuclei_module, "join_lobes", counted)
    rows = [_disks(*[(x, y, 4.0) for x in range(8, 390, 7)], shape=(400, 400)) for y in range(8, 390, 14)]
    mask = np.any(rows, axis=0)
    find_nuclei(np.where(mask, 2.0, 0.0).astype(np.float32), 1.0, mask, 2.5, split_at_necks)
    assert joined == [MAX_PARTS]


def test_the_boxes_of_parts_are_bounded() -> None:
    y, x = np.mgrid[0:300, 0:300]
    stripes = (x + y) % 12 < 6
    boxes: list[int] = []

    def split(nucleus: Nucleus, unit: float | None) -> list[Nucleus]:
        boxes.append(nucleus.mask.size)
        return [nucleus]

    find_nuclei(np.where(stripes, 2.0, 0.0).astype(np.float32), 1.0, stripes, 2.0, split)
    assert 0.5 * MAX_BOXES * stripes.size < sum(boxes) <= MAX_BOXES * stripes.size
