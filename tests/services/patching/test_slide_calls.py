"""Slots of slides: who takes one, for how long, and who gets none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from services.common.errors import ConfigurationError, DomainError
from services.common.phantom import PhantomOptions, smear_field
from services.common.workers import Workers
from services.patching.settings import PatchingSettings
from services.patching.slide_calls import SlideCalls
from tests.services.patching.drawn_maps import by_the_stain
from tests.services.patching.slides.dicom_files import write_dicom

Request = patching_pb2.LocateSlideRequest


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    made = Workers(2)
    yield made
    made.close()


def calls(workers: Workers, folder: Path, **settings: float) -> SlideCalls:
    wanted = PatchingSettings(slide_uploads=folder / "uploads", slides_root=folder, slides_at_once=1, **settings)  # type: ignore[arg-type]
    return SlideCalls(wanted, by_the_stain(workers), workers)


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


def test_a_folder_of_uploads_that_cannot_be_written_is_found_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "uploads").write_bytes(b"a file")
    workers = Workers(1)
    try:
        with pytest.raises(ConfigurationError) as caught:
            calls(workers, tmp_path)
        assert caught.value.reason == "SLIDE_UPLOADS_UNWRITABLE"
    finally:
        workers.close()


async def test_a_folder_with_links_below_the_root_is_read_and_two_slides_are_told_by_name(workers: Workers, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(150, 250, (96, 128, 3), np.uint8)
    for folder in ("store", "links", "two"):
        (tmp_path / folder).mkdir()
    write_dicom(tmp_path / "store" / "1", pixels)
    (tmp_path / "links" / "slide.dcm").symlink_to(tmp_path / "store" / "1")
    slides = calls(workers, tmp_path)
    assert await reason(slides, sent(start(path="links"))) == "none"
    write_dicom(tmp_path / "two" / "a.dcm", pixels)
    write_dicom(tmp_path / "two" / "b.dcm", pixels)
    with pytest.raises(DomainError, match=r"a\.dcm and b\.dcm"):
        async for _ in slides.locate(sent(start(path="two"))):
            pass


async def test_doubts_about_the_colours_are_noted(workers: Workers, tmp_path: Path) -> None:
    field = smear_field(1, PhantomOptions(width=640, height=480, cells=8)).image
    ycbcr = np.ascontiguousarray(cv2.cvtColor(field, cv2.COLOR_RGB2YCrCb)[..., (0, 2, 1)])
    for name, pixels in (("true", field), ("false", ycbcr)):
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric="rgb", tile=(64, 64))
    slides = calls(workers, tmp_path)
    notes = {}
    for name in ("true", "false"):
        async for part in slides.locate(sent(start(path=f"{name}.tif"))):
            if part.HasField("facts"):
                notes[name] = list(part.facts.notes)
    assert "COLOURS_DOUBTED" in notes["false"]
    assert "COLOURS_DOUBTED" not in notes["true"]
