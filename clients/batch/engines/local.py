"""Runs shards in processes of this machine."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import IO, Final

from clients.batch.engines.base import OnLook
from clients.batch.errors import BatchError, GatewayNotReadyError
from clients.batch.plan import Plan
from clients.batch.status import StatusReader
from clients.batch.store import Store
from clients.batch.worker import NOT_READY_STATUS, Work
from clients.common.die_with_parent import bound_to_this_process

_LOOK_SECONDS: Final = 0.25
_END_SECONDS: Final = 60.0
_RESTARTS: Final = 6
"""A worker that is killed, for example by an image that its services cannot bear, is started again so often without progress."""
_SAID_BYTES: Final = 2000


@dataclass
class _Process:
    process: subprocess.Popen[bytes]
    said: IO[bytes]

    def last_words(self) -> str:
        """The end of what it wrote on standard error."""
        size = self.said.seek(0, 2)
        self.said.seek(max(0, size - _SAID_BYTES))
        return self.said.read().decode("utf-8", "replace").strip()


class LocalEngine:
    """Worker processes on this machine; they end when this process does.

    Args:
        workers: how many.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def run(self, plan: Plan, work: Work, on_look: OnLook) -> None:
        """See ``Engine``."""
        status = StatusReader(Store(work.location), plan)
        count = max(1, min(self._workers, plan.shards))
        running = {place: _start(work, place * plan.shards // count) for place in range(count)}
        restarts, done = 0, status.read().done
        try:
            while running:
                time.sleep(_LOOK_SECONDS)
                on_look()
                for place, one in list(running.items()):
                    ended = one.process.poll()
                    if ended is None:
                        continue
                    del running[place]
                    if ended == 0:
                        continue
                    _raise_if_told(ended, one.last_words())
                    now = status.read().done
                    restarts, done = (0 if now > done else restarts + 1), now
                    if restarts > _RESTARTS:
                        raise BatchError(f"Workers end again and again without progress; the last one ended with status {ended}: {one.last_words()}")
                    running[place] = _start(work, place * plan.shards // count)
        finally:
            _end(list(running.values()))
            on_look()


def _raise_if_told(status: int, words: str) -> None:
    """Raise what a worker said that ended by its own will."""
    if status == NOT_READY_STATUS:
        raise GatewayNotReadyError(words)
    if status == 1:
        raise BatchError(words)


def _start(work: Work, first: int) -> _Process:
    options = [f"--first={first}", f"--in-flight={work.most}", f"--patience={work.patience}"]
    options += [] if work.address is None else [f"--address={work.address}"]
    options += [] if work.folder is None else [f"--folder={work.folder}"]
    options += [] if work.threads is None else [f"--threads={work.threads}"]
    said = tempfile.TemporaryFile(prefix="dl4all-worker-")  # noqa: SIM115 - it lives as long as the worker
    command = bound_to_this_process([sys.executable, "-m", "clients.batch.worker", work.location, *options])
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True)
    return _Process(process, said)


def _end(running: list[_Process]) -> None:
    """End workers in order; they keep what is finished and give their shards back."""
    for one in running:
        one.process.terminate()
    end = time.monotonic() + _END_SECONDS
    for one in running:
        try:
            one.process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()
