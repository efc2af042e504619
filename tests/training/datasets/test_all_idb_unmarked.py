"""Tests of the masses that no point names: they lie in their fields, once each, and most are smudged cells."""

from __future__ import annotations

import itertools
import math
import re

import pytest

from services.patching.locator_maps import Kind
from training.datasets.all_idb_fields import CELL_RADIUS, camera_of
from training.datasets.all_idb_unmarked import UNMARKED

SIZES = {"olympus": (1712, 1368), "canon": (2592, 1944)}
"""Published width and height of the fields of each camera, px."""


@pytest.mark.parametrize("field", sorted(UNMARKED))
def test_positions_lie_in_the_field(field: str) -> None:
    assert re.fullmatch(r"Im\d{3}_[01]", field)
    assert UNMARKED[field]
    width, height = SIZES[camera_of(field)]
    for x, y, kind in UNMARKED[field]:
        assert 0 <= x < width
        assert 0 <= y < height
        assert isinstance(kind, Kind)


def test_no_mass_is_named_twice() -> None:
    for masses in UNMARKED.values():
        assert all(math.dist(a[:2], b[:2]) > CELL_RADIUS / 2 for a, b in itertools.combinations(masses, 2))


def test_most_are_smudged() -> None:
    kinds = [kind for masses in UNMARKED.values() for _, _, kind in masses]
    assert kinds.count(Kind.SMUDGED) > 0.5 * len(kinds)
