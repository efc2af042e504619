"""Keeping rows: none is lost, whenever a writing is cancelled."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from clients.batch.journal import Journal
from clients.batch.keeping import Keeper
from tests.clients.batch.making import lines, row


async def test_a_writing_that_is_cancelled_while_the_thread_is_busy_loses_no_row(tmp_path: Path) -> None:
    keeper = Keeper(journal := Journal(tmp_path / "journal.sqlite", 1))
    free = threading.Event()
    keeper._thread.submit(free.wait, 10)
    keeper.finish(row(0))
    writing = asyncio.ensure_future(keeper.write())
    await asyncio.sleep(0.01)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    keeper.finish(row(1))
    free.set()
    await keeper.write()
    assert journal.finished() == {0, 1}
    assert (keeper.done, keeper.failed) == (2, 0)


async def test_a_writing_that_is_cancelled_at_any_moment_loses_no_row(tmp_path: Path) -> None:
    keeper = Keeper(journal := Journal(tmp_path / "journal.sqlite", 1))
    for number in range(60):
        keeper.finish(row(number))
        writing = asyncio.ensure_future(keeper.write())
        await asyncio.sleep(0.0002 * (number % 10))
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    await keeper.write()
    assert journal.finished() == set(range(60))


async def test_attempts_are_those_of_lines_that_are_not_finished(tmp_path: Path) -> None:
    keeper = Keeper(Journal(tmp_path / "journal.sqlite", 1))
    await keeper.begin(lines(3))
    await keeper.take_back(lines(3)[2:])
    keeper.finish(row(0))
    assert keeper.attempts == {0: 1, 1: 1, 2: 0}
    await keeper.write()
    assert keeper.attempts == {1: 1, 2: 0}
