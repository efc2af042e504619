"""Charts of the report."""

from __future__ import annotations

import itertools
import math
import re
import xml.etree.ElementTree as ElementTree

from hypothesis import given
from hypothesis import strategies as st

from clients.batch.charts import HEIGHT, WIDTH, Band, band_chart, line_chart, ticks

VALUES = st.floats(-1e6, 1e6).map(lambda value: round(value, 4))


@given(VALUES, VALUES)
def test_ticks_are_round_and_hold_the_range(one: float, other: float) -> None:
    low, high = sorted((one, other))
    found = ticks(low, high)
    assert 2 <= len(found) <= 9
    slack = 1e-6 * max(high - low, abs(low), abs(high))
    assert found[0] <= low + slack
    assert found[-1] >= high - slack
    steps = {b - a for a, b in itertools.pairwise(found)}
    assert max(steps) - min(steps) <= 1e-6 * max(found[-1] - found[0], abs(low), abs(high))
    mantissa = (found[1] - found[0]) / 10 ** math.floor(math.log10(found[1] - found[0]) + 1e-9)
    assert min(abs(mantissa - m) for m in (1.0, 2.0, 5.0, 10.0)) < 1e-3


@given(st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=20))
def test_everything_is_drawn_inside(values: list[tuple[float, float, float]]) -> None:
    bands = [Band(float(place), *sorted(value)) for place, value in enumerate(values)]
    drawn = str(band_chart(bands, "a < b", "c & d"))
    ElementTree.fromstring(drawn)
    for points in re.findall(r'points="([^"]+)"', drawn):
        for point in points.split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= WIDTH
            assert 0 <= y <= HEIGHT


def test_the_levels_lie_between_top_and_floor() -> None:
    drawn = str(band_chart([Band(0.0, 1.4, 1.5, 1.6), Band(9.0, 1.3, 1.8, 2.1)], "a", "b"))
    levels = [(float(y1), float(y2)) for y1, y2 in re.findall(r'<line [^>]*y1="([^"]+)"[^>]*y2="([^"]+)"', drawn)]
    assert len(levels) >= 4
    assert all(y1 == y2 and 0 < y1 <= HEIGHT - 40 for y1, y2 in levels)


def test_nothing_is_drawn_of_nothing_and_one_point_is_a_dot() -> None:
    assert band_chart([], "a", "b") == ""
    assert line_chart([], "a", "b") == ""
    assert "<circle" in line_chart([(1.0, 2.0)], "a", "b")
