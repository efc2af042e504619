"""Tests of nuclei and their unions."""

from __future__ import annotations

import numpy as np

from services.patching.nucleus import Nucleus, common_box, union

A = Nucleus(np.ones((3, 4), bool), 10, 20)
B = Nucleus(np.eye(2, dtype=bool), 12, 30)


def test_a_nucleus_knows_its_place_and_radius() -> None:
    image = np.zeros((40, 40), bool)
    image[A.window] = A.mask
    assert image[20:23, 10:14].all()
    assert image.sum() == 12
    assert np.isclose(A.radius, np.sqrt(12 / np.pi))


def test_a_union_holds_both_masks_where_they_lie() -> None:
    assert common_box(A, B) == common_box(B, A) == (10, 20, 14, 32)
    both = union(A, B)
    image = np.zeros((40, 40), bool)
    image[both.window] = both.mask
    expected = np.zeros((40, 40), bool)
    expected[A.window] |= A.mask
    expected[B.window] |= B.mask
    np.testing.assert_array_equal(image, expected)
