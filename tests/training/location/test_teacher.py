"""Tests of the masks at points and boxes: near the drawn cells, and unsure where nothing is seen or cells touch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from services.common.phantom import Phantom, PhantomOptions, smear_field
from services.patching.locator_maps import Kind
from services.patching.stained import StainedImage
from tests.training.location.drawn import Disk, common_share, disk, picture
from training.datasets.fields import TruthBox
from training.location.annotated import Mark
from training.location.teacher import MARGIN, UNSURE, Taught, teach

HEIGHT, WIDTH = 160, 200
UNIT = 12.0
CELL = Disk(70, 80, radius=20, nucleus=15)
EMPTY = (150, 60)


def _whole(cell: Disk, more: float = 0.0) -> np.ndarray:
    return disk(cell.x, cell.y, cell.radius + more, HEIGHT, WIDTH)


def _nucleus(cell: Disk) -> np.ndarray:
    return disk(cell.x, cell.y, cell.nucleus, HEIGHT, WIDTH)


def _taught(cells: Sequence[Disk], marks: Sequence[Mark]) -> Taught:
    return teach(StainedImage.of(picture(cells, HEIGHT, WIDTH), None, is_field=True), marks, UNIT)


def _mark(cell: Disk, kind: Kind = Kind.NUCLEATED, box: TruthBox | None = None) -> Mark:
    return Mark(cell.x, cell.y, kind, box)


def _box(left: float, top: float, right: float, bottom: float) -> Mark:
    return Mark((left + right) / 2, (top + bottom) / 2, Kind.NUCLEATED, TruthBox(left, top, right, bottom))


@pytest.fixture(scope="module")
def field() -> Phantom:
    return smear_field(1, PhantomOptions(width=320, height=240, cells=4, cell_radius=18.0, platelets=3, touching=0.0, label=False))


@pytest.fixture(scope="module")
def taught(field: Phantom) -> Taught:
    marks = [Mark(c.center_x, c.center_y, Kind.NUCLEATED) for c in field.cells]
    return teach(StainedImage.of(field.image, None, is_field=True), marks, field.options.cell_radius / 1.2)


def test_a_point_in_a_drawn_cell_gives_its_mask(field: Phantom, taught: Taught) -> None:
    assert taught.owners.shape == field.mask.shape
    assert taught.is_known.tolist() == [True] * len(field.cells)
    assert not taught.unsure.any()
    for number in range(1, len(field.cells) + 1):
        assert common_share(taught.owners == number, field.mask == number) > 0.8


def test_red_cells_and_platelets_without_a_mark_belong_to_no_cell(field: Phantom, taught: Taught) -> None:
    assert np.count_nonzero((taught.owners > 0) & (field.mask == 0)) < 0.05 * np.count_nonzero(taught.owners)


def test_nuclei_lie_in_their_cells_and_have_about_the_drawn_size(field: Phantom, taught: Taught) -> None:
    assert not (taught.nuclei & (taught.owners == 0)).any()
    for number, cell in enumerate(field.cells, start=1):
        area = np.count_nonzero(taught.nuclei & (taught.owners == number))
        assert 0.6 < area / (np.pi * cell.nucleus_radius**2) < 1.3


def test_of_cells_that_touch_only_the_nuclei_are_sure() -> None:
    cells = [CELL, Disk(CELL.x + 38, CELL.y, 20, 15)]
    taught = _taught(cells, [_mark(c) for c in cells])
    assert taught.is_known.all()
    for number, cell in enumerate(cells, start=1):
        assert common_share(taught.owners == number, _nucleus(cell)) > 0.85
    assert not (taught.unsure & taught.nuclei).any()
    both = (_whole(cells[0], MARGIN * UNIT) | _whole(cells[1], MARGIN * UNIT)) & ~taught.nuclei
    assert common_share(taught.unsure, both) > 0.9


def test_a_cell_that_touches_none_is_sure_beside_two_that_touch() -> None:
    cells = [CELL, Disk(CELL.x + 38, CELL.y, 20, 15), Disk(170, 30, 18, 13)]
    taught = _taught(cells, [_mark(c) for c in cells])
    assert common_share(taught.owners == 3, _whole(cells[2])) > 0.85
    assert not (taught.unsure & _whole(cells[2])).any()


def test_a_mark_on_empty_ground_has_no_mask_and_all_around_it_is_unsure() -> None:
    taught = _taught([CELL], [_mark(CELL), Mark(*EMPTY, Kind.NUCLEATED)])
    assert taught.is_known.tolist() == [True, False]
    assert not (taught.owners == 2).any()
    assert common_share(taught.unsure, disk(*EMPTY, round(UNSURE * UNIT), HEIGHT, WIDTH)) > 0.95
    assert common_share(taught.owners == 1, _whole(CELL)) > 0.85


def test_a_platelet_has_no_mask_and_leaves_nothing_unsure() -> None:
    platelet = Disk(*EMPTY, radius=5, nucleus=4)
    taught = _taught([CELL, platelet], [_mark(platelet, Kind.PLATELET), _mark(CELL)])
    assert taught.is_known.tolist() == [False, True]
    assert not taught.unsure.any()
    assert not (taught.nuclei & disk(*EMPTY, 8, HEIGHT, WIDTH)).any()
    assert common_share(taught.owners == 2, _whole(CELL)) > 0.85


def test_a_smudged_cell_has_a_mask() -> None:
    taught = _taught([CELL], [_mark(CELL, Kind.SMUDGED)])
    assert taught.is_known.all()
    assert common_share(taught.owners == 1, _whole(CELL)) > 0.85


def test_a_cell_without_a_mark_is_not_learned() -> None:
    other = Disk(150, 110, 18, 13)
    taught = _taught([CELL, other], [_mark(CELL)])
    assert not (taught.nuclei & _whole(other)).any()
    assert not ((taught.owners > 0) & _whole(other)).any()


def test_a_mask_that_fills_its_box_is_whole() -> None:
    taught = _taught([CELL], [_box(50, 60, 91, 101)])
    assert common_share(taught.owners == 1, _whole(CELL)) > 0.85
    assert not taught.unsure.any()


def test_of_a_mask_that_does_not_fit_its_box_only_the_nucleus_is_sure() -> None:
    taught = _taught([CELL], [_box(50, 60, 100, 110)])
    assert taught.is_known.all()
    own = taught.owners == 1
    assert np.array_equal(own, taught.nuclei)
    assert common_share(own, _nucleus(CELL)) > 0.9
    assert taught.unsure[62, 52]
    assert taught.unsure[108, 98]
    assert not taught.unsure[20, 20]
    assert not (taught.unsure & own).any()


def test_nothing_of_a_cell_leaves_its_box_by_more_than_a_tenth_of_its_side() -> None:
    mark = _box(54, 55, 92, 105)
    taught = _taught([CELL, Disk(CELL.x - 28, CELL.y, 20, 15)], [mark])
    _, columns = np.nonzero((taught.owners == 1) | taught.nuclei)
    assert columns.min() >= 54 - 0.1 * 38
    assert columns.max() <= 92 + 0.1 * 38


def test_a_pale_nucleus_beside_dark_ones_is_found() -> None:
    pale = Disk(150, 80, 20, 15, color=(150, 122, 176))
    image = StainedImage.of(picture([CELL, Disk(30, 30, 20, 15), pale], HEIGHT, WIDTH), None, is_field=True)
    assert float(image.violet[pale.y, pale.x]) < image.threshold
    taught = teach(image, [_mark(CELL), _mark(pale)], UNIT)
    assert taught.is_known.tolist() == [True, True]
    assert common_share(taught.owners == 2, _whole(pale)) > 0.9


def test_a_mark_beyond_the_border_has_no_mask() -> None:
    taught = _taught([CELL], [Mark(WIDTH + 500, 20, Kind.SMUDGED), _mark(CELL)])
    assert taught.is_known.tolist() == [False, True]
    assert not taught.unsure.any()


def test_without_marks_nothing_is_a_cell_and_nothing_is_unsure() -> None:
    taught = _taught([CELL], [])
    assert taught.is_known.shape == (0,)
    assert not (taught.owners > 0).any()
    assert not taught.nuclei.any()
    assert not taught.unsure.any()
