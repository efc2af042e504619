"""Processes of a stack."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from clients.cli.stack.parts import Launch
from clients.cli.stack.processes import PartProcess
from tests.running import eventually, runs

pytestmark = pytest.mark.processes
_LEAVES_A_CHILD = "import subprocess, os; print(os.getpid(), subprocess.Popen(['sleep', '300']).pid, flush=True); import time; time.sleep(300)"


def test_the_end_is_seen_though_a_child_that_was_left_holds_the_output_open() -> None:
    async def left() -> tuple[int, int]:
        lines: asyncio.Queue[str] = asyncio.Queue()
        process = PartProcess(Launch("part", (sys.executable, "-c", _LEAVES_A_CHILD), {}, 0, 0), lambda _, line: lines.put_nowait(line))
        await process.start()
        leader, child = (int(word) for word in (await asyncio.wait_for(lines.get(), 30)).split())
        os.kill(leader, signal.SIGKILL)
        return await asyncio.wait_for(process.ended(), 30), child

    status, child = asyncio.run(left())
    assert status == -signal.SIGKILL
    eventually(lambda: not runs(child), 20)
