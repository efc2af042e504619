"""Slots of slides: who takes one, for how long, and who gets none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from services.common.errors import DomainError
from services.common.workers import Workers
from services.patching.settings import PatchingSettings
from services.patching.slide_calls import SlideCalls

Request = patching_pb2.LocateSlideRequest


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    made = Workers(2)
    yield made
    made.close()


def calls(workers: Workers, folder: Path, **settings: float) -> SlideCalls:
    return SlideCalls(PatchingSettings(slide_uploads=folder / "uploads", slides_root=folder, slides_at_once=1, **settings), workers)  # type: ignore[arg-type]


def start(**source: object) -> Request:
    return Request(start=patching_pb2.LocateSlideStart(request_id="a", source=imaging_pb2.SlideSource(**source)))  # type: ignore[arg-type]


def chunk(count: int = 1) -> Request:
    return Request(chunk=imaging_pb2.SlideChunk(data=bytes(count)))


async def sent(*requests: Request, pause: float = 0.0, end: bool = True) -> AsyncIterator[Request]:
    """Requests with a pause before each but the first; without an end the caller stays silent."""
    for number, request in enumerate(requests):
        await asyncio.sleep(pause if number else 0.0)
        yield request
    if not end:
        await asyncio.Event().wait()


async def reason(slides: SlideCalls, requests: AsyncIterator[Request]) -> str:
    async with asyncio.timeout(20):
        try:
            async for _ in slides.locate(requests):
                pass
        except DomainError as error:
            return error.reason
    return "none"


async def busy(slides: SlideCalls) -> asyncio.Task[str]:
    """A call that holds the slot: it has announced bytes that do not come."""
    task = asyncio.create_task(reason(slides, sent(start(upload_bytes=1000), chunk(), end=False)))
    for _ in range(200):
        await asyncio.sleep(0.01)
        if slides._under_way:
            break
    return task


async def test_a_call_without_a_start_takes_no_slot_and_ends(workers: Workers, tmp_path: Path) -> None:
    slides = calls(workers, tmp_path, slide_chunk_seconds=0.2)
    silent = asyncio.create_task(reason(slides, sent(end=False)))
    await asyncio.sleep(0.05)
    assert slides._under_way == 0
    assert await silent == "SLIDE_START_MISSING"


@pytest.mark.parametrize(
    ("request_sent", "expected"),
    [
        (chunk(), "SLIDE_START_MISSING"),
        (Request(start=patching_pb2.LocateSlideStart(request_id="a")), "SLIDE_SOURCE_MISSING"),
        (start(upload_bytes=0), "UPLOAD_BYTES_OUT_OF_RANGE"),
        (start(upload_bytes=2**60), "SLIDE_TOO_LARGE"),
        (start(path="../x"), "SLIDE_PATH_INVALID"),
        (start(path="none.tif"), "SLIDE_NOT_FOUND"),
    ],
)
async def test_a_start_that_is_wrong_is_told_so_even_when_all_slots_are_taken(
    workers: Workers, tmp_path: Path, request_sent: Request, expected: str
) -> None:
    slides = calls(workers, tmp_path)
    first = await busy(slides)
    assert await reason(slides, sent(request_sent)) == expected
    assert await reason(slides, sent(start(upload_bytes=10), chunk(10))) == "SLIDES_BUSY"
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "a byte now and then"])
async def test_a_slow_upload_loses_its_slot_and_its_file(workers: Workers, tmp_path: Path, silent: bool) -> None:
    slides = calls(workers, tmp_path, slide_grace_seconds=0.3, slide_bytes_per_second=10**6)
    requests = sent(start(upload_bytes=1000), chunk(), end=False) if silent else sent(start(upload_bytes=1000), *([chunk()] * 900), pause=0.05)
    assert await reason(slides, requests) == "UPLOAD_TOO_SLOW"
    assert slides._under_way == 0
    assert not list((tmp_path / "uploads").iterdir())


async def test_an_upload_that_is_fast_enough_is_read(workers: Workers, tmp_path: Path) -> None:
    slides = calls(workers, tmp_path, slide_grace_seconds=0.5, slide_bytes_per_second=10)
    assert await reason(slides, sent(start(upload_bytes=1000), *([chunk(200)] * 5), pause=0.2)) == "SLIDE_UNKNOWN_FORMAT"


async def test_a_pause_longer_than_allowed_is_an_incomplete_upload(workers: Workers, tmp_path: Path) -> None:
    slides = calls(workers, tmp_path, slide_chunk_seconds=0.2, slide_bytes_per_second=0)
    assert await reason(slides, sent(start(upload_bytes=1000), chunk(), end=False)) == "UPLOAD_INCOMPLETE"
