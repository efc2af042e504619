"""Tests of random windows: labels stay on the pixels, nothing but background lies beyond the border, sources come by their shares."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.patching.locator_maps import Kind
from services.patching.working_image import BACKGROUND
from tests.training.location.drawn import Disk, sample
from training.location.samples import RED_CELL_RADIUS, Sample
from training.location.window import Window
from training.location.windows import Changes, Draws, cut

SIDE = 64
CELLS = (Disk(40, 50), Disk(150, 60, radius=16, nucleus=10), Disk(90, 120), Disk(170, 130, kind=Kind.SMUDGED))
SAME = Changes(smallest=12.0, largest=12.0, stain=0.0, hue=0.0, light=0.0, blur=0.0, noise=0.0, crowded=0.0)
"""Windows at the scale of the sample, with its colours."""


@pytest.fixture(scope="module")
def one() -> Sample:
    return sample([*CELLS, Disk(20, 20, radius=4, nucleus=3, kind=Kind.PLATELET)], 160, 200)


def _many(samples: list[Sample], changes: Changes, count: int = 40, **shares: float) -> list[Window]:
    draws, rng = Draws(samples, shares or {"drawn": 1.0}, changes, SIDE), np.random.default_rng(1)
    return [draws.window(rng) for _ in range(count)]


def _shown(window: Window) -> list[int]:
    """Known cells that are whole in the window."""
    counts = np.bincount(window.owners.ravel(), minlength=len(window.x) + 1)[1:]
    return [i for i in range(len(window.x)) if window.areas[i] > 0 and counts[i] >= 0.97 * window.areas[i]]


def test_a_window_of_the_same_scale_is_a_part_of_the_sample(one: Sample) -> None:
    window = cut(one, 20, 30, SIDE, 1.0)
    part = np.s_[30 : 30 + SIDE, 20 : 20 + SIDE]
    assert np.abs(window.pixels.astype(int) - one.pixels[part]).max() <= 4
    assert np.array_equal(window.owners, one.owners[part])
    assert np.array_equal(window.nuclei, one.nuclei[part])
    assert np.array_equal(window.unsure, one.unsure[part])
    np.testing.assert_allclose(window.x, one.x - 20)
    np.testing.assert_allclose(window.y, one.y - 30)
    assert window.areas.tolist() == [np.count_nonzero(one.owners == i) for i in range(1, len(one.x) + 1)]
    assert window.red_cell_radius == RED_CELL_RADIUS


def test_a_window_of_another_scale_shows_smaller_cells(one: Sample) -> None:
    window = cut(one, 0, 0, SIDE, 1.5)
    assert window.red_cell_radius == pytest.approx(8.0)
    rows, columns = np.nonzero(window.owners == 1)
    assert rows.size == pytest.approx(float(window.areas[0]), rel=0.05)
    assert window.areas[0] == pytest.approx(np.count_nonzero(one.owners == 1) / 1.5**2)
    assert abs(columns.mean() - window.x[0]) < 0.4
    assert abs(rows.mean() - window.y[0]) < 0.4
    assert window.x[0] == pytest.approx((40 + 0.5) / 1.5 - 0.5)


def test_a_smaller_scale_averages_pixels(one: Sample) -> None:
    noise = np.random.default_rng(0).integers(0, 256, one.pixels.shape, np.uint8)
    window = cut(replace(one, pixels=noise), 5, 5, 48, 3.0)
    assert window.pixels.std() < 0.5 * noise.std()


def test_beyond_the_border_is_background_without_labels(one: Sample) -> None:
    everywhere = replace(one, owners=np.ones_like(one.owners), nuclei=np.ones_like(one.nuclei), unsure=np.ones_like(one.unsure))
    window = cut(replace(everywhere, pixels=np.full_like(one.pixels, 50)), -32, 140, SIDE, 1.0)
    beyond = np.ones((SIDE, SIDE), bool)
    beyond[:20, 32:] = False
    assert (window.pixels[beyond] == BACKGROUND).all()
    assert (window.pixels[~beyond] == 50).all()
    for labels in (window.owners > 0, window.nuclei, window.unsure):
        assert np.array_equal(labels, ~beyond)


def test_the_same_generator_gives_the_same_windows(one: Sample) -> None:
    for first, second in zip(_many([one], Changes(), 6), _many([one], Changes(), 6), strict=True):
        for name in ("pixels", "owners", "nuclei", "unsure", "x", "y", "kinds", "areas"):
            assert np.array_equal(getattr(first, name), getattr(second, name)), name
    first, second = _many([one], Changes(), 2)
    assert not np.array_equal(first.pixels, second.pixels)


def test_labels_and_marks_stay_on_turned_pixels(one: Sample) -> None:
    checked = 0
    for window in _many([one], replace(SAME, smallest=6.0, largest=10.5), 60):
        green = window.pixels[..., 1]
        assert window.pixels.shape == (SIDE, SIDE, 3)
        for index in _shown(window):
            checked += 1
            rows, columns = np.nonzero(window.owners == index + 1)
            assert abs(columns.mean() - window.x[index]) < 0.6
            assert abs(rows.mean() - window.y[index]) < 0.6
            assert green[window.nuclei & (window.owners == index + 1)].mean() < 120
        assert green[~window.nuclei & (window.owners == 0)].mean() > 200
    assert checked > 40


def test_windows_are_turned_and_mirrored_in_all_eight_ways() -> None:
    three = sample([Disk(20, 20, 8, 5), Disk(44, 20, 8, 5), Disk(20, 44, 8, 5)], SIDE, SIDE)
    ways = set()
    for window in _many([three], replace(SAME, on_cells=0.0), 80):
        first, second, third = (np.array([x, y]) for x, y in zip(window.x, window.y, strict=True))
        ways.add((*np.sign(np.rint(second - first)).astype(int).tolist(), *np.sign(np.rint(third - first)).astype(int).tolist()))
    assert len(ways) == 8


def test_scales_lie_between_the_two_that_are_given(one: Sample) -> None:
    radii = np.array([w.red_cell_radius for w in _many([one], replace(SAME, smallest=6.0, largest=10.0), 60)])
    assert radii.min() >= 6.0
    assert radii.max() <= 10.0
    assert np.ptp(radii) > 3.0


def test_without_changes_colours_stay(one: Sample) -> None:
    for window in _many([one], SAME, 10):
        nuclei = window.nuclei & (window.owners > 0)
        if nuclei.any():
            np.testing.assert_allclose(window.pixels[nuclei].mean(axis=0), one.pixels[one.nuclei].mean(axis=0), atol=8)
        assert abs(float(np.median(window.pixels)) - BACKGROUND) < 4


@pytest.mark.parametrize(
    "changed", [{"stain": 0.5}, {"hue": 0.3}, {"light": 0.2}, {"blur": 3.0}, {"noise": 60.0}], ids=["stain", "hue", "light", "blur", "noise"]
)
def test_each_change_changes_pixels_and_no_labels(one: Sample, changed: dict[str, float]) -> None:
    rng = np.random.default_rng
    plain, other = (Draws([one], {"drawn": 1.0}, changes, SIDE) for changes in (SAME, replace(SAME, **changed)))
    pairs = [(plain.window(rng(seed)), other.window(rng(seed))) for seed in range(12)]
    different = [np.abs(a.pixels.astype(int) - b.pixels).max() for a, b in pairs]
    assert max(different) > 12
    for a, b in pairs:
        assert np.array_equal(a.owners, b.owners)
        assert np.array_equal(a.x, b.x)


def test_crowded_windows_show_more_cells_than_the_sample(one: Sample) -> None:
    crowded = _many([one], replace(SAME, crowded=1.0, on_cells=1.0), 20)
    assert sum(len(w.x) > len(one.x) for w in crowded) > 5
    assert all(len(w.x) == len(one.x) for w in _many([one], SAME, 20))


def test_windows_show_cells_as_often_as_they_should(one: Sample) -> None:
    def shows(window: Window, kinds: set[Kind]) -> bool:
        marks = zip(window.x, window.y, window.kinds.tolist(), strict=True)
        return any(kind in kinds and 0 <= x < SIDE and 0 <= y < SIDE for x, y, kind in marks)

    wide = replace(sample([], 400, 480), x=one.x, y=one.y, kinds=one.kinds)
    cells = {Kind.NUCLEATED, Kind.SMUDGED}
    assert all(shows(w, cells) for w in _many([wide], replace(SAME, on_cells=1.0), 20))
    assert sum(shows(w, cells) for w in _many([wide], replace(SAME, on_cells=0.0), 20)) < 10
    assert all(shows(w, {Kind.SMUDGED}) for w in _many([wide], replace(SAME, on_cells=1.0, on_smudged=1.0), 20))


def test_little_of_a_window_lies_beyond_the_border(one: Sample) -> None:
    corners = replace(one, x=np.array([1, 199], np.float32), y=np.array([1, 159], np.float32), kinds=np.zeros(2, np.int8))
    black = replace(corners, pixels=np.zeros_like(one.pixels), owners=np.zeros_like(one.owners))
    for window in _many([black], replace(SAME, on_cells=0.8)):
        beyond = window.pixels[..., 1] > 100
        assert beyond.all(axis=0).mean() <= 0.12
        assert beyond.all(axis=1).mean() <= 0.12


def test_a_sample_smaller_than_a_window_is_shown_whole() -> None:
    small = sample([Disk(20, 16, radius=10, nucleus=6)], 32, 40)
    for window in _many([small], SAME, 20):
        assert np.count_nonzero(window.owners) >= 0.5 * window.areas[0]


def test_sources_give_windows_by_their_shares(one: Sample) -> None:
    samples = [replace(one, source="a"), *[replace(one, source="b", platelets_are_marked=False)] * 9, replace(one, source="c")]
    windows = _many(samples, SAME, 300, a=3.0, b=1.0)
    assert np.mean([w.platelets_are_marked for w in windows]) == pytest.approx(0.75, abs=0.08)


def test_a_source_without_samples_leaves_its_share_to_the_others(one: Sample) -> None:
    windows = _many([replace(one, source="a")], SAME, 5, a=0.1, b=0.9)
    assert len(windows) == 5
    none = _many([replace(one, source="a"), replace(one, source="b", platelets_are_marked=False)], SAME, 20, a=1.0, b=0.0)
    assert all(w.platelets_are_marked for w in none)
