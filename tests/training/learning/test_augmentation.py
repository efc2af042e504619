"""Tests of augmentation."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from training.learning.augmentation import augment
from training.recipes.config import Augmentation

NOTHING = Augmentation(flips=False)
ALL = Augmentation(flips=True, rotation=180, scale=0.15, shift=0.04, stain=0.2, light=0.05, blur=1.2, noise=0.02)


@pytest.fixture
def crops() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (24, 33, 33, 3), np.uint8)


def test_nothing_changes_nothing(crops: np.ndarray) -> None:
    np.testing.assert_array_equal(augment(crops, NOTHING, (0,)), crops)


def test_flips_move_pixels_and_change_none(crops: np.ndarray) -> None:
    seen = set()
    for crop, flipped in zip(crops, augment(crops, Augmentation(), (1,)), strict=True):
        same = [k for k, f in enumerate((crop, crop[::-1], crop[:, ::-1], crop[::-1, ::-1])) if np.array_equal(f, flipped)]
        assert len(same) == 1
        seen.add(same[0])
    assert seen == {0, 1, 2, 3}


def test_the_seed_alone_decides(crops: np.ndarray) -> None:
    first = augment(crops, ALL, (3, 4))
    with ThreadPoolExecutor(4) as pool:
        np.testing.assert_array_equal(augment(crops, ALL, (3, 4), pool), first)
    assert not np.array_equal(augment(crops, ALL, (3, 5)), first)
    assert not np.array_equal(first, crops)


def test_the_crops_that_are_given_stay(crops: np.ndarray) -> None:
    before = crops.copy()
    augment(crops, ALL, (0,))
    np.testing.assert_array_equal(crops, before)


def test_stain_changes_a_pixel_by_its_value_only() -> None:
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (256, 256, 3))[None].copy()
    changed = augment(ramp, Augmentation(flips=False, stain=0.3), (2,))[0]
    assert (changed == changed[:, :1]).all()
    for channel in range(3):
        column = changed[:, 0, channel].astype(float)
        assert (np.diff(column) >= 0).all()
        assert column[255] == 255
        strengths = np.log(column[60:200] / 255) / np.log(np.arange(60, 200) / 255)
        assert np.ptp(strengths) < 0.05
        assert 0.5 < strengths.mean() < 1.7


def test_noise_has_the_deviation_that_was_asked_for() -> None:
    grey = np.full((64, 64, 64, 3), 128, np.uint8)
    noise = augment(grey, Augmentation(flips=False, noise=0.1), (0,)).astype(float) - 128
    deviations = noise.std(axis=(1, 2, 3)) / 255
    assert 0.09 < deviations.max() <= 0.105
    assert deviations.min() < 0.02
    assert abs(noise.mean()) < 1


def test_a_quarter_turn_about_the_centre() -> None:
    """A rotation keeps the centre and the distance from it."""
    crop = np.zeros((1, 65, 65, 3), np.uint8)
    crop[0, 32, 32] = 255
    assert augment(crop, Augmentation(flips=True, rotation=180), (5,))[0, 32, 32].min() > 200


def test_more_pixels_than_the_table_of_noise() -> None:
    large = np.full((1, 700, 700, 3), 100, np.uint8)
    assert augment(large, Augmentation(flips=False, noise=0.1), (1,)).std() > 0


def test_a_black_border_is_torchvisions() -> None:
    white = np.full((8, 33, 33, 3), 255, np.uint8)
    turned = augment(white, Augmentation(flips=False, rotation=45, black_border=True), (3,))
    assert set(np.unique(turned)) == {0, 255}
    assert (augment(white, Augmentation(flips=False, rotation=45), (3,)) == 255).all()
