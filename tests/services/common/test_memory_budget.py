"""Tests of the memory budget: its bound, its order, and bytes that a running thread still uses."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import pytest

from services.common.errors import InvalidImageError
from services.common.memory_budget import MemoryBudget
from services.common.workers import Workers


@pytest.fixture
def workers() -> Iterator[Workers]:
    pool = Workers(1)
    yield pool
    pool.close()


async def _settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_calls_share_the_bytes_and_never_exceed_them() -> None:
    budget = MemoryBudget(100)
    most = 0

    async def call(count: int) -> None:
        nonlocal most
        async with budget.taken(count):
            most = max(most, budget.taken_bytes)
            await _settled()

    await asyncio.gather(*(call(count) for count in (60, 50, 40, 100, 1, 99, 0, 33)))
    assert 90 <= most <= 100
    assert budget.taken_bytes == 0


async def test_calls_are_served_in_order_so_that_a_large_one_is_not_starved() -> None:
    budget = MemoryBudget(100)
    served: list[str] = []

    async def call(name: str, count: int) -> None:
        async with budget.taken(count):
            served.append(name)
            await _settled()

    first = asyncio.create_task(call("first", 50))
    await _settled()
    tasks = [first, asyncio.create_task(call("large", 90)), *(asyncio.create_task(call(f"small {i}", 10)) for i in range(3))]
    await asyncio.gather(*tasks)
    assert served == ["first", "large", "small 0", "small 1", "small 2"]


async def test_small_calls_do_not_wait_for_each_other() -> None:
    budget = MemoryBudget(100)
    async with budget.taken(30), budget.taken(30), budget.taken(40):
        assert budget.taken_bytes == 100


async def test_more_than_everything_is_refused() -> None:
    budget = MemoryBudget(100)
    with pytest.raises(InvalidImageError) as caught:
        async with budget.taken(101):
            pass
    assert caught.value.reason == "IMAGE_TOO_LARGE"
    assert budget.taken_bytes == 0


async def test_a_call_that_is_cancelled_while_it_waits_lets_the_next_one_pass() -> None:
    budget = MemoryBudget(100)
    served = asyncio.Event()

    async def call(count: int) -> None:
        async with budget.taken(count):
            served.set()

    async with budget.taken(50):
        large = asyncio.create_task(call(90))
        await _settled()
        small = asyncio.create_task(call(10))
        await _settled()
        assert not served.is_set()
        large.cancel()
        await small
        assert served.is_set()
    assert budget.taken_bytes == 0


async def test_a_call_that_is_cancelled_at_its_turn_gives_its_bytes_back() -> None:
    budget = MemoryBudget(100)

    async def call() -> None:
        async with budget.taken(90):
            await asyncio.Event().wait()

    async with budget.taken(50):
        waiting = asyncio.create_task(call())
        await _settled()
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    assert budget.taken_bytes == 0


async def test_bytes_stay_taken_while_a_thread_of_a_cancelled_call_runs(workers: Workers) -> None:
    budget = MemoryBudget(100)
    started, release = threading.Event(), threading.Event()

    def long() -> None:
        started.set()
        release.wait(10)

    async def call() -> None:
        async with budget.taken(70) as share:
            await workers.run("test", share.used_by(long))

    cancelled = asyncio.create_task(call())
    await asyncio.to_thread(started.wait, 10)
    cancelled.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await cancelled
    assert budget.taken_bytes == 70
    release.set()
    async with budget.taken(100):
        assert budget.taken_bytes == 100


async def test_a_function_whose_call_has_ended_does_not_run() -> None:
    budget = MemoryBudget(100)
    ran = False

    def work() -> None:
        nonlocal ran
        ran = True

    async with budget.taken(10) as share:
        function = share.used_by(work)
    with pytest.raises(asyncio.CancelledError):
        function()
    assert not ran
    assert budget.taken_bytes == 0


async def test_an_error_gives_the_bytes_back() -> None:
    budget = MemoryBudget(100)
    with pytest.raises(ZeroDivisionError):
        async with budget.taken(10) as share:
            share.used_by(lambda: 1 // 0)()
    assert budget.taken_bytes == 0
