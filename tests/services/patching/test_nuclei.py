"""Tests of nuclei in drawn maps of nuclear stain."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from services.patching import stain
from services.patching.nuclei import MAX_TOUCHING, Nucleus, find_nuclei, split_at_necks, split_by_flooding

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
