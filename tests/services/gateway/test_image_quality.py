"""Tests of when an image is too poor for a negative."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from services.gateway.decision import Reason
from services.gateway.image_quality import Quality, poor_reasons

GOOD = Quality(blur=2.0, red_cell_radius=35.0, overexposed=0.3, underexposed=0.0, covered=0.5)


def test_a_good_image_has_no_reasons() -> None:
    assert poor_reasons(GOOD) == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"blur": 3.6}, Reason.IMAGE_BLURRED),
        ({"overexposed": 0.7}, Reason.IMAGE_OVEREXPOSED),
        ({"underexposed": 0.1}, Reason.IMAGE_UNDEREXPOSED),
        ({"covered": 0.9}, Reason.CELLS_CROWDED),
        ({"ink": 0.03}, Reason.IMAGE_OBSTRUCTED),
    ],
)
def test_each_fault_has_its_reason(change: dict[str, float], reason: Reason) -> None:
    assert poor_reasons(replace(GOOD, **change)) == (reason,)


def test_blur_is_judged_only_against_red_cells_and_where_there_are_edges() -> None:
    assert poor_reasons(replace(GOOD, blur=50.0, red_cell_radius=0.0)) == ()
    assert poor_reasons(replace(GOOD, blur=math.nan)) == ()
