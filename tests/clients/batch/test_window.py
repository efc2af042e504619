"""The window of images under way."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from clients.batch.window import Window


def used(window: Window, count: int) -> None:
    window.under_way = count


def test_it_grows_by_one_for_each_window_of_successes() -> None:
    window = Window(limit=4.0)
    used(window, 4)
    for _ in range(4):
        window.succeeded()
    assert 4.8 < window.limit < 5.0
    used(window, 1)
    before = window.limit
    window.succeeded()
    assert window.limit == before, "a window that is not used does not grow"


async def test_it_halves_once_for_the_refusals_of_one_window() -> None:
    window = Window(limit=8.0)
    numbers = [await window.enter() for _ in range(8)]
    for number in numbers:
        window.refused(number)
    assert window.limit == 4.0
    for _ in numbers:
        window.leave()
    window.refused(await window.enter())
    assert window.limit == 2.0


async def test_entering_waits_for_room() -> None:
    window = Window(limit=1.0)
    await window.enter()
    waiting = [asyncio.ensure_future(window.enter()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    window.leave()
    await asyncio.sleep(0.01)
    assert [task.done() for task in waiting] == [True, False]
    window.leave()
    await asyncio.sleep(0.01)
    assert all(task.done() for task in waiting)


@given(st.lists(st.booleans(), max_size=200), st.integers(1, 20))
def test_it_stays_in_its_bounds(successes: list[bool], most: int) -> None:
    window = Window(most=float(most))
    for number, success in enumerate(successes, start=1):
        window._sent = number
        used(window, int(window.limit))
        if success:
            window.succeeded()
        else:
            window.refused(number)
        assert 1.0 <= window.limit <= most
