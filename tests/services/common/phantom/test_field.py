"""Tests of the drawn blood-smear phantoms."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections import Counter
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from services.common.image_codec import PHANTOM_TEXT_KEY
from services.common.phantom import (
    DEFAULT_CROP,
    CellKind,
    Phantom,
    PhantomOptions,
    encode_png,
    single_cell,
    smear_field,
)

pytestmark = pytest.mark.slow

SMALL = PhantomOptions(width=640, height=480, cells=6, cell_radius=24.0, label=False)
BARE = dataclasses.replace(SMALL, red_cell_density=0.0, platelets=0, blur_sigma=0.0, light=0.0, noise=0.0, touching=0.0)


def _with(options: PhantomOptions, **changes: Any) -> PhantomOptions:
    return dataclasses.replace(options, **changes)


def _grey(phantom: Phantom) -> NDArray[np.float64]:
    return np.asarray(phantom.image.mean(axis=2), dtype=np.float64)


def _nucleus(phantom: Phantom) -> NDArray[np.bool_]:
    """Pixels within half the nucleus radius of the centres; only for kinds with a central nucleus."""
    rows, columns = np.indices(phantom.mask.shape)
    near = np.zeros(phantom.mask.shape, dtype=np.bool_)
    for cell in phantom.cells:
        near |= np.hypot(columns - cell.center_x, rows - cell.center_y) < 0.5 * cell.nucleus_radius
    return near


def _label_box(seed: int, options: PhantomOptions) -> tuple[Phantom, Phantom, tuple[slice, slice]]:
    """A labelled field, its unlabelled twin and the box in which they differ."""
    plain, labelled = (smear_field(seed, _with(options, label=label)) for label in (False, True))
    changed = (plain.image != labelled.image).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    return plain, labelled, (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))


def test_same_seed_and_options_give_the_same_bytes() -> None:
    assert encode_png(smear_field(3, SMALL)) == encode_png(smear_field(3, SMALL))
    assert encode_png(single_cell(3, CellKind.BLAST)) == encode_png(single_cell(3, CellKind.BLAST))


def test_another_seed_gives_another_drawing() -> None:
    first, second = smear_field(3, SMALL), smear_field(4, SMALL)
    assert first.cells != second.cells
    assert (first.image != second.image).mean() > 0.5


@pytest.mark.parametrize("seed", range(4))
def test_truth_is_measured_from_the_mask(seed: int) -> None:
    phantom = smear_field(seed, SMALL)
    assert phantom.mask.max() == len(phantom.cells)
    for number, cell in enumerate(phantom.cells, start=1):
        rows, columns = np.nonzero(phantom.mask == number)
        assert cell.radius == pytest.approx(math.sqrt(rows.size / math.pi), abs=1e-9)
        assert (cell.center_x, cell.center_y) == pytest.approx((columns.mean(), rows.mean()), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_mask_is_what_was_drawn(seed: int) -> None:
    phantom = smear_field(seed, BARE)
    background = np.median(phantom.image.reshape(-1, 3), axis=0)
    drawn = np.abs(phantom.image - background).max(axis=2) > 10
    inside = phantom.mask > 0
    rim = cv2.dilate(inside.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert not (drawn & ~rim).any()
    vacuoles = 0.02
    assert (drawn & inside).sum() > (1 - vacuoles) * inside.sum()


@pytest.mark.parametrize("kind", [CellKind.LYMPHOCYTE, CellKind.BLAST])
def test_nucleus_radius_is_what_was_drawn(kind: CellKind) -> None:
    phantom = smear_field(5, _with(BARE, kinds=(kind,)))
    for number, cell in enumerate(phantom.cells, start=1):
        red = phantom.image[..., 0][phantom.mask == number]
        limit = {CellKind.LYMPHOCYTE: 125, CellKind.BLAST: 145}[kind]
        drawn = math.sqrt(np.count_nonzero(red < limit) / math.pi)
        assert drawn == pytest.approx(cell.nucleus_radius, rel=0.08)


@pytest.mark.parametrize("seed", range(6))
def test_cells_are_whole_apart_and_inside(seed: int) -> None:
    phantom = smear_field(seed, _with(SMALL, cells=9, touching=0.6))
    for edge in (phantom.mask[0], phantom.mask[-1], phantom.mask[:, 0], phantom.mask[:, -1]):
        assert not edge.any()
    for number, cell in enumerate(phantom.cells, start=1):
        own = (phantom.mask == number).astype(np.uint8)
        assert cv2.connectedComponents(own, connectivity=4)[0] == 2
        assert own.sum() == round(math.pi * cell.radius**2)


def test_cells_are_ordered_and_mask_is_numbered_like_them() -> None:
    phantom = smear_field(2, SMALL)
    for number, cell in enumerate(phantom.cells, start=1):
        assert phantom.mask[round(cell.center_y), round(cell.center_x)] == number
    tops = [cell.center_y for cell in phantom.cells]
    assert tops == sorted(tops)


@pytest.mark.parametrize("cells", [0, 1, 7, 12])
def test_count_and_kinds_are_as_requested(cells: int) -> None:
    kinds = (CellKind.BLAST, CellKind.LYMPHOCYTE, CellKind.NEUTROPHIL)
    phantom = smear_field(1, _with(SMALL, cells=cells, kinds=kinds, cell_radius=20.0))
    found = Counter(cell.kind for cell in phantom.cells)
    assert sum(found.values()) == cells
    assert set(found) <= set(kinds)
    assert max(found[kind] for kind in kinds) - min(found[kind] for kind in kinds) <= 1


def test_kinds_have_their_sizes() -> None:
    def median(kind: CellKind) -> float:
        options = _with(BARE, kinds=(kind,), cells=12, cell_radius=20.0)
        return float(np.median([cell.radius for cell in smear_field(8, options).cells]))

    assert median(CellKind.LYMPHOCYTE) == pytest.approx(20.0, rel=0.08)
    assert median(CellKind.NEUTROPHIL) == pytest.approx(25.0, rel=0.08)
    assert median(CellKind.MONOCYTE) == pytest.approx(30.0, rel=0.08)
    assert median(CellKind.EOSINOPHIL) == pytest.approx(26.0, rel=0.08)
    assert median(CellKind.BLAST) == pytest.approx(30.0, rel=0.08)


def test_nucleus_fills_more_of_a_blast_than_of_a_neutrophil() -> None:
    def share(kind: CellKind) -> float:
        return float(np.mean([cell.nucleus_radius / cell.radius for s in range(5) for cell in single_cell(s, kind).cells]))

    assert share(CellKind.BLAST) > 0.75
    assert share(CellKind.NEUTROPHIL) < 0.7


@pytest.mark.parametrize("kind", list(CellKind))
def test_single_cell_is_near_the_centre(kind: CellKind) -> None:
    phantom = single_cell(4, kind)
    (cell,) = phantom.cells
    assert phantom.image.shape == (264, 264, 3)
    assert phantom.image.dtype == np.uint8
    assert phantom.mask.dtype == np.uint16
    assert cell.kind is kind
    assert math.hypot(cell.center_x - 131.5, cell.center_y - 131.5) < 14
    assert phantom.options == _with(DEFAULT_CROP, kinds=(kind,))


def test_single_cell_keeps_the_optical_options() -> None:
    options = _with(DEFAULT_CROP, noise=0.0, blur_sigma=2.0)
    phantom = single_cell(4, CellKind.MONOCYTE, side=200, cell_radius=30.0, options=options)
    assert phantom.image.shape == (200, 200, 3)
    assert (phantom.options.noise, phantom.options.blur_sigma) == (0.0, 2.0)
    assert 35 < phantom.cells[0].radius < 56


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 10),
        ("height", 100_000),
        ("width", 640.5),
        ("cells", -1),
        ("cell_radius", 0.0),
        ("cell_radius", math.nan),
        ("red_cell_density", 0.95),
        ("platelets", -3),
        ("blur_sigma", -0.1),
        ("stain", 0.5),
        ("stain", 1.6),
        ("stain_hue", -1.1),
        ("light", 0.6),
        ("brightness", 1.3),
        ("noise", -1.0),
        ("touching", 1.01),
        ("kinds", ()),
        ("kinds", ("blast",)),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{field} must .*\.$"):
        _with(SMALL, **{field: value})


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed"):
        smear_field(-1, SMALL)


@pytest.mark.parametrize("cells", [40, 1000])
def test_too_many_cells_are_refused(cells: int) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        smear_field(1, _with(SMALL, width=200, height=200, cells=cells))


def test_a_cell_larger_than_the_crop_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        single_cell(1, CellKind.BLAST, side=100)


@pytest.mark.parametrize(
    "changes",
    [{"blur_sigma": 3.0}, {"noise": 9.0}, {"stain": 1.4}, {"light": 0.5}, {"label": True}, {"platelets": 0}],
)
def test_imaging_never_moves_a_cell(changes: dict[str, Any]) -> None:
    plain, changed = smear_field(6, SMALL), smear_field(6, _with(SMALL, **changes))
    assert plain.cells == changed.cells
    assert np.array_equal(plain.mask, changed.mask)
    assert not np.array_equal(plain.image, changed.image)


def test_blur_lowers_gradient_energy() -> None:
    def energy(sigma: float) -> float:
        rows, columns = np.gradient(_grey(smear_field(6, _with(SMALL, noise=0.0, blur_sigma=sigma))))
        return float((rows**2 + columns**2).mean())

    sharp, medium, soft = energy(0.0), energy(0.8), energy(2.5)
    assert sharp > 1.2 * medium
    assert medium > 1.5 * soft


def test_stain_darkens_nuclei() -> None:
    def darkness(stain: float) -> float:
        phantom = smear_field(6, _with(BARE, kinds=(CellKind.BLAST, CellKind.LYMPHOCYTE), stain=stain))
        return float(_grey(phantom)[_nucleus(phantom)].mean())

    weak, usual, strong = darkness(0.6), darkness(1.0), darkness(1.5)
    assert weak > usual + 15
    assert usual > strong + 10


def test_stain_hue_shifts_nuclei_from_pink_to_blue() -> None:
    def colour(hue: float) -> tuple[float, float]:
        phantom = smear_field(6, _with(BARE, kinds=(CellKind.BLAST,), stain_hue=hue))
        red, _, blue = phantom.image[_nucleus(phantom)].astype(float).mean(axis=0)
        return float(red), float(blue)

    (pink_red, pink_blue), (red, blue), (blue_red, blue_blue) = (colour(hue) for hue in (-1.0, 0.0, 1.0))
    assert pink_red > red + 5 > blue_red + 10
    assert pink_blue < blue - 5 < blue_blue - 10


def test_light_and_brightness_shape_the_background() -> None:
    flat, uneven = (smear_field(6, _with(BARE, cells=0, light=light)) for light in (0.0, 0.5))
    assert float(np.ptp(_grey(flat))) == 0.0
    assert float(np.ptp(_grey(uneven))) > 60
    dim = smear_field(6, _with(BARE, cells=0, brightness=0.7))
    assert _grey(dim).mean() == pytest.approx(0.7 * _grey(flat).mean(), abs=1.0)


def test_noise_has_the_requested_standard_deviation() -> None:
    options = _with(BARE, cells=0, brightness=0.7)
    noisy = smear_field(6, _with(options, noise=4.0)).image.astype(float)
    assert (noisy - smear_field(6, options).image).std() == pytest.approx(4.0, abs=0.1)


@pytest.mark.parametrize("density", [0.1, 0.4])
def test_red_cells_cover_the_requested_fraction(density: float) -> None:
    options = _with(BARE, cells=0, red_cell_density=density)
    phantom = smear_field(6, options)
    covered = phantom.image[..., 1] < 215
    assert covered.mean() == pytest.approx(density, abs=0.03)


def test_only_touched_cells_meet_red_cells() -> None:
    for touching in (0.0, 1.0):
        options = _with(DEFAULT_CROP, blur_sigma=0.0, noise=0.0, platelets=0, touching=touching, label=False)
        for seed in range(3):
            alone = single_cell(seed, CellKind.NEUTROPHIL, options=_with(options, red_cell_density=0.0))
            among = single_cell(seed, CellKind.NEUTROPHIL, options=options)
            met = (alone.image != among.image).any(axis=2) & (alone.mask > 0)
            assert met.any() == (touching == 1.0)


def test_touching_white_cells_meet_without_red_cells() -> None:
    phantom = smear_field(6, _with(BARE, touching=1.0))
    grown = [cv2.dilate((phantom.mask == number).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0 for number in range(1, len(phantom.cells) + 1)]
    meets = [any((a & b).any() for b in grown if b is not a) for a in grown]
    assert all(meets)


def test_white_cells_stand_apart_when_none_may_touch() -> None:
    phantom = smear_field(6, BARE)
    grown = cv2.dilate((phantom.mask > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
    assert cv2.connectedComponents(grown)[0] - 1 == len(phantom.cells)


def test_platelets_are_drawn_outside_white_cells() -> None:
    without, with_them = (smear_field(6, _with(BARE, platelets=count)) for count in (0, 15))
    changed = (without.image != with_them.image).any(axis=2)
    assert not changed[without.mask > 0].any()
    closed = cv2.morphologyEx(changed.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    assert 8 <= cv2.connectedComponents(closed)[0] - 1 <= 15


def test_png_holds_the_image_and_the_truth() -> None:
    phantom = smear_field(9, SMALL)
    with Image.open(io.BytesIO(encode_png(phantom))) as png:
        assert png.format == "PNG"
        assert png.mode == "RGB"
        assert np.array_equal(np.asarray(png), phantom.image)
        truth = json.loads(png.info[PHANTOM_TEXT_KEY])
    assert truth["seed"] == 9
    options = {**truth["options"], "kinds": tuple(CellKind(kind) for kind in truth["options"]["kinds"])}
    assert PhantomOptions(**options) == SMALL
    assert truth["cells"] == [dataclasses.asdict(cell) for cell in phantom.cells]
    assert truth["cells"][0]["kind"] in list(CellKind)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (264, 264), (1024, 768)])
def test_label_is_neutral_legible_and_clear_of_white_cells(width: int, height: int) -> None:
    options = _with(SMALL, width=width, height=height, cells=3)
    plain, labelled, box = _label_box(7, options)
    pixels = labelled.image[box].astype(int)
    assert int(np.ptp(pixels, axis=2).max()) <= 3
    assert pixels.min() < 80
    assert pixels.max() > 200
    assert box[0].stop == height
    assert 10 <= box[0].stop - box[0].start <= 0.08 * height
    assert not labelled.mask[box].any()
    assert np.array_equal(plain.mask, labelled.mask)


@pytest.mark.parametrize("seed", range(5))
def test_white_cells_stay_above_the_label(seed: int) -> None:
    options = _with(BARE, width=200, height=110, cells=3, cell_radius=16.0)
    _, labelled, box = _label_box(seed, options)
    assert not labelled.mask[box[0]].any()


def test_label_names_the_seed_only_where_there_is_room() -> None:
    _, field, box = _label_box(7, SMALL)
    crop = _label_box(7, _with(SMALL, width=264, height=264, cells=1))[2][1]
    assert box[1].stop - box[1].start > 180
    assert crop.stop - crop.start < 100
    plate = (box[0], slice(box[1].start, box[1].stop - 4))
    other = smear_field(8, _with(SMALL, label=True))
    written = (field.image[plate] != other.image[plate]).any(axis=(0, 2))
    assert written.any()
    assert not written[: written.size // 2].any()


def test_arrays_are_read_only() -> None:
    phantom = single_cell(1, CellKind.LYMPHOCYTE)
    with pytest.raises(ValueError, match="read-only"):
        phantom.image[0, 0] = 0
    with pytest.raises(ValueError, match="read-only"):
        phantom.mask[0, 0] = 1
