"""Tests of joining parts: the same as without bounds, and a bounded amount of work."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.patching import joining
from services.patching.joining import MAX_DRAWN, MAX_PAIRS, join_lobes, near_pairs
from services.patching.nucleus import Nucleus, union
from tests.properties import examples


def _parts(mask: np.ndarray) -> list[Nucleus]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    boxes = [tuple(int(v) for v in stats[i, :4]) for i in range(1, count)]
    return [Nucleus(labels[y : y + h, x : x + w] == i, x, y) for i, (x, y, w, h) in enumerate(boxes, start=1)]


def _plainly_joined(parts: list[Nucleus], absorbs: np.ndarray, scale: float) -> list[Nucleus]:
    """As ``join_lobes`` without foreground, every pair drawn."""
    groups, owner = list(parts), list(range(len(parts)))
    for i, j in near_pairs(parts, 0.9 * scale):
        a, b = owner[i], owner[j]
        both = union(groups[a], groups[b])
        if a != b and joining._is_one_nucleus(both, absorbs, scale):
            groups[a] = both
            owner = [a if o == b else o for o in owner]
    return [groups[o] for o in sorted(set(owner))]


def _specks(side: int, pitch: int, radius: int) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[pitch // 2 :: pitch, pitch // 2 :: pitch] = 1
    return cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)) > 0


@settings(deadline=None, max_examples=examples(60))
@given(
    st.lists(st.tuples(st.integers(0, 89), st.integers(0, 89), st.integers(1, 6), st.integers(1, 14)), min_size=1, max_size=14),
    st.floats(2, 40),
    st.booleans(),
)
def test_parts_are_joined_as_if_every_pair_were_drawn(rectangles: list[tuple[int, int, int, int]], scale: float, on_stain: bool) -> None:
    mask = np.zeros((100, 100), bool)
    for x, y, w, h in rectangles:
        mask[y : y + h, x : x + w] = True
    parts, absorbs = _parts(mask), np.ones_like(mask) if on_stain else mask
    expected, found = _plainly_joined(parts, absorbs, scale), join_lobes(parts, absorbs, scale, None)
    assert [(n.left, n.top, n.mask.tobytes()) for n in found] == [(n.left, n.top, n.mask.tobytes()) for n in expected]


@pytest.mark.parametrize("scale", [5.0, 20.0, 75.0, 150.0, 1000.0])
@pytest.mark.parametrize("on_stain", [True, False])
def test_the_work_on_many_specks_is_bounded(scale: float, on_stain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = _specks(500, 17, 3)
    drawn: list[int] = []

    def counted(a: Nucleus, b: Nucleus) -> Nucleus:
        both = union(a, b)
        drawn.append(both.mask.size)
        return both

    monkeypatch.setattr(joining, "union", counted)
    found = join_lobes(_parts(mask), np.full_like(mask, on_stain) | mask, scale, mask)
    assert sum(drawn) <= MAX_DRAWN * mask.size
    assert len(drawn) <= MAX_PAIRS
    assert sum(n.mask.sum() for n in found) == mask.sum()


def test_the_nearest_pairs_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = _parts(_specks(200, 20, 3))
    every = near_pairs(parts, 1000.0)
    assert len(every) == len(parts) * (len(parts) - 1) // 2
    monkeypatch.setattr(joining, "MAX_PAIRS", 50)
    assert near_pairs(parts, 1000.0) == every[:50]


def test_a_refused_pair_is_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two groups of parts that are not one nucleus have several near pairs of parts."""
    drawn: list[tuple[int, int]] = []

    def counted(a: Nucleus, b: Nucleus) -> Nucleus:
        drawn.append((id(a), id(b)))
        return union(a, b)

    monkeypatch.setattr(joining, "union", counted)
    mask = np.zeros((60, 60), bool)
    for y in (10, 14, 18):
        mask[y : y + 3, 10:13] = mask[y : y + 3, 40:43] = True
    absorbs = np.zeros_like(mask)
    absorbs[8:24, 8:15] = absorbs[8:24, 38:45] = True
    assert len(join_lobes(_parts(mask), absorbs, 40.0, None)) == 2
    assert len(drawn) == len(set(drawn)) <= 5


def test_a_refused_pair_is_tried_again_when_a_group_has_grown() -> None:
    """Between two specks lies background, but hardly any in the hull of both and the large part above them."""
    y, x = np.mgrid[0:120, 0:80]
    mask = np.hypot(x - 36, y - 36) <= 20
    mask[66:69, 30:33] = mask[66:69, 40:43] = True
    absorbs = np.ones_like(mask)
    absorbs[66:69, 34:38] = False
    specks = _parts(mask & (y > 60))
    assert len(join_lobes(specks, absorbs, 40.0, None)) == 2
    assert len(join_lobes(_parts(mask), absorbs, 40.0, None)) == 1


def test_no_union_is_drawn_that_is_certainly_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    areas: list[float] = []
    plain = joining._is_one_nucleus

    def measured(both: Nucleus, absorbs: np.ndarray, scale: float) -> bool:
        contours, _ = cv2.findContours(both.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        areas.append(cv2.contourArea(cv2.convexHull(np.concatenate(contours))))
        return plain(both, absorbs, scale)

    monkeypatch.setattr(joining, "_is_one_nucleus", measured)
    mask = _specks(300, 17, 3)
    join_lobes(_parts(mask), np.ones_like(mask), 20.0, None)
    limit = np.pi * (joining.MAX_LOBED_NUCLEUS_TO_RED_CELL * 20.0) ** 2
    assert 0.5 * limit < max(areas) <= 1.02 * limit
