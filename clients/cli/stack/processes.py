"""Processes that end with the process that started them, each the leader of a session of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from clients.cli.stack.parts import Launch
from clients.common.die_with_parent import bound_to_this_process

_SHARED_MEMORY: Final = Path("/dev/shm")
_LINE_LIMIT: Final = 1 << 20
_POLL_SECONDS: Final = 0.05


def guarded_command(part: Launch) -> list[str]:
    """The part's command, bound to the life of this process."""
    return bound_to_this_process(part.command)


class PartProcess:
    """A running part.

    Args:
        part: the part that is run.
        on_line: called with each line that it prints.
    """

    def __init__(self, part: Launch, on_line: Callable[[str, str], None]) -> None:
        self.part = part
        self._on_line = on_line
        self._process: asyncio.subprocess.Process | None = None
        self._pump: asyncio.Task[None] | None = None
        self.started = 0.0

    async def start(self) -> None:
        """Start it; its output is read from now on."""
        self.started = time.monotonic()
        self._process = await asyncio.create_subprocess_exec(
            *guarded_command(self.part),
            env=self.part.full_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            limit=_LINE_LIMIT,
        )
        self._pump = asyncio.create_task(self._read())

    async def ended(self) -> int:
        """Wait for its end, and end the processes that it has left in its session.

        The end is polled: ``Process.wait`` of asyncio also waits until nobody holds the output open, and a process that was left may hold it for ever.

        Returns:
            Its exit status.
        """
        assert self._process is not None
        assert self._pump is not None
        while (status := self._process.returncode) is None:
            await asyncio.sleep(_POLL_SECONDS)
        kill_group(self._process.pid)
        remove_shared_memory(self.part, self._process.pid)
        await self._pump
        return status

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def stop(self, patience: float) -> None:
        """Ask it to end, and kill it if it does not.

        Args:
            patience: seconds before it is killed.
        """
        if self._process is None:
            return
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(patience):
                await self.ended()
        except TimeoutError:
            self.kill()
            await self.ended()

    def kill(self) -> None:
        """End it and all that it started, at once."""
        if self._process is not None:
            kill_group(self._process.pid)

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:  # longer than the limit
                continue
            if not line:
                return
            self._on_line(self.part.name, line.decode(errors="replace").rstrip("\n"))


def kill_group(leader: int) -> None:
    """Kill the rest of a session's process group, if there is any."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def remove_shared_memory(part: Launch, pid: int) -> None:
    """Remove the shared memory that a killed part has left."""
    if part.shared_memory_prefix:
        for path in _SHARED_MEMORY.glob(f"{part.shared_memory_prefix}{pid}_*"):
            path.unlink(missing_ok=True)
