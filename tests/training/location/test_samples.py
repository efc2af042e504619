"""Tests of samples: one scale and even light, marks on their cells, exact masks, crops with unmarked neighbours left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest

from services.common.phantom import Phantom, PhantomOptions, smear_field
from services.patching.locator_maps import Kind
from services.patching.working_image import BACKGROUND
from tests.training.location.drawn import Disk, common_share, disk, picture
from training.datasets.fields import TruthBox
from training.location.annotated import Annotated, Mark
from training.location.samples import RED_CELL_RADIUS, Sample, make_sample

CELL = Disk(80, 80, radius=30, nucleus=22)
NEIGHBOUR = Disk(160, 130, radius=26, nucleus=20)
RED_CELL = 18.0


@pytest.fixture(scope="module")
def field() -> Phantom:
    return smear_field(1, PhantomOptions(width=320, height=240, cells=4, cell_radius=18.0, platelets=3, light=0.4, touching=0.0, label=False))


def _annotated(phantom: Phantom, *, exact: bool = False, red_cell_radius: float | None = None) -> Annotated:
    marks = tuple(
        Mark(c.center_x, c.center_y, Kind.NUCLEATED, mask=phantom.mask == number if exact else None)
        for number, c in enumerate(phantom.cells, start=1)
    )
    return Annotated("field", "drawn", 2, phantom.image, marks, red_cell_radius=red_cell_radius)


def _made(image: Annotated) -> Sample:
    made = make_sample(image)
    assert made is not None
    return made


def _crop(cells: Sequence[Disk], marks: Sequence[Mark]) -> Annotated:
    return Annotated("crop", "drawn", 0, picture(cells, 160, 200), tuple(marks), red_cell_radius=RED_CELL, is_crop=True)


def _mark(cell: Disk) -> Mark:
    return Mark(cell.x, cell.y, cell.kind)


def test_red_cells_have_the_radius_of_samples(field: Phantom) -> None:
    radius = field.options.cell_radius / 1.2
    made = _made(_annotated(field, red_cell_radius=radius))
    assert made.pixels.shape == (round(240 * RED_CELL_RADIUS / radius), round(320 * RED_CELL_RADIUS / radius), 3)
    assert made.owners.shape == made.nuclei.shape == made.unsure.shape == made.pixels.shape[:2]


def test_where_the_scale_is_not_given_it_is_measured(field: Phantom) -> None:
    given, measured = _made(_annotated(field, red_cell_radius=field.options.cell_radius / 1.2)), _made(_annotated(field))
    assert measured.pixels.shape[1] == pytest.approx(given.pixels.shape[1], rel=0.15)


@pytest.mark.parametrize(("exact", "within"), [(True, 0.2), (False, 2.0)])
def test_marks_lie_in_the_middle_of_their_cells(field: Phantom, exact: bool, within: float) -> None:
    made = _made(_annotated(field, exact=exact))
    assert made.is_known.all()
    for index in range(len(field.cells)):
        rows, columns = np.nonzero(made.owners == index + 1)
        assert abs(columns.mean() - made.x[index]) < within
        assert abs(rows.mean() - made.y[index]) < within


def test_masks_lie_on_the_violet_of_the_sample(field: Phantom) -> None:
    made = _made(_annotated(field))
    green = made.pixels[..., 1].astype(float)
    assert green[made.nuclei].mean() < 0.6 * green[made.owners == 0].mean()


def test_a_large_image_gives_the_same_sample_as_a_small_one(field: Phantom) -> None:
    radius = field.options.cell_radius / 1.2
    large = np.asarray(cv2.resize(field.image, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC), np.uint8)
    marks = tuple(replace(m, x=4 * m.x + 1.5, y=4 * m.y + 1.5) for m in _annotated(field).marks)
    small = _made(_annotated(field, red_cell_radius=radius))
    made = _made(Annotated("large", "drawn", 0, large, marks, red_cell_radius=4 * radius))
    assert made.pixels.shape == small.pixels.shape
    np.testing.assert_allclose(made.x, small.x, atol=0.01)
    np.testing.assert_allclose(made.y, small.y, atol=0.01)
    for number in range(1, len(marks) + 1):
        assert common_share(made.owners == number, small.owners == number) > 0.9


def test_uneven_light_is_evened_out(field: Phantom) -> None:
    made = _made(_annotated(field))
    height, width = made.owners.shape
    quarters = [made.pixels[i * height // 2 :, j * width // 2 :][: height // 2, : width // 2] for i in (0, 1) for j in (0, 1)]
    assert all(abs(np.percentile(q, 90) - BACKGROUND) < 12 for q in quarters)
    before = [field.image[i * 120 : i * 120 + 120, j * 160 : j * 160 + 160] for i in (0, 1) for j in (0, 1)]
    assert np.ptp([np.percentile(q, 90) for q in before]) > 24


def test_exact_masks_are_taken_as_they_are(field: Phantom) -> None:
    made = _made(_annotated(field, exact=True))
    height, width = made.owners.shape
    exact = cv2.resize(field.mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    assert np.array_equal(made.owners, exact)
    assert made.is_known.all()
    assert not made.unsure.any()
    assert not made.nuclei_are_known


def test_exact_nuclei_are_known(field: Phantom) -> None:
    image = _annotated(field, exact=True)
    nuclei = [disk(m.x, m.y, 6, 240, 320) for m in image.marks]
    made = _made(replace(image, marks=tuple(replace(m, nucleus=n) for m, n in zip(image.marks, nuclei, strict=True))))
    assert made.nuclei_are_known
    assert np.count_nonzero(made.nuclei) == pytest.approx(sum(np.count_nonzero(n) for n in nuclei) * made.nuclei.size / (240 * 320), rel=0.1)


def test_where_one_mask_is_missing_all_are_measured(field: Phantom) -> None:
    image = _annotated(field, exact=True)
    made = _made(replace(image, marks=(replace(image.marks[0], mask=None), *image.marks[1:])))
    assert made.is_known.all()
    assert made.nuclei.any()


def test_platelets_need_no_masks(field: Phantom) -> None:
    image = _annotated(field, exact=True)
    made = _made(replace(image, marks=(Mark(5, 5, Kind.PLATELET), *image.marks)))
    assert made.is_known.tolist() == [False, *[True] * len(image.marks)]
    assert made.kinds.tolist() == [Kind.PLATELET, *[Kind.NUCLEATED] * len(image.marks)]
    assert not made.nuclei.any()


def test_boxes_are_brought_to_the_working_copy(field: Phantom) -> None:
    """A box that fits at the scale of the image still fits where the cell is measured at a quarter of it."""
    large = np.asarray(cv2.resize(field.image, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC), np.uint8)
    marks = []
    for number in range(1, len(field.cells) + 1):
        rows, columns = np.nonzero(field.mask == number)
        box = TruthBox(*(4.0 * v for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)))
        marks.append(Mark((box.left + box.right) / 2, (box.top + box.bottom) / 2, Kind.NUCLEATED, box))
    made = _made(Annotated("large", "drawn", 0, large, tuple(marks), red_cell_radius=4 * field.options.cell_radius / 1.2))
    assert made.is_known.all()
    assert not made.unsure.any()


def test_a_crop_with_an_unmarked_violet_neighbour_is_left_out() -> None:
    assert make_sample(_crop([CELL, NEIGHBOUR], [_mark(CELL)])) is None
    assert make_sample(_crop([CELL, NEIGHBOUR], [_mark(CELL), _mark(NEIGHBOUR)])) is not None
    assert make_sample(_crop([CELL], [_mark(CELL)])) is not None


def test_a_platelet_beside_the_cell_leaves_no_crop_out() -> None:
    assert make_sample(_crop([CELL, Disk(160, 130, radius=8, nucleus=6)], [_mark(CELL)])) is not None


def test_a_field_may_show_what_is_not_marked() -> None:
    assert make_sample(replace(_crop([CELL, NEIGHBOUR], [_mark(CELL)]), is_crop=False)) is not None


def test_without_red_cells_the_scale_is_unknown() -> None:
    empty = Annotated("empty", "drawn", 0, picture([], 160, 200), ())
    assert make_sample(empty) is None
    assert make_sample(replace(empty, red_cell_radius=RED_CELL)) is not None


def test_the_facts_of_the_image_are_kept(field: Phantom) -> None:
    made = _made(replace(_annotated(field), platelets_are_marked=True))
    assert (made.key, made.source, made.fold, made.platelets_are_marked, made.nuclei_are_known) == ("field", "drawn", 2, True, True)
    for array, kind in ((made.owners, "int16"), (made.x, "float32"), (made.y, "float32"), (made.kinds, "int8")):
        assert array.dtype.name == kind
