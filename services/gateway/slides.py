"""The way of a slide: read by patching, judged batch by batch as cells come; progress, cells, and one diagnosis out."""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

import grpc

from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from dl4all.retrieval.v1 import retrieval_pb2
from services.common.checks import MAX_CELLS_PER_CALL
from services.common.errors import InternalError, OverloadedError
from services.common.image_codec import ImageNote
from services.common.tracing import metadata
from services.gateway.answer_checks import check_slide_cells
from services.gateway.calling import Effort, failed
from services.gateway.composition import counts_of, raise_first_failure
from services.gateway.decision import Counts
from services.gateway.judging import Asked, CellJudge, JudgedCell
from services.gateway.stubs import Stubs

PROGRESS_SECONDS: Final = 0.5
MAX_EXPLAINED: Final = 50
_EVENTS_AHEAD: Final = 8
Response = diagnosis_pb2.DiagnoseSlideResponse
Requests = AsyncIterator[patching_pb2.LocateSlideRequest]


@dataclass
class JudgedSlide:
    """All that the services said of one slide so far.

    Attributes:
        facts: of the slide; None before they are known.
        end: what patching knows at the end; None before.
        counts: cells counted.
        found: cells that patching found.
        explained: the most suspicious cells, with neighbours and what is to be shown.
        latent_map: reference cells, if asked for.
        effort: what it took.
    """

    facts: imaging_pb2.SlideFacts | None = None
    end: patching_pb2.SlideEnd | None = None
    counts: Counts = field(default_factory=lambda: Counts(0, 0, 0))
    found: int = 0
    explained: list[diagnosis_pb2.CellDiagnosis] = field(default_factory=list)
    latent_map: list[retrieval_pb2.LatentReference] = field(default_factory=list)
    effort: Effort = field(default_factory=Effort)

    @property
    def is_phantom(self) -> bool:
        """Whether the slide says of itself that it is a drawing."""
        return self.facts is not None and str(ImageNote.PHANTOM) in self.facts.notes

    @property
    def quality(self) -> imaging_pb2.ImageQuality:
        """Exposure, blur and cover of a slide that was read to its end."""
        assert self.facts is not None
        assert self.end is not None
        return imaging_pb2.ImageQuality(
            width=self.facts.width,
            height=self.facts.height,
            overexposed_share=self.end.overexposed_share,
            underexposed_share=self.end.underexposed_share,
            red_cell_radius=self.facts.red_cell_radius,
            notes=self.facts.notes,
            blur=self.end.blur,
            covered_share=self.end.covered_share,
        )


class MostSuspicious:
    """The cells of highest blast probability so far, with their registered pixels.

    Args:
        count: how many are kept.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._heap: list[tuple[float, int, diagnosis_pb2.CellDiagnosis]] = []

    def add(self, message: diagnosis_pb2.CellDiagnosis) -> None:
        """Consider a judged cell; of equal ones the earlier is kept."""
        if self._count == 0 or math.isnan(message.blast_probability):
            return
        entry = (message.blast_probability, -message.cell.cell_id, message)
        if len(self._heap) < self._count:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def sorted(self) -> list[diagnosis_pb2.CellDiagnosis]:
        """Those that are kept, most suspicious first."""
        return [message for _, _, message in sorted(self._heap, key=lambda e: (-e[0], -e[1]))]


class SlideComposer:
    """Takes slides all the way, a few at once.

    Args:
        stubs: the four services.
        slides_in_flight: slides that are judged at once; more are refused.
        batches_in_flight: batches of one slide that are judged at once.
    """

    def __init__(self, stubs: Stubs, slides_in_flight: int, batches_in_flight: int) -> None:
        self._stubs = stubs
        self._judge_cells = CellJudge(stubs)
        self._slides_in_flight = slides_in_flight
        self._batches_in_flight = batches_in_flight
        self._under_way = 0

    async def judge(self, requests: Requests, asked: Asked, explained: int) -> AsyncGenerator[Response | JudgedSlide, None]:
        """Judge every cell of a slide.

        Args:
            requests: the start and, for an upload, the chunks.
            asked: what is asked for.
            explained: how many of the most suspicious cells are explained.

        Yields:
            Progress at least every ``PROGRESS_SECONDS``, cells as they are judged, last the slide.

        Raises:
            DomainError: what a service refused, or that one is down.
        """
        with self._place():
            slide, progress = JudgedSlide(), diagnosis_pb2.DiagnoseSlideProgress()
            events: asyncio.Queue[Response | BaseException | None] = asyncio.Queue(_EVENTS_AHEAD)
            worker = asyncio.create_task(self._work(requests, asked, explained, slide, progress, events))
            reported = time.monotonic()
            try:
                while True:
                    try:
                        event = await asyncio.wait_for(events.get(), PROGRESS_SECONDS)
                    except TimeoutError:
                        event = Response()
                    if event is None:
                        break
                    if isinstance(event, BaseException):
                        raise event
                    if event.WhichOneof("part"):
                        yield event
                    if time.monotonic() - reported >= PROGRESS_SECONDS or not event.WhichOneof("part"):
                        reported = time.monotonic()
                        yield _progress(progress, slide)
            finally:
                worker.cancel()
                await asyncio.wait({worker})
            yield _progress(progress, slide)
            yield slide

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._under_way >= self._slides_in_flight:
            raise OverloadedError("SLIDES_BUSY", "As many slides are judged as this service judges at once; try again later.")
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    async def _work(
        self,
        requests: Requests,
        asked: Asked,
        explained: int,
        slide: JudgedSlide,
        progress: diagnosis_pb2.DiagnoseSlideProgress,
        events: asyncio.Queue[Response | BaseException | None],
    ) -> None:
        try:
            most = MostSuspicious(explained)
            await self._follow(requests, asked, slide, progress, most, events)
            slide.explained = await self._explained(most, asked, slide.effort)
            slide.latent_map = await self._judge_cells.latent_map(asked)
            await events.put(None)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # handed to whoever reads the events, who raises it
            await events.put(error)

    async def _follow(
        self,
        requests: Requests,
        asked: Asked,
        slide: JudgedSlide,
        progress: diagnosis_pb2.DiagnoseSlideProgress,
        most: MostSuspicious,
        events: asyncio.Queue[Response | BaseException | None],
    ) -> None:
        """Judge the cells of a slide as they come; the caller's pace holds back judging, and that the reading."""
        places = asyncio.Semaphore(self._batches_in_flight)
        batches: list[asyncio.Task[list[JudgedCell]]] = []

        async def judge(cells: patching_pb2.SlideCells) -> list[JudgedCell]:
            try:
                judged = await self._judge_cells.judge(cells.cells, cells.crops, _for_streaming(asked), slide.effort)
                slide.counts += counts_of(judged)
                await events.put(Response(cells=diagnosis_pb2.JudgedSlideCells(cells=[_streamed(cell.message, most) for cell in judged])))
                return judged
            finally:
                places.release()

        try:
            async for part in self._located(requests, asked, slide):
                raise_first_failure(batches)
                batches = [b for b in batches if not b.done()]
                match part.WhichOneof("part"):
                    case "facts":
                        slide.facts = part.facts
                    case "progress":
                        progress.bytes_received = max(progress.bytes_received, part.progress.bytes_received)
                        progress.windows_done, progress.windows = part.progress.windows_done, part.progress.windows
                    case "cells":
                        check_slide_cells(part.cells, slide.found)
                        slide.found += len(part.cells.cells)
                        await places.acquire()
                        batches.append(asyncio.create_task(judge(part.cells)))
                    case _:
                        slide.end = part.end
            if slide.facts is None or slide.end is None or slide.end.cell_count != slide.found:
                raise InternalError("INTERNAL", "The patching service did not read the slide to its end.", metadata={"dependency": "patching"})
            await asyncio.gather(*batches)
        finally:
            for batch in batches:
                batch.cancel()

    async def _located(self, requests: Requests, asked: Asked, slide: JudgedSlide) -> AsyncIterator[patching_pb2.LocateSlideResponse]:
        started = time.perf_counter()
        try:
            async for part in self._stubs.patching.LocateSlide(requests, timeout=asked.clock.left, metadata=metadata()):
                slide.effort.note("locate", started)
                yield part
                started = time.perf_counter()
        except grpc.aio.AioRpcError as error:
            raise failed(error, "patching") from error

    async def _explained(self, most: MostSuspicious, asked: Asked, effort: Effort) -> list[diagnosis_pb2.CellDiagnosis]:
        """Explain the most suspicious cells on the very pixels that were judged."""
        messages = most.sorted()
        rest = iter(messages)
        while batch := list(islice(rest, MAX_CELLS_PER_CALL)):
            _, explained = await self._judge_cells.explain({m.cell.cell_id: m.registered_pixels for m in batch}, asked, effort)
            for message in batch:
                message.neighbours.extend(explained[message.cell.cell_id].neighbours)
                if not asked.display.include_crops:
                    message.ClearField("registered_pixels")
        return messages


def _for_streaming(asked: Asked) -> Asked:
    """Cells of a slide are judged without what only explanations need; their registered pixels are kept for those."""
    return replace(asked, display=diagnosis_pb2.DisplayOptions(include_crops=True))


def _streamed(message: diagnosis_pb2.CellDiagnosis, most: MostSuspicious) -> diagnosis_pb2.CellDiagnosis:
    """The message as it is streamed; the whole of it is considered for explanation."""
    message.ClearField("neighbours")
    light = diagnosis_pb2.CellDiagnosis()
    light.CopyFrom(message)
    light.ClearField("registered_pixels")
    most.add(message)
    return light


def _progress(progress: diagnosis_pb2.DiagnoseSlideProgress, slide: JudgedSlide) -> Response:
    progress.cells_found, progress.cells_judged = slide.found, slide.counts.total
    return Response(progress=progress)
