"""Windows divide a slide, and a cell that two of them see is one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.patching.cells import LocatedCell
from services.patching.slides.tiling import SeenCells, count_windows, lay_windows


def cell(x: float, y: float, radius: float = 20.0) -> LocatedCell:
    return LocatedCell(x, y, radius, int(x - radius), int(y - radius), int(2 * radius), int(2 * radius), 1.0)


@given(st.integers(32, 3000), st.integers(32, 3000), st.integers(1, 900), st.integers(0, 300))
def test_cores_part_the_slide_and_margins_stay_inside(width: int, height: int, core: int, margin: int) -> None:
    core = max(core, max(width, height) // 40)
    windows = list(lay_windows(width, height, core, margin))
    assert len(windows) == count_windows(width, height, core)
    covered = np.zeros((height, width), np.uint8)
    for w in windows:
        covered[w.core_y : w.core_y + w.core_height, w.core_x : w.core_x + w.core_width] += 1
        assert 0 <= w.x <= w.core_x
        assert 0 <= w.y <= w.core_y
        assert w.core_x + w.core_width <= w.x + w.width <= width
        assert w.core_y + w.core_height <= w.y + w.height <= height
    assert (covered == 1).all()


@given(st.floats(-0.5, 999.49), st.floats(-0.5, 699.49))
def test_every_position_is_claimed_by_one_core(x: float, y: float) -> None:
    assert sum(w.claims(x, y, 0.0) for w in lay_windows(1000, 700, 130, 40)) == 1


def test_a_cell_seen_from_two_windows_is_one() -> None:
    seen = SeenCells(256.0)
    assert seen.add([cell(255, 255), cell(300, 255)]) == [True, True]
    assert seen.add([cell(258, 252), cell(255, 280), cell(600, 600)]) == [False, True, True]


def test_two_cells_of_one_window_stay_two() -> None:
    assert SeenCells(256.0).add([cell(100, 100), cell(105, 100)]) == [True, True]


@given(st.lists(st.tuples(st.floats(0, 5000), st.floats(0, 5000)), max_size=40), st.floats(-5, 5), st.floats(-5, 5))
def test_what_was_seen_is_seen_again_wherever_it_lies(positions: list[tuple[float, float]], dx: float, dy: float) -> None:
    seen = SeenCells(256.0)
    seen.add([cell(x, y) for x, y in positions])
    assert not any(seen.add([cell(x + dx, y + dy) for x, y in positions]))
