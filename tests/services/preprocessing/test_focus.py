"""Tests of the focus score and of its kernel."""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from services.common.errors import InvalidImageError
from services.common.phantom import CellKind, single_cell
from services.preprocessing.focus import HALF_KERNEL, MAX_SCORE, MIN_SIDE, focus_score
from services.preprocessing.focus_kernel import HALF_WIDTH, solve_kernel
from tests.plain_unsharpening import plain_focus_score

Bytes = NDArray[np.uint8]
KERNEL = np.array([*HALF_KERNEL[:0:-1], *HALF_KERNEL])


def _response(omega: float) -> float:
    return float((KERNEL * np.cos(omega * np.arange(-HALF_WIDTH, HALF_WIDTH + 1))).sum())


def _noise(seed: int, height: int = 96, width: int = 96) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def _cell(seed: int, side: int = 160, kind: CellKind = CellKind.BLAST) -> Bytes:
    return single_cell(seed, kind, side=side, cell_radius=0.16 * side).image


def _sparse(dots: int, faint: int, seed: int = 0) -> Bytes:
    """Faint noise with some strong dots: few responses are strong, so that a larger share of them is kept."""
    generator = np.random.default_rng(seed)
    grey = generator.integers(128 - faint, 129 + faint, (96, 96))
    grey.ravel()[generator.choice(grey.size, dots, replace=False)] = 255
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)


def test_kernel_is_the_solution_of_its_definition() -> None:
    np.testing.assert_allclose(HALF_KERNEL, solve_kernel(), rtol=0, atol=1e-12)


def test_kernel_does_not_answer_to_brightness() -> None:
    assert abs(KERNEL.sum()) < 1e-12


@pytest.mark.parametrize(
    ("omega", "expected"),
    [
        (0.0, 0.0),
        (math.pi / 4, 0.6196),
        (3 * math.pi / 8, 1.0115),
        (math.pi / 2, 0.1589),
        (5 * math.pi / 8, 0.0003),
        (3 * math.pi / 4, 0.0),
        (math.pi, 0.0),
    ],
)
def test_frequency_response(omega: float, expected: float) -> None:
    assert _response(omega) == pytest.approx(expected, abs=1e-3)


def test_response_near_zero_is_the_second_derivative() -> None:
    assert _response(0.05) / 0.05**2 == pytest.approx(1.19, abs=0.01)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "expected"),
    [("B-30_0047", 10.7876), ("B-30_0058", 10.6292), ("B-57_0017", 10.4219), ("B-57_0018", 10.2559), ("B-59_0179", 9.6498), ("B-59_0180", 9.5600)],
)
def test_golden_scores_of_the_original_program(shared_data: Path, name: str, expected: float) -> None:
    (path,) = (shared_data / "chula_fields").rglob(f"{name}.[jp][pn]g")
    crop = np.asarray(Image.open(path).convert("RGB"))[300:556, 500:756]
    assert focus_score(crop) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    "image", [_noise(1), _noise(2, 64, 120), _cell(3), _cell(4, 97, CellKind.LYMPHOCYTE), cv2.GaussianBlur(_cell(5), (0, 0), 2.0)]
)
def test_score_agrees_with_a_plain_implementation(image: Bytes) -> None:
    assert focus_score(image) == pytest.approx(plain_focus_score(image), abs=0.005)


@pytest.mark.parametrize("ground", [0, 255])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_score_beside_flat_ground_agrees_with_a_plain_implementation(ground: int, share: float) -> None:
    image = cv2.GaussianBlur(_cell(6), (0, 0), 1.0)
    image[:, : round(share * image.shape[1])] = ground
    assert focus_score(np.asarray(image, np.uint8)) == pytest.approx(plain_focus_score(np.asarray(image, np.uint8)), abs=0.005)


@pytest.mark.parametrize("faint", [1, 2, 3, 4])
@pytest.mark.parametrize("dots", [20, 60, 120])
def test_score_of_sparse_images_agrees_with_a_plain_implementation(dots: int, faint: int) -> None:
    image = _sparse(dots, faint)
    assert focus_score(image) == pytest.approx(plain_focus_score(image), abs=0.005)


@pytest.mark.shared_data
def test_score_of_real_crops_agrees_with_a_plain_implementation(shared_data: Path) -> None:
    paths = sorted((shared_data / "aml_cells").rglob("*.jp*g"))[::100]
    assert len(paths) > 60
    crops = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    assert max(abs(focus_score(crop) - plain_focus_score(crop)) for crop in crops) < 0.005


@pytest.mark.parametrize("seed", range(3))
def test_blur_raises_the_score(seed: int) -> None:
    scores = [focus_score(_cell(seed))] + [focus_score(cast(Bytes, cv2.GaussianBlur(_cell(seed), (0, 0), sigma))) for sigma in (1.0, 2.0, 4.0)]
    assert scores == sorted(scores)
    assert scores[-1] > scores[0] + 1


@pytest.mark.parametrize("image", [_noise(7, 64, 90), _cell(8, 150)])
def test_flips_and_turns_leave_the_score(image: Bytes) -> None:
    score = focus_score(image)
    turned = [image[::-1], image[:, ::-1], np.rot90(image), np.rot90(image, 2), image.transpose(1, 0, 2)]
    assert [focus_score(np.ascontiguousarray(t)) for t in turned] == pytest.approx([score] * 5, abs=1e-4)


def test_views_are_scored_like_copies() -> None:
    image = _cell(9, 150)
    assert focus_score(image[10:120, 5:130]) == focus_score(image[10:120, 5:130].copy())


@pytest.mark.parametrize("value", range(0, 256, 5))
def test_a_flat_image_has_the_highest_score(value: int) -> None:
    assert focus_score(np.full((40, 50, 3), value, np.uint8)) == MAX_SCORE


@pytest.mark.parametrize("axis", [0, 1])
def test_stripes_in_one_direction_have_a_score(axis: int) -> None:
    stripes = np.repeat(np.where(np.indices((64, 64))[axis] % 8 < 4, 60, 200)[..., None], 3, axis=2).astype(np.uint8)
    assert 0 < focus_score(stripes) <= MAX_SCORE


@pytest.mark.parametrize(("height", "width"), [(MIN_SIDE - 1, 100), (100, MIN_SIDE - 1), (1, 1)])
def test_small_images_are_refused(height: int, width: int) -> None:
    with pytest.raises(InvalidImageError) as caught:
        focus_score(_noise(0, height, width))
    assert caught.value.reason == "IMAGE_TOO_SMALL"


def test_the_smallest_image_is_scored() -> None:
    assert 0 < focus_score(_noise(0, MIN_SIDE, MIN_SIDE)) < MAX_SCORE
