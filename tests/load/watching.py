"""Watch processes while load goes on: memory, open files and threads, at even times."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.load.metering import MIB
from tests.load.processes import families, sample


@dataclass
class Series:
    """Samples of one part.

    Attributes:
        seconds: when each was taken.
        rss_mib: memory held, MiB.
        descriptors: open file descriptors.
        threads: threads.
    """

    seconds: list[float] = field(default_factory=list)
    rss_mib: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)


@asynccontextmanager
async def watched(leaders: Mapping[str, int], every: float, now: Callable[[], float]) -> AsyncIterator[dict[str, Series]]:
    """Sample each part while the block runs.

    Args:
        leaders: process id by part.
        every: seconds between two samples.
        now: the clock, seconds.
    """
    found = {part: Series() for part in leaders}

    async def watch() -> None:
        while True:
            for part, pids in (await asyncio.to_thread(families, leaders)).items():
                seen = sample(pids)
                series = found[part]
                series.seconds.append(round(now(), 2))
                series.rss_mib.append(round(seen.rss / MIB, 2))
                series.descriptors.append(seen.descriptors)
                series.threads.append(seen.threads)
            await asyncio.sleep(every)

    watching = asyncio.create_task(watch())
    try:
        yield found
    finally:
        watching.cancel()
