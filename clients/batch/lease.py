"""The lease of a shard: one worker at a time, told by a token that rises with every change of hands.

Each token is a file of its own, created only where there is none, so that of several workers one gets it. The holder writes its file anew every few
seconds. A worker takes over when a holder's file has not changed for the length of a lease by the worker's own clock, or when the holder was a process
of this machine that has ended. No two clocks are compared.
"""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from clients.batch.errors import LeaseLostError
from clients.batch.plan import shard_folder
from clients.batch.store import Store

LEASE_SECONDS: Final = 20.0
"""A holder that is silent for so long has lost the shard."""
_NAME: Final = re.compile(r"lease-(\d{6})\.json")
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Beat:
    """What a holder says of itself and its work.

    Attributes:
        worker: its name, new for every worker.
        machine: the boot of the machine that it runs on; empty where that is not known.
        process: its process id.
        started: when the process started, in the kernel's ticks; tells it from a later process with the same id.
        beat: rises with every writing.
        done: finished images of the shard.
        failed: those of them that have no diagnosis.
        is_released: whether it has given the shard back.
    """

    worker: str
    machine: str
    process: int
    started: str
    beat: int = 0
    done: int = 0
    failed: int = 0
    is_released: bool = False


@dataclass(frozen=True)
class Claim:
    """The newest lease of a shard.

    Attributes:
        token: of the lease; 0 where there never was one.
        beat: what its holder said last; None where that cannot be read.
    """

    token: int
    beat: Beat | None


class Lease:
    """A lease that this worker holds.

    Args:
        store: of the batch.
        shard: the shard.
        token: the token that the worker has got.
        beat: what it says of itself.
    """

    def __init__(self, store: Store, shard: int, token: int, beat: Beat) -> None:
        self._store = store
        self.shard = shard
        self.token = token
        self._beat = beat
        self._written = time.monotonic()

    def check(self) -> None:
        """Make sure that the shard is still this worker's.

        Raises:
            LeaseLostError: another worker has it, or may have taken it over by now.
        """
        if newest(self._store, self.shard).token != self.token:
            raise LeaseLostError(f"Another worker has taken over shard {self.shard}.")
        if time.monotonic() - self._written > LEASE_SECONDS:
            raise LeaseLostError(f"This worker was silent for too long; another one may have taken over shard {self.shard}.")

    def renew(self, done: int, failed: int) -> None:
        """Say that this worker goes on.

        Raises:
            LeaseLostError: see ``check``.
        """
        self.check()
        self._write(replace(self._beat, beat=self._beat.beat + 1, done=done, failed=failed))

    def release(self, done: int, failed: int) -> None:
        """Give the shard back."""
        self._write(replace(self._beat, beat=self._beat.beat + 1, done=done, failed=failed, is_released=True))

    def _write(self, beat: Beat) -> None:
        started = time.monotonic()
        self._beat = beat
        self._store.write(_name(self.shard, self.token), json.dumps(asdict(beat)).encode())
        self._written = started


def newest(store: Store, shard: int) -> Claim:
    """The newest lease of a shard."""
    tokens = [int(found[1]) for name in store.names(shard_folder(shard)) if (found := _NAME.fullmatch(name))]
    if not tokens:
        return Claim(0, None)
    return Claim(max(tokens), _read(store, shard, max(tokens)))


class Claimer:
    """Claims shards for one worker. It remembers for how long the holders of other shards have been silent.

    Args:
        store: of the batch.
        seconds: of silence after which a holder has lost its shard.
        clock: seconds; for tests.
    """

    def __init__(self, store: Store, seconds: float = LEASE_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._seconds = seconds
        self._clock = clock
        self._seen: dict[int, tuple[Claim, float]] = {}
        self._worker = uuid.uuid4().hex

    def claim(self, shard: int) -> Lease | None:
        """Claim a shard; None where another worker holds it, or may hold it."""
        found = newest(self._store, shard)
        if not self._is_free(shard, found):
            return None
        beat = Beat(self._worker, _machine(), os.getpid(), _started(os.getpid()))
        if not self._store.create(_name(shard, found.token + 1), json.dumps(asdict(beat)).encode()):
            return None
        return Lease(self._store, shard, found.token + 1, beat)

    def _is_free(self, shard: int, found: Claim) -> bool:
        if found.token == 0 or (found.beat is not None and (found.beat.is_released or _has_ended(found.beat))):
            return True
        before, since = self._seen.get(shard, (None, 0.0))
        if before != found:
            self._seen[shard] = (found, self._clock())
            return False
        return self._clock() - since > self._seconds


def _name(shard: int, token: int) -> str:
    return f"{shard_folder(shard)}/lease-{token:06d}.json"


def _read(store: Store, shard: int, token: int) -> Beat | None:
    content = store.read(_name(shard, token))
    try:
        return None if content is None else Beat(**json.loads(content))
    except (ValueError, TypeError):
        return None


def _has_ended(beat: Beat) -> bool:
    """Whether a holder was a process of this machine that has ended."""
    return bool(beat.machine) and beat.machine == _machine() and _started(beat.process) != beat.started


def _machine() -> str:
    """This boot of this machine, with the name space of its processes."""
    try:
        return f"{_BOOT.read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(process: int) -> str:
    """When a process started, in the kernel's ticks; empty where there is none, or where it only waits to be read by its parent."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]
