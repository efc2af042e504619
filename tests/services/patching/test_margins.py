"""Margins around a picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from dl4all.imaging.v1 import imaging_pb2
from services.common.image_codec import decode_image
from services.common.phantom import CellKind, PhantomOptions, single_cell, smear_field
from services.patching.locating import run
from services.patching.margins import Box, picture_box
from services.patching.servicer import _locate, _Located
from tests.services.patching.drawn_maps import no_network
from training.datasets.fields import read_chula_fields

Bytes = NDArray[np.uint8]
Sides = tuple[int, int, int, int]
FIELD = smear_field(4, PhantomOptions(width=640, height=480, cells=5, light=0.4, brightness=0.8, label=False)).image
_KIND = imaging_pb2.ImageKind


def _framed(image: Bytes, sides: Sides, grey: int) -> Bytes:
    """The image with margins: left, top, right, bottom, px."""
    left, top, right, bottom = sides
    return np.asarray(cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(grey, grey, grey)), np.uint8)


def _within(image: Bytes, sides: Sides) -> Box:
    left, top = sides[:2]
    return Box(left, top, left + image.shape[1], top + image.shape[0])


def _whole(image: Bytes) -> Box:
    return _within(image, (0, 0, 0, 0))


@pytest.mark.parametrize("grey", [255, 128, 0])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("sides", [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize("quality", [None, 80])
def test_the_picture_within_margins(grey: int, share: float, sides: Sides, quality: int | None) -> None:
    left, top, right, bottom = (round(share * 640) * side for side in sides)
    framed = _framed(FIELD, (left, top, right, bottom), grey)
    if quality:
        framed = np.asarray(cv2.imdecode(cv2.imencode(".jpg", framed, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR), np.uint8)
    found, expected = picture_box(framed), _within(FIELD, (left, top, right, bottom))
    blocks = 0 if quality is None else 8
    assert all(
        abs(a - b) <= blocks
        for a, b in zip((*found.origin, found.right, found.bottom), (*expected.origin, expected.right, expected.bottom), strict=True)
    )


def test_margins_of_two_colours() -> None:
    framed = _framed(_framed(FIELD, (40, 0, 0, 0), 255), (0, 30, 0, 30), 0)
    assert picture_box(framed) == _within(FIELD, (40, 30, 0, 30))


@pytest.mark.parametrize("seed", range(6))
def test_a_field_has_no_margin(seed: int) -> None:
    image = smear_field(seed, PhantomOptions(width=640, height=480, cells=seed, red_cell_density=0.05 * seed)).image
    assert picture_box(image) == _whole(image)


def test_the_black_around_one_cell_is_no_margin() -> None:
    image = single_cell(3, CellKind.LYMPHOCYTE).image.copy()
    rows, columns = np.indices(image.shape[:2])
    middle = np.array(image.shape[:2]) / 2
    image[np.hypot(rows - middle[0], columns - middle[1]) > 0.3 * image.shape[0]] = 0
    assert picture_box(image) == _whole(image)


def test_saturated_background_is_no_margin() -> None:
    image = np.full((300, 400, 3), 255, np.uint8)
    cv2.circle(image, (200, 150), 40, (120, 60, 160), -1)
    cv2.circle(image, (60, 60), 25, (220, 150, 150), -1)
    assert picture_box(image) == _whole(image)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("split", [40, 100, 160])
def test_an_image_of_two_colours_keeps_one(split: int) -> None:
    image = np.full((200, 300, 3), 230, np.uint8)
    image[:split] = 200
    assert picture_box(image) == Box(0, split, 300, 200)


@given(arrays.arrays(np.uint8, st.tuples(st.integers(32, 80), st.integers(32, 80), st.just(3)), elements=st.sampled_from([0, 128, 255])))
def test_a_picture_keeps_its_least_size(image: Bytes) -> None:
    box = picture_box(image)
    assert 0 <= box.left <= box.right - 32 <= image.shape[1] - 32
    assert 0 <= box.top <= box.bottom - 32 <= image.shape[0] - 32


def _same_but_moved(image: Bytes, sides: Sides, grey: int) -> None:
    alone, framed = (_located(_encode(i)) for i in (image, _framed(image, sides, grey)))
    assert framed.box == _within(image, sides)
    assert framed.cells == alone.cells
    assert (framed.exposure, framed.kind, framed.found) == (alone.exposure, alone.kind, alone.found)
    assert framed.blur == alone.blur or (np.isnan(framed.blur) and np.isnan(alone.blur))


def _located(encoded: bytes) -> _Located:
    return run(_locate(encoded, _KIND.IMAGE_KIND_UNSPECIFIED, None, learned=False), no_network)


def _encode(image: Bytes) -> bytes:
    """As PNG."""
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


@pytest.mark.parametrize("grey", [255, 128, 0])
@pytest.mark.parametrize("sides", [(13, 0, 0, 0), (0, 0, 0, 96), (192, 192, 192, 192)])
def test_cells_are_found_as_without_margins(sides: Sides, grey: int) -> None:
    assert len(_located(_encode(FIELD)).cells) >= 4
    _same_but_moved(FIELD, sides, grey)


@pytest.mark.slow
@pytest.mark.parametrize("grey", [255, 0])
def test_cells_of_real_fields_are_found_as_without_margins(shared_data: Path, grey: int) -> None:
    for field in read_chula_fields(shared_data / "chula_fields")[:4]:
        image = decode_image(field.path.read_bytes()).pixels
        for share in (0.02, 0.3):
            margin = round(share * image.shape[1])
            _same_but_moved(image, (margin, margin, margin, margin), grey)
