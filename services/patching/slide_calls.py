"""Slides over gRPC: chunks or a path come in; facts, progress, cells with their crops, and the end go out."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from services.common.checks import check_identifier, check_microns_per_pixel
from services.common.errors import InvalidRequestError, OverloadedError
from services.common.image_codec import ImageNote
from services.common.workers import Workers
from services.patching.cells import LocatedCell
from services.patching.crops import batches
from services.patching.locator import Locator, Locators
from services.patching.messages import cell_message, crop_message
from services.patching.settings import PatchingSettings
from services.patching.slides.location import SearchedWindow, SlideScale, search, survey, windows_of
from services.patching.slides.opening import open_slide
from services.patching.slides.slide import Slide, SlideNote
from services.patching.slides.sources import SlideDigest, Upload, below, check_announced, check_uploads, remove_left_over
from services.patching.slides.tiling import SeenCells, Window
from services.patching.upload_rate import UploadRate

PROGRESS_SECONDS: Final = 1.0
MAX_CHUNK_BYTES: Final = 8 * 1024 * 1024
_MIN_PITCH: Final = 256.0
_NO_PIXELS: Final = np.empty((0, 0, 3), np.uint8)
Result = TypeVar("Result")
Response = patching_pb2.LocateSlideResponse
Requests = AsyncIterator[patching_pb2.LocateSlideRequest]


@dataclass
class _Tally:
    """Sums over the windows of a slide."""

    seen: SeenCells
    cells: int = 0
    windows: list[SearchedWindow] = field(default_factory=list)
    areas: list[int] = field(default_factory=list)

    def add(self, window: Window, found: SearchedWindow) -> list[LocatedCell]:
        """Count a window; returns its cells that are new, px of the window."""
        self.windows.append(replace(found, pixels=_NO_PIXELS, cells=()))
        self.areas.append(window.core_width * window.core_height)
        new = self.seen.add([cell.moved(window.x, window.y) for cell in found.cells])
        return list(itertools.compress(found.cells, new))

    def end(self, sha256: str, locator: Locator) -> patching_pb2.SlideEnd:
        """The last message; windows count by their cores."""
        measured = [w.blur for w in self.windows if not math.isnan(w.blur)]
        return patching_pb2.SlideEnd(
            cell_count=self.cells,
            sha256=sha256,
            overexposed_share=np.average([w.exposure.over for w in self.windows], weights=self.areas),
            underexposed_share=np.average([w.exposure.under for w in self.windows], weights=self.areas),
            blur=float(np.median(measured)) if measured else math.nan,
            covered_share=np.average([w.covered for w in self.windows], weights=self.areas),
            ink_share=np.average([w.ink for w in self.windows], weights=self.areas),
            locator=locator.message(),
        )


class SlideCalls:
    """Serves slides, a few at once.

    Args:
        settings: limits and folders.
        locators: of the releases.
        workers: threads for decoding and location.

    Raises:
        ConfigurationError: SLIDE_UPLOADS_UNWRITABLE.
    """

    def __init__(self, settings: PatchingSettings, locators: Locators, workers: Workers) -> None:
        self._settings = settings
        self._locators = locators
        self._workers = workers
        self._under_way = 0
        check_uploads(settings.slide_uploads)
        remove_left_over(settings.slide_uploads)

    async def locate(self, requests: Requests, seconds: float | None = None) -> AsyncGenerator[Response, None]:
        """Locate the cells of a slide; see ``patching.proto``.

        Args:
            requests: the start, and chunks where the slide is uploaded.
            seconds: until the caller's deadline; None for no limit.

        Raises:
            DomainError: the request or the slide is refused.
        """
        start = await _start_of(requests, self._settings.slide_chunk_seconds)
        check_identifier(start.request_id, "request_id")
        microns = check_microns_per_pixel(start.microns_per_pixel)
        locator = self._locators.of(start.release)
        end = None if seconds is None else asyncio.get_running_loop().time() + seconds
        match start.source.WhichOneof("source"):
            case "path":
                path = await self._workers.run("open", below, self._settings.slides_root, start.source.path)
                with self._slot():
                    async with aclosing(self._read(path, microns, None, locator, end)) as responses:
                        async for response in responses:
                            yield response
            case "upload_bytes":
                check_announced(start.source.upload_bytes, self._settings.max_slide_bytes)
                with self._slot(), Upload(self._settings.slide_uploads, start.source.upload_bytes, self._settings.max_slide_bytes) as upload:
                    async with aclosing(self._received(requests, upload)) as responses:
                        async for response in responses:
                            yield response
                    async with aclosing(self._read(upload.path, microns, upload.finish(), locator, end)) as responses:
                        async for response in responses:
                            yield response
            case _:
                raise InvalidRequestError("SLIDE_SOURCE_MISSING", "A slide needs a path or the number of bytes that are uploaded.", field="source")

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if self._under_way >= self._settings.slides_at_once:
            raise OverloadedError("SLIDES_BUSY", "As many slides are read as this service reads at once; try again later.")
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    async def _received(self, requests: Requests, upload: Upload) -> AsyncGenerator[Response, None]:
        settings = self._settings
        rate = UploadRate(settings.slide_bytes_per_second, settings.slide_grace_seconds, settings.slide_chunk_seconds)
        reported = time.monotonic()
        while not upload.is_whole:
            began, patience = time.monotonic(), rate.patience
            try:
                async with asyncio.timeout(patience):
                    request = await anext(requests)
            except StopAsyncIteration:
                break
            except TimeoutError as error:
                if patience < settings.slide_chunk_seconds:
                    raise rate.too_slow() from error
                message = f"No chunk of the slide came for {settings.slide_chunk_seconds:g} seconds; send it again."
                raise InvalidRequestError("UPLOAD_INCOMPLETE", message, field="chunk") from error
            if request.WhichOneof("part") != "chunk" or not 0 < len(request.chunk.data) <= MAX_CHUNK_BYTES:
                raise InvalidRequestError(
                    "CHUNK_INVALID", f"All messages after the start must be chunks of 1 to {MAX_CHUNK_BYTES} bytes.", field="chunk"
                )
            rate.note(time.monotonic() - began, len(request.chunk.data))
            await _whole(self._workers.run("receive", upload.write, request.chunk.data))
            if time.monotonic() - reported >= PROGRESS_SECONDS:
                reported = time.monotonic()
                yield Response(progress=patching_pb2.SlideProgress(bytes_received=upload.received))
        yield Response(progress=patching_pb2.SlideProgress(bytes_received=upload.received))

    async def _read(
        self, path: Path, microns_per_pixel: float | None, sha256: str | None, locator: Locator, end: float | None
    ) -> AsyncGenerator[Response, None]:
        slide = await _whole(self._workers.run_long("open", open_slide, path, None if sha256 else self._settings.slides_root))
        digest = None if sha256 else asyncio.create_task(self._hashed(path))
        try:
            seen = partial(survey, learned=locator.is_learned)
            scale = await _whole(self._workers.run_long("survey", seen, slide, microns_per_pixel or slide.facts.microns_per_pixel))
            yield Response(facts=_facts_message(slide, scale))
            tally = _Tally(SeenCells(max(_MIN_PITCH, 4.0 * scale.unit)))
            total, windows = windows_of(slide, scale)
            done = 0
            async with aclosing(self._searched(slide, windows, scale, locator, end)) as searched:
                async for window, found in searched:
                    for response in _cells_of(window, found, tally, scale):
                        yield response
                    done += 1
                    yield Response(progress=patching_pb2.SlideProgress(windows_done=done, windows=total))
            yield Response(end=tally.end(sha256 or (await digest if digest else ""), locator))
        finally:
            if digest is not None:
                digest.cancel()
                await asyncio.wait({digest})
            slide.close()

    async def _hashed(self, path: Path) -> str:
        """SHA-256 of a slide, in steps between which others have their turn."""
        digest = await self._workers.run("hash", SlideDigest, path)
        while await self._workers.run_long("hash", digest.step):
            pass
        return digest.hexdigest()

    async def _searched(
        self, slide: Slide, windows: Iterator[Window], scale: SlideScale, locator: Locator, end: float | None
    ) -> AsyncGenerator[tuple[Window, SearchedWindow], None]:
        """Search window by window, one ahead of the reader; one thread at a time reads the slide."""
        loop = asyncio.get_running_loop()

        def searched(window: Window) -> SearchedWindow:
            return locator.drive_here(search(slide, window, scale, learned=locator.is_learned), loop, end)

        def begin(window: Window) -> asyncio.Task[SearchedWindow]:
            return asyncio.create_task(self._workers.run_long("locate", searched, window))

        current = next(windows)
        running = begin(current)
        try:
            for upcoming in itertools.chain(windows, [None]):
                found, taken = await asyncio.shield(running), current
                if upcoming is not None:
                    current, running = upcoming, begin(upcoming)
                yield taken, found
        finally:
            await asyncio.wait({running})


async def _whole(work: Coroutine[Any, Any, Result]) -> Result:
    """Wait for work in a worker thread. A cancellation waits for its end, because the work uses a file that must stay until then."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    finally:
        await asyncio.wait({task})


async def _start_of(requests: Requests, seconds: float) -> patching_pb2.LocateSlideStart:
    """The start of a slide, which must come within so many seconds."""
    with suppress(TimeoutError, StopAsyncIteration):
        async with asyncio.timeout(seconds):
            request = await anext(requests)
        if request.WhichOneof("part") == "start":
            return request.start
    raise InvalidRequestError("SLIDE_START_MISSING", "The first message of a slide must be its start.", field="start")


def _facts_message(slide: Slide, scale: SlideScale) -> imaging_pb2.SlideFacts:
    facts = slide.facts
    return imaging_pb2.SlideFacts(
        width=facts.width,
        height=facts.height,
        format=facts.format,
        levels=facts.levels,
        microns_per_pixel=scale.microns_per_pixel or 0.0,
        red_cell_radius=scale.red_cell_radius or 0.0,
        notes=_notes(slide, scale),
    )


def _notes(slide: Slide, scale: SlideScale) -> list[str]:
    doubts = {ImageNote.SCALE_DOUBTED: scale.is_doubted, SlideNote.COLOURS_DOUBTED: scale.are_colours_doubted}
    return [*map(str, slide.facts.notes), *(str(note) for note, holds in doubts.items() if holds)]


def _cells_of(window: Window, found: SearchedWindow, tally: _Tally, scale: SlideScale) -> Iterator[Response]:
    for batch in batches(found.pixels, tally.add(window, found)):
        message = patching_pb2.SlideCells()
        for _, cell, crop in batch:
            on_slide = cell.moved(window.x, window.y)
            shifted = replace(crop, origin_x=crop.origin_x + window.x, origin_y=crop.origin_y + window.y)
            message.cells.append(cell_message(tally.cells, on_slide))
            message.crops.append(crop_message(tally.cells, on_slide, shifted, scale.microns_per_pixel or 0.0))
            tally.cells += 1
        yield Response(cells=message)
