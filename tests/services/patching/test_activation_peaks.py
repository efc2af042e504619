"""Tests of the peaks of class activations: by hand, and the properties that merging promises."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from services.patching.activation_peaks import Peak, merge, peaks
from services.patching.grid import Patch

PATCH = Patch(1, 100, 50, 256)
MAPS = arrays.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(2)), elements=st.floats(-20, 20, width=32))
PEAKS = st.lists(st.builds(Peak, st.floats(0, 300), st.floats(0, 300), st.integers(0, 1), st.sampled_from([-2.0, 0.0, 1.0, 1.5, 7.0])), max_size=25)


def _map(height: int = 8, width: int = 8) -> np.ndarray:
    return np.full((height, width, 2), -3.0, np.float32)


def test_a_single_place_is_found_at_its_centre() -> None:
    activations = _map()
    activations[2, 5, 1] = 4.0
    (found,) = peaks(activations, PATCH, 0.0)
    assert (found.label, found.activation) == (1, 4.0)
    assert (found.x, found.y) == (100 + 5.5 * 32 - 0.5, 50 + 2.5 * 32 - 0.5)


def test_a_neighbour_pulls_the_peak_towards_itself() -> None:
    activations = _map()
    activations[4, 4, 0], activations[4, 5, 0] = 4.0, 3.0
    (found,) = peaks(activations, PATCH, 0.0)
    assert 4.5 * 32 - 0.5 + 100 < found.x < 5.0 * 32 - 0.5 + 100
    assert found.y == 50 + 4.5 * 32 - 0.5


def test_of_a_plateau_the_first_place_counts() -> None:
    activations = _map()
    activations[3:5, 3:5, 0] = 2.0
    (found,) = peaks(activations, PATCH, 0.0)
    assert found.activation == 2.0
    assert abs(found.x - (100 + 4 * 32 - 0.5)) <= 16
    assert abs(found.y - (50 + 4 * 32 - 0.5)) <= 16


def test_maxima_below_the_threshold_are_no_candidates() -> None:
    activations = _map()
    activations[1, 1, 0], activations[6, 6, 1] = 1.0, 2.0
    assert [p.label for p in peaks(activations, PATCH, 1.5)] == [1]
    assert peaks(activations, PATCH, 2.5) == ()


@given(MAPS, st.floats(-20, 20))
def test_peaks_are_inside_the_patch_strong_enough_and_the_strongest_first(activations: np.ndarray, least: float) -> None:
    found = peaks(activations, PATCH, least)
    assert all(PATCH.x - 0.5 <= p.x <= PATCH.x + 255.5 and PATCH.y - 0.5 <= p.y <= PATCH.y + 255.5 for p in found)
    assert all(p.activation >= least for p in found)
    assert [p.activation for p in found] == sorted((p.activation for p in found), reverse=True)
    for label in (0, 1):
        largest = float(activations[:, :, label].max())
        if largest >= least:
            assert any(p.label == label and p.activation == pytest.approx(largest) for p in found)


@given(MAPS, st.integers(-500, 500), st.integers(-500, 500))
def test_peaks_move_with_their_patch(activations: np.ndarray, right: int, down: int) -> None:
    here = peaks(activations, Patch(1, 0, 0, 256), -20.0)
    there = peaks(activations, Patch(1, right, down, 256), -20.0)
    moved = np.array([(p.x + right, p.y + down, p.label) for p in here])
    np.testing.assert_allclose(moved, [(p.x, p.y, p.label) for p in there], atol=1e-9)


@given(PEAKS, st.floats(0.5, 100))
def test_what_merging_keeps_and_why_it_drops(found: list[Peak], radius: float) -> None:
    kept = merge(found, radius)
    assert set(kept) <= set(found)
    for i, a in enumerate(kept):
        assert all(math.hypot(a.x - b.x, a.y - b.y) >= radius for b in kept[i + 1 :])
    for p in found:
        assert p in kept or any(math.hypot(p.x - k.x, p.y - k.y) < radius and k.activation >= p.activation for k in kept)
    assert [k.activation for k in kept] == sorted((k.activation for k in kept), reverse=True)


@given(PEAKS, st.floats(0.5, 100), st.randoms(use_true_random=False))
def test_merging_depends_on_no_order_and_is_done_at_once(found: list[Peak], radius: float, random: Random) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)
    kept = merge(found, radius)
    assert merge(shuffled, radius) == kept
    assert merge(kept, radius) == kept


@given(PEAKS, st.floats(0.5, 100), st.sampled_from([-1.0, 0.5, 1.2]))
def test_a_threshold_may_come_before_or_after(found: list[Peak], radius: float, least: float) -> None:
    before = merge([p for p in found if p.activation >= least], radius)
    assert before == tuple(p for p in merge(found, radius) if p.activation >= least)


def test_nothing_merges_to_nothing() -> None:
    assert merge([], 10.0) == ()


@given(MAPS, st.integers(1, 12))
def test_only_the_strongest_maxima_count(activations: np.ndarray, most: int) -> None:
    every, found = peaks(activations, PATCH, -20.0), peaks(activations, PATCH, -20.0, most)
    assert len(found) == min(most, len(every))
    assert set(found) <= set(every)
    assert [p.activation for p in found] == [p.activation for p in every[:most]]
