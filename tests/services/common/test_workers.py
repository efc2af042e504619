"""Tests of worker threads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import pytest

from services.common.admission.priority import Priority, working_for
from services.common.workers import Workers


@pytest.fixture
def workers() -> Iterator[Workers]:
    pool = Workers(1)
    yield pool
    pool.close()


async def test_work_runs_in_another_thread_and_returns(workers: Workers) -> None:
    def where(a: int, *, b: int) -> tuple[int, int, threading.Thread]:
        return a, b, threading.current_thread()

    def total(a: int, *, b: int) -> int:
        return a + b

    assert await workers.run("test", where, 1, b=2) != (1, 2, threading.current_thread())
    assert await workers.run("test", total, 1, b=2) == 3


async def test_errors_come_back(workers: Workers) -> None:
    with pytest.raises(ZeroDivisionError):
        await workers.run("test", lambda: 1 // 0)


async def test_waiting_work_never_starts_after_a_cancellation_and_running_work_finishes(workers: Workers) -> None:
    started, release, finished, second = (threading.Event() for _ in range(4))

    def first() -> None:
        started.set()
        release.wait(20)
        finished.set()

    running = asyncio.create_task(workers.run("test", first))
    waiting = asyncio.create_task(workers.run("test", second.set))
    assert await asyncio.to_thread(started.wait, 20)
    for task in (waiting, running):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()
    release.set()
    assert await workers.run("test", lambda: "next") == "next"
    assert finished.is_set()
    assert not second.is_set()


async def test_closing_lets_running_work_finish() -> None:
    pool = Workers(1)
    started, finished = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        threading.Event().wait(0.05)
        finished.set()

    task = asyncio.create_task(pool.run("test", work))
    assert await asyncio.to_thread(started.wait, 20)
    pool.close()
    assert finished.is_set()
    await task


async def test_no_more_pieces_of_work_run_at_once_than_there_are_threads() -> None:
    pool = Workers(2)
    lock, under_way, most = threading.Lock(), 0, 0

    def work() -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        threading.Event().wait(0.01)
        with lock:
            under_way -= 1

    try:
        await asyncio.gather(*(pool.run("test", work) for _ in range(8)))
    finally:
        pool.close()
    assert most <= 2


@pytest.mark.parametrize("count", [1, 2, 4])
async def test_long_work_leaves_a_thread_free_however_much_there_is(count: int) -> None:
    pool, gate = Workers(count), threading.Event()
    lock, most, under_way = threading.Lock(), 0, 0

    def window() -> None:
        nonlocal most, under_way
        with lock:
            under_way += 1
            most = max(most, under_way)
        gate.wait(60)
        with lock:
            under_way -= 1

    try:
        windows = [asyncio.create_task(pool.run_long("test", window)) for _ in range(10)]
        while under_way < max(1, count - 1):
            await asyncio.sleep(0.01)
        async with asyncio.timeout(10):
            assert await pool.run("test", lambda: "image") == "image"
        gate.set()
        await asyncio.gather(*windows)
    finally:
        gate.set()
        pool.close()
    assert most == max(1, count - 1)


async def test_a_cancelled_caller_keeps_its_place_until_its_work_ends_and_a_failure_gives_it_back() -> None:
    pool, gate, started = Workers(2), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        gate.wait(20)

    try:
        first = asyncio.create_task(pool.run_long("test", work))
        assert await asyncio.to_thread(started.wait, 20)
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        second = asyncio.create_task(pool.run_long("test", lambda: 1 // 0))
        assert await pool.run("test", lambda: "image") == "image"
        assert not second.done()
        gate.set()
        with pytest.raises(ZeroDivisionError):
            await second
        assert await pool.run_long("test", lambda: "next") == "next"
    finally:
        gate.set()
        pool.close()


async def test_waiting_work_of_interactive_requests_begins_before_that_of_batches(workers: Workers) -> None:
    go, order = threading.Event(), list[str]()
    workers.submit("test", go.wait, 20)
    with working_for(Priority.BATCH):
        batch = [workers.submit("test", order.append, name) for name in ("first of a batch", "second of a batch")]
    interactive = [workers.submit("test", order.append, name) for name in ("first", "second")]
    go.set()
    await asyncio.gather(*(asyncio.wrap_future(one) for one in (*batch, *interactive)))
    assert order == ["first", "second", "first of a batch", "second of a batch"]


async def test_the_priority_is_that_of_the_task_that_asks(workers: Workers) -> None:
    go, order = threading.Event(), list[str]()
    workers.submit("test", go.wait, 20)

    async def ask(name: str, priority: Priority) -> None:
        with working_for(priority):
            await workers.run("test", order.append, name)

    tasks = [asyncio.create_task(ask("batch", Priority.BATCH)), asyncio.create_task(ask("interactive", Priority.INTERACTIVE))]
    await asyncio.sleep(0.01)
    go.set()
    await asyncio.gather(*tasks)
    assert order == ["interactive", "batch"]


async def test_closing_drops_what_waits_whatever_its_priority() -> None:
    pool, go, started = Workers(1), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        go.wait(20)

    running = pool.submit("test", work)
    assert await asyncio.to_thread(started.wait, 20)
    with working_for(Priority.BATCH):
        waiting = [pool.submit("test", lambda: "never") for _ in range(2)]
    waiting.append(pool.submit("test", lambda: "never"))
    closing = asyncio.create_task(asyncio.to_thread(pool.close))
    await asyncio.sleep(0.05)
    go.set()
    await closing
    assert running.done()
    assert all(one.cancelled() for one in waiting)
