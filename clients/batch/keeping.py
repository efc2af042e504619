"""Keep attempts and rows of a shard: on disk in groups, by one thread, without holding up what is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from clients.batch.journal import Journal
from clients.batch.manifest import Line

GROUP_SECONDS: Final = 0.2
"""Finished rows are on disk after so long at the latest."""
Result = TypeVar("Result")
Row = dict[str, Any]


class Keeper:
    """Keeps the attempts and rows of one shard.

    Args:
        journal: of the shard.

    Attributes:
        attempts: attempts by line, of lines that are not finished.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dl4all-journal")
        self._writing = asyncio.Lock()
        self._rows: list[Row] = []
        self.attempts: dict[int, int] = journal.attempts()
        self.done, self.failed = journal.counts()

    def last_error(self, line: int) -> str:
        """See ``Journal.last_error``."""
        return self._thread.submit(self._journal.last_error, line).result()

    async def begin(self, lines: Sequence[Line]) -> None:
        """Count an attempt of each line; it is on disk when this returns."""
        numbers = [line.number for line in lines]
        await self._run(self._journal.begin, numbers)
        for number in numbers:
            self.attempts[number] = self.attempts.get(number, 0) + 1

    async def take_back(self, lines: Sequence[Line]) -> None:
        """Take back the last attempt of each line: it was not computed."""
        numbers = [line.number for line in lines]
        if numbers:
            await self._run(self._journal.take_back, numbers)
            for number in numbers:
                self.attempts[number] -= 1

    async def note(self, errors: Mapping[int, str]) -> None:
        """Note what ended the last attempt of lines."""
        if errors:
            await self._run(self._journal.note, errors)

    def finish(self, row: Row) -> None:
        """Keep a finished row; it is on disk after the next ``write``."""
        self._rows.append(row)

    async def write(self) -> None:
        """Write finished rows to disk. Rows stay here until they are there: a cancelled writing loses none, and a repeated one changes nothing."""
        async with self._writing:
            count = len(self._rows)
            if count:
                rows = self._rows[:count]
                await self._run(self._journal.finish, rows)
                del self._rows[:count]
                for row in rows:
                    self.attempts.pop(row["line"], None)
                self.done, self.failed = await self._run(self._journal.counts)

    async def write_on(self) -> None:
        """Write finished rows again and again, until cancelled."""
        while True:
            await asyncio.sleep(GROUP_SECONDS)
            await self.write()

    async def copy(self) -> bytes:
        """The whole journal as the bytes of a file."""
        return await self._run(self._journal.copy)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    async def _run(self, function: Callable[..., Result], *args: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)
