"""Scoring a shard: every line once, whatever the gateway does."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from clients.batch.errors import BatchError, GatewayNotReadyError
from clients.batch.journal import Journal
from clients.batch.keeping import Keeper
from clients.batch.manifest import Line
from clients.batch.plan import Options, Plan, make_plan
from clients.batch.recovery import Recovery
from clients.batch.scoring import ATTEMPTS, Scorer
from clients.batch.window import Window
from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all_client import ServiceError
from tests.clients.batch.fake_gateway import FakeGateway
from tests.clients.batch.making import diagnosis

OVERLOADED = ServiceError("RESOURCE_EXHAUSTED", "OVERLOADED", "Too much work.", retry_after=0.01)
REFUSED = ServiceError("INVALID_ARGUMENT", "IMAGE_TRUNCATED", "The image is cut off.")


class Shard:
    """A shard with images on disk; image N holds the text N."""

    def __init__(self, folder: Path, count: int) -> None:
        self.path = folder / "journal.sqlite"
        self.lines = [Line(number, str(folder / f"{number}.png")) for number in range(count)]
        for line in self.lines:
            Path(line.uri).write_bytes(str(line.number).encode())
        self.plan: Plan = make_plan(self.lines, Options("release-1"), {}, None)

    async def score(self, fake: FakeGateway, window: Window | None = None, patience: float = 60.0) -> None:
        journal = Journal(self.path, 1)
        keeper = Keeper(journal)
        gateway = fake.gateway()
        scorer = Scorer(gateway, self.plan, keeper, window or Window(), Recovery(gateway.is_ready, patience))
        writing = asyncio.create_task(keeper.write_on())
        finished = journal.finished()
        try:
            async with asyncio.timeout(20.0):
                await scorer.score([line for line in self.lines if line.number not in finished])
        finally:
            writing.cancel()
            await keeper.write()
            keeper.close()
            journal.close()

    def rows(self) -> list[dict[str, Any]]:
        return list(Journal(self.path, 1).rows())

    def attempts(self) -> dict[int, int]:
        return Journal(self.path, 1).attempts()


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    return Shard(tmp_path, 30)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clients.batch.recovery._FIRST_PAUSE", 0.01)
    return


def number(request: diagnosis_pb2.DiagnoseRequest) -> int:
    return int(request.image)


async def test_every_line_is_asked_once_with_its_options(shard: Shard) -> None:
    fake = FakeGateway(seconds=0.005)
    await shard.score(fake)
    rows = shard.rows()
    assert [row["line"] for row in rows] == list(range(30))
    assert all(row["status"] == "answered" and row["attempts"] == 1 for row in rows)
    assert set(fake.came.values()) == {1}
    assert {r.priority for r in fake.requests} == {diagnosis_pb2.PRIORITY_BATCH}
    assert {r.release for r in fake.requests} == {"release-1"}
    assert shard.attempts() == {}


async def test_more_are_under_way_while_nothing_is_refused(shard: Shard) -> None:
    fake = FakeGateway(seconds=0.1)
    await shard.score(fake, Window(limit=4.0))
    assert fake.most_under_way > 4
    fake = FakeGateway(seconds=0.01)
    (shard.path).unlink()
    await shard.score(fake, Window(most=2.0))
    assert fake.most_under_way == 2


async def test_refused_for_too_much_work_is_asked_again_and_costs_no_attempt(shard: Shard) -> None:
    def busy(request: diagnosis_pb2.DiagnoseRequest, came: int) -> Any:
        return OVERLOADED if came <= 4 and number(request) % 3 == 0 else diagnosis()

    window = Window(limit=16.0)
    await shard.score(FakeGateway(busy, seconds=0.002), window)
    rows = shard.rows()
    assert len(rows) == 30
    assert {row["attempts"] for row in rows} == {1}
    assert window.limit < 16.0


async def test_an_image_of_its_own_fault_has_a_row_at_once(shard: Shard) -> None:
    (Path(shard.lines[3].uri)).unlink()
    fake = FakeGateway(lambda request, _: REFUSED if number(request) == 7 else diagnosis())
    await shard.score(fake)
    rows = shard.rows()
    assert [(row["line"], row["error_reason"]) for row in rows if row["status"] == "refused"] == [(3, "FILE_UNREADABLE"), (7, "IMAGE_TRUNCATED")]
    assert fake.came[b"7"] == 1


async def test_a_poison_image_is_set_aside_alone_and_harms_no_other(shard: Shard) -> None:
    fake = FakeGateway(lambda request, _: None if number(request) == 11 else diagnosis(), seconds=0.003)
    await shard.score(fake)
    rows = shard.rows()
    assert [row["line"] for row in rows] == list(range(30))
    assert [(row["line"], row["attempts"]) for row in rows if row["status"] == "set_aside"] == [(11, ATTEMPTS)]
    assert fake.came[b"11"] == ATTEMPTS
    alone = [images for images in fake.together if b"11" in images]
    assert all(images == {b"11"} for images in alone[1:])


async def test_an_outage_is_waited_for_and_what_was_lost_is_done_again(shard: Shard) -> None:
    def once(request: diagnosis_pb2.DiagnoseRequest, came: int) -> Any:
        return None if number(request) in (5, 20) and came == 1 else diagnosis()

    await shard.score(FakeGateway(once, seconds=0.003))
    rows = shard.rows()
    assert len(rows) == 30
    assert all(row["status"] == "answered" for row in rows)
    assert max(row["attempts"] for row in rows) == 2


async def test_a_failure_inside_is_tried_again(shard: Shard) -> None:
    broken = ServiceError("INTERNAL", "INTERNAL", "Internal error.")
    fake = FakeGateway(lambda request, came: broken if number(request) == 2 and came < 3 else broken if number(request) == 4 else diagnosis())
    await shard.score(fake)
    rows = {row["line"]: row for row in shard.rows()}
    assert (rows[2]["status"], rows[2]["attempts"]) == ("answered", 3)
    assert (rows[4]["status"], rows[4]["attempts"]) == ("set_aside", 3)
    assert "INTERNAL" in rows[4]["error_message"]


async def test_interrupted_in_order_costs_no_attempt_and_goes_on(shard: Shard) -> None:
    fake = FakeGateway(seconds=0.05)
    scoring = asyncio.ensure_future(shard.score(fake))
    while sum(fake.came.values()) < 12:
        await asyncio.sleep(0.005)
    scoring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await scoring
    before = len(shard.rows())
    assert 0 < before < 30
    assert sum(shard.attempts().values()) <= 8, "only what was being read"
    fake = FakeGateway()
    await shard.score(fake)
    assert [row["line"] for row in shard.rows()] == list(range(30))
    assert sum(fake.came.values()) == 30 - before


async def test_a_killed_worker_leaves_attempts_that_are_gone_on_from(shard: Shard) -> None:
    journal = Journal(shard.path, 1)
    journal.begin([0, 1])
    journal.begin([1])
    journal.begin([1])
    journal.close()
    fake = FakeGateway()
    await shard.score(fake)
    rows = {row["line"]: row for row in shard.rows()}
    assert (rows[0]["status"], rows[0]["attempts"]) == ("answered", 2)
    assert rows[1]["status"] == "set_aside"
    assert fake.came[b"1"] == 0


async def test_a_gateway_that_refuses_everything_for_too_long_ends_the_worker(shard: Shard) -> None:
    with pytest.raises(GatewayNotReadyError):
        await shard.score(FakeGateway(lambda *_: OVERLOADED), patience=0.2)
    assert shard.rows() == []
    assert shard.attempts() == {}


async def test_a_gateway_that_lets_nobody_in_ends_the_batch(shard: Shard) -> None:
    with pytest.raises(BatchError, match="refuses the batch"):
        await shard.score(FakeGateway(lambda *_: ServiceError("PERMISSION_DENIED", "PERMISSION_DENIED", "No.")))


async def test_a_release_that_is_missing_for_a_moment_is_waited_for(shard: Shard) -> None:
    missing = ServiceError("NOT_FOUND", "RELEASE_UNKNOWN", "There is no release release-1.")
    await shard.score(FakeGateway(lambda request, came: missing if number(request) == 0 and came == 1 else diagnosis()))
    assert all(row["status"] == "answered" for row in shard.rows())
    assert len(shard.rows()) == 30


async def test_a_stream_that_is_refused_at_the_very_end_is_opened_again(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    """All images of the last stream come back when nothing else is under way any more; the disk is slow just then."""
    fake = FakeGateway()
    calls = 0
    real = fake.diagnose_stream

    async def refusing(requests: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            await anext(requests)
            raise OVERLOADED
        async for answer in real(requests):
            yield answer

    fake.diagnose_stream = refusing  # type: ignore[method-assign]
    taking_back = Journal.take_back

    def slowly(journal: Journal, numbers: Any) -> None:
        time.sleep(0.2)
        taking_back(journal, numbers)

    monkeypatch.setattr(Journal, "take_back", slowly)
    shard.lines = shard.lines[:1]
    await shard.score(fake)
    assert [row["status"] for row in shard.rows()] == ["answered"]


async def test_a_store_that_fails_for_a_moment_is_asked_again(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Counter[str] = Counter()

    def reading(uri: str) -> bytes:
        asked[uri] += 1
        if uri.endswith("/5.png") and asked[uri] == 1:
            raise ConnectionError("the store does not answer")
        if uri.endswith("/6.png"):
            raise ConnectionError("the store does not answer")
        if uri.endswith("/7.png"):
            raise FileNotFoundError(uri)
        return uri.rpartition("/")[2].removesuffix(".png").encode()

    monkeypatch.setattr("clients.batch.scoring.read_image", reading)
    shard.lines = [Line(line.number, f"s3://bucket/{line.number}.png") for line in shard.lines]
    await shard.score(FakeGateway())
    rows = {row["line"]: row for row in shard.rows()}
    assert len(rows) == 30
    assert (rows[5]["status"], rows[5]["attempts"]) == ("answered", 2)
    assert (rows[6]["status"], rows[6]["attempts"]) == ("set_aside", 3)
    assert "the store does not answer" in rows[6]["error_message"]
    assert (rows[7]["status"], rows[7]["attempts"]) == ("refused", 1)
