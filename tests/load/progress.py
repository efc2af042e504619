"""Progress bars of phases whose length is known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_TICK_SECONDS: Final = 0.5
console = Console(stderr=True)


class Bars:
    """One bar for the whole, and one for the phase that runs.

    Args:
        seconds: that all phases will take, about.
    """

    def __init__(self, seconds: float) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, auto_refresh=False)
        self._whole = self._progress.add_task("all", total=seconds)
        self._phase = self._progress.add_task("", total=1.0)

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(text, highlight=False)

    @asynccontextmanager
    async def phase(self, name: str, seconds: float) -> AsyncIterator[None]:
        """Show a phase while it runs."""
        self._progress.reset(self._phase, description=name, total=seconds)
        ticking = asyncio.create_task(self._tick(seconds))
        try:
            yield
        finally:
            ticking.cancel()
            self._progress.refresh()

    async def _tick(self, seconds: float) -> None:
        started, shown = time.monotonic(), 0.0
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            passed = min(time.monotonic() - started, seconds)
            self._progress.advance(self._whole, passed - shown)
            self._progress.update(self._phase, completed=passed)
            self._progress.refresh()
            shown = passed
