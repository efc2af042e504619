"""A worker of a batch: it claims shards and scores them. ``python -m clients.batch.worker --help``.

Exit status: 0 when there is no more work; 75 when the gateway was not ready for too long, and the same command can go on later; 1 when the batch or
the gateway is not as it must be; 130 when it was interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

from clients.batch.errors import BatchError, GatewayNotReadyError, LeaseLostError
from clients.batch.gateways import Gateway, open_gateway, resolve_releases
from clients.batch.journal import Journal
from clients.batch.journal_copies import fetch_journal, keep_journal
from clients.batch.keeping import Keeper
from clients.batch.lease import Claimer, Lease
from clients.batch.plan import Plan, lines_of, read_plan, shard_folder
from clients.batch.recovery import PATIENCE_SECONDS, Recovery
from clients.batch.scoring import Scorer
from clients.batch.shard_file import finished_name, write_finished
from clients.batch.store import Store
from clients.batch.window import MOST, Window
from dl4all_client import ServiceError

INDEX_VARIABLE: Final = "JOB_COMPLETION_INDEX"
"""Kubernetes sets it in the pods of an Indexed Job: the shard of the pod."""
NOT_READY_STATUS: Final = 75
INTERRUPTED_STATUS: Final = 130
_BEAT_SECONDS: Final = 1.0
_REMOTE_BEAT_SECONDS: Final = 5.0
_BEATS_OF_COPY: Final = 6
_LOOK_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Work:
    """How a worker works.

    Attributes:
        location: of the batch, a path or a URI.
        address: of the gateway; None for the one of the plan.
        folder: for journals, where the batch lies on an object store; None for one that is deleted at the end.
        most: images under way at most.
        patience: seconds without a finished image before the worker gives up.
        threads: for images, where the services run in the worker; None for the setting of the services.
    """

    location: str
    address: str | None = None
    folder: Path | None = None
    most: float = MOST
    patience: float = PATIENCE_SECONDS
    threads: int | None = None


@dataclass
class Worker:
    """A worker with an open gateway.

    Attributes:
        store: of the batch.
        plan: of the batch.
        gateway: that scores.
        work: how it works.
        folder: for journals.
    """

    store: Store
    plan: Plan
    gateway: Gateway
    work: Work
    folder: Path
    claimer: Claimer = field(init=False)
    window: Window = field(init=False)

    def __post_init__(self) -> None:
        self.claimer = Claimer(self.store)
        self.window = Window(min(self.work.most, self.gateway.most))

    async def work_shards(self, first: int = 0) -> None:
        """Work until every shard is finished, by this worker or by others.

        Args:
            first: the shard to begin with; workers that begin with different ones meet late.

        Raises:
            BatchError: see ``Scorer.score``.
        """
        order = [(first + i) % self.plan.shards for i in range(self.plan.shards)]
        while order:
            order = [shard for shard in order if finished_name(self.store, shard) is None]
            worked = False
            for shard in order:
                worked |= await self.work_shard(shard)
            if order and not worked:
                await asyncio.sleep(_LOOK_SECONDS)

    async def wait_and_work(self, shard: int) -> None:
        """Work on one shard, as soon as no other worker does, until it is finished."""
        lines_of(self.store, self.plan, shard)
        while finished_name(self.store, shard) is None:
            if not await self.work_shard(shard):
                await asyncio.sleep(_LOOK_SECONDS)

    async def work_shard(self, shard: int) -> bool:
        """Finish a shard.

        Returns:
            Whether it is finished; False where another worker holds it.

        Raises:
            BatchError: see ``Scorer.score``.
        """
        if finished_name(self.store, shard) is not None:
            return True
        lease = self.claimer.claim(shard)
        if lease is None:
            return False
        with suppress(LeaseLostError):
            await self._score(shard, lease)
            return True
        return False

    async def _score(self, shard: int, lease: Lease) -> None:
        path = self.folder / shard_folder(shard) / "journal.sqlite"
        fetch_journal(self.store, shard, path)
        journal = Journal(path, lease.token)
        keeper = Keeper(journal)
        lines = lines_of(self.store, self.plan, shard)
        finished = journal.finished()
        scorer = Scorer(self.gateway, self.plan, keeper, self.window, Recovery(self.gateway.is_ready, self.work.patience))
        try:
            async with asyncio.TaskGroup() as group:
                beats = group.create_task(self._beat(lease, keeper))
                writing = group.create_task(keeper.write_on())
                await scorer.score([line for line in lines if line.number not in finished])
                for task in (beats, writing):
                    task.cancel()
            await keeper.write()
            await asyncio.to_thread(lease.check)
            await asyncio.to_thread(write_finished, self.store, shard, lease.token, lines, journal.rows())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        finally:
            with suppress(LeaseLostError):
                await keeper.write()
                await keep_journal(self.store, shard, lease.token, keeper)
                await asyncio.to_thread(lease.release, keeper.done, keeper.failed)
            keeper.close()
            journal.close()

    async def _beat(self, lease: Lease, keeper: Keeper) -> None:
        """Renew the lease again and again; now and then copy the journal to an object store."""
        pause = _BEAT_SECONDS if self.store.folder is not None else _REMOTE_BEAT_SECONDS
        for beat in count(1):
            await asyncio.sleep(pause)
            await asyncio.to_thread(lease.renew, keeper.done, keeper.failed)
            if beat % _BEATS_OF_COPY == 0:
                await keep_journal(self.store, lease.shard, lease.token, keeper)


async def work_on(work: Work, shard: int | None = None, first: int = 0) -> None:
    """Work on a batch.

    Args:
        work: how.
        shard: the only shard to work on; None for all.
        first: the shard to begin with.

    Raises:
        BatchError: see ``Worker``; or there is no batch.
        ServiceError: the gateway cannot be opened.
    """
    store = Store(work.location)
    plan = read_plan(store)
    with tempfile.TemporaryDirectory(prefix="dl4all-batch-") as temporary:
        folder = store.folder or work.folder or Path(temporary)
        async with open_gateway(work.address or plan.address, work.threads) as gateway:
            await _check_releases(gateway, plan, work.patience)
            worker = Worker(store, plan, gateway, work, folder)
            await (worker.work_shards(first) if shard is None else worker.wait_and_work(shard))


async def _check_releases(gateway: Gateway, plan: Plan, patience: float) -> None:
    """Make sure that the gateway has the releases of the plan, as soon as it answers."""
    end = time.monotonic() + patience
    while True:
        try:
            await resolve_releases(gateway, {plan.options.release, *plan.releases.values()})
            return
        except ServiceError as error:
            if time.monotonic() > end:
                raise GatewayNotReadyError(f"The gateway does not answer: {error.message}") from error
            await asyncio.sleep(_LOOK_SECONDS)


def run(work: Work, shard: int | None = None, first: int = 0) -> int:
    """Work on a batch until it is finished or this process is asked to end; returns the exit status."""
    try:
        asyncio.run(_until_signal(work, shard, first))
    except GatewayNotReadyError as error:
        print(error, file=sys.stderr)
        return NOT_READY_STATUS
    except (BatchError, ServiceError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        return INTERRUPTED_STATUS
    return 0


async def _until_signal(work: Work, shard: int | None, first: int) -> None:
    working = asyncio.ensure_future(work_on(work, shard, first))
    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(ValueError, RuntimeError):  # another thread than the main one, as in some engines
            asyncio.get_running_loop().add_signal_handler(number, working.cancel)
    await working


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m clients.batch.worker", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("location", help="the batch: a folder, or a URI of an object store")
    parser.add_argument("--address", help="HOST:PORT of the gateway; default: as planned")
    parser.add_argument("--folder", type=Path, help="for journals, where the batch lies on an object store; keep it for the next start")
    parser.add_argument("--in-flight", type=float, default=MOST, help="images under way at most")
    parser.add_argument("--patience", type=float, default=PATIENCE_SECONDS, help="seconds without a finished image before the worker gives up")
    parser.add_argument("--threads", type=int, help="for images, where the services run in the worker; default: DL4ALL_WORKERS")
    parser.add_argument("--first", type=int, default=0, help="the shard to begin with")
    index = os.environ.get(INDEX_VARIABLE)
    parser.add_argument("--shard", type=int, default=index, help=f"the only shard to work on; default: {INDEX_VARIABLE}, if it is set, else all")
    given = parser.parse_args(arguments)
    work = Work(given.location, given.address, given.folder, given.in_flight, given.patience, given.threads)
    return run(work, given.shard, given.first)


if __name__ == "__main__":
    raise SystemExit(main())
