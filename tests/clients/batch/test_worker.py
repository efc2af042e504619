"""Workers: one shard each, fenced, resumed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from clients.batch.errors import GatewayNotReadyError
from clients.batch.manifest import Line
from clients.batch.merging import finished_tables
from clients.batch.plan import Options, make_plan, read_plan, write_plan
from clients.batch.shard_file import finished_name
from clients.batch.store import Store
from clients.batch.worker import Work, Worker, main, work_on
from dl4all_client import ServiceError
from tests.clients.batch.fake_gateway import FakeGateway, answer


def batch(folder: Path, count: int, shard_size: int) -> Store:
    lines = [Line(number, str(folder / f"{number}.png")) for number in range(count)]
    for line in lines:
        Path(line.uri).write_bytes(str(line.number).encode())
    store = Store(str(folder / "out"))
    write_plan(store, make_plan(lines, Options("release-1"), {}, None, shard_size), lines)
    return store


def worker(store: Store, fake: FakeGateway) -> Worker:
    return Worker(store, read_plan(store), fake.gateway(), Work(store.location), store.folder or Path())


def lines_of(store: Store) -> list[int]:
    return [line for table in finished_tables(store, read_plan(store)) for line in table["line"].to_pylist()]


async def test_a_worker_finishes_every_shard(tmp_path: Path) -> None:
    store, fake = batch(tmp_path, 10, 4), FakeGateway()
    await worker(store, fake).work_shards()
    assert lines_of(store) == list(range(10))
    assert set(fake.came.values()) == {1}
    await worker(store, fake).work_shards()
    assert set(fake.came.values()) == {1}, "what is finished is not done again"


async def test_workers_share_the_shards(tmp_path: Path) -> None:
    store, fake = batch(tmp_path, 24, 4), FakeGateway(seconds=0.01)
    async with asyncio.timeout(30):
        await asyncio.gather(*(worker(store, fake).work_shards(first=first) for first in (0, 2, 4)))
    assert lines_of(store) == list(range(24))
    assert set(fake.came.values()) == {1}


async def test_one_shard_waits_for_its_holder(tmp_path: Path) -> None:
    store, fake = batch(tmp_path, 4, 2), FakeGateway(seconds=0.1)
    await asyncio.gather(*(worker(store, fake).wait_and_work(1) for _ in range(2)))
    assert finished_name(store, 0) is None
    assert finished_name(store, 1) == "shards/000001/part-000001.parquet"
    assert sum(fake.came.values()) == 2


async def test_a_worker_that_was_followed_writes_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first worker hangs; a second one takes over and finishes; the first wakes up and changes nothing."""
    monkeypatch.setattr("clients.batch.worker._BEAT_SECONDS", 1000.0)
    store, slow, quick = batch(tmp_path, 3, 3), FakeGateway(seconds=1.0), FakeGateway()
    first, second = worker(store, slow), worker(store, quick)
    hanging = asyncio.ensure_future(first.work_shard(0))
    await asyncio.sleep(0.3)
    second.claimer._seconds = 0.2
    assert not await second.work_shard(0)
    await asyncio.sleep(0.3)
    assert await second.work_shard(0)
    assert not await hanging
    assert store.names("shards/000000") == [
        "journal.sqlite",
        "lease-000001.json",
        "lease-000002.json",
        "part-000002.parquet",
    ]
    assert set(quick.came.values()) == {1}


async def test_an_object_store_keeps_what_is_finished(tmp_path: Path) -> None:
    lines = [Line(number, str(tmp_path / f"{number}.png")) for number in range(4)]
    for line in lines:
        Path(line.uri).write_bytes(b"x")
    store = Store(f"memory://{tmp_path.name}-worker")
    write_plan(store, make_plan(lines, Options("release-1"), {}, None), lines)

    def stop_at_two(request: Any, came: int) -> Any:
        return ServiceError("PERMISSION_DENIED", "PERMISSION_DENIED", "No.") if len(fake.requests) > 2 else answer(request, came)

    fake = FakeGateway(stop_at_two)
    failing = Worker(store, read_plan(store), fake.gateway(), Work(store.location, most=1.0), tmp_path / "one")
    with pytest.raises(Exception, match="refuses the batch"):
        await failing.work_shard(0)
    assert "journal-000001.sqlite" in store.names("shards/000000")
    again = FakeGateway()
    await Worker(store, read_plan(store), again.gateway(), Work(store.location), tmp_path / "two").work_shard(0)
    assert sum(again.came.values()) == 2
    assert lines_of(store) == [0, 1, 2, 3]


async def test_a_gateway_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    store = batch(tmp_path, 1, 1)
    with pytest.raises(GatewayNotReadyError, match="does not answer"):
        await work_on(Work(store.location, address="127.0.0.1:9", patience=0.5))


def test_exit_statuses_say_whether_to_try_again(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    store = batch(tmp_path, 1, 1)
    assert main([store.location, "--address", "127.0.0.1:9", "--patience", "0.5"]) == 75
    assert main([str(tmp_path / "none")]) == 1
    assert "There is no batch" in capsys.readouterr().err
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "7")
    monkeypatch.setattr("clients.batch.worker.open_gateway", FakeGateway().opened)
    assert main([store.location]) == 1
    assert "there is no shard 7" in capsys.readouterr().err
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    assert main([store.location]) == 0
    assert lines_of(store) == [0]
