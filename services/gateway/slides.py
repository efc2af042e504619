"""Judge a slide: patching reads it, and its cells are judged batch by batch as they come. Yields progress, cells and the judged slide."""

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

from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from dl4all.retrieval.v1 import neighbour_pb2
from services.common.checks import MAX_CELLS_PER_CALL
from services.common.errors import InternalError, OverloadedError
from services.common.image_codec import ImageNote
from services.common.tracing import metadata
from services.gateway.answer_checks import check_slide_cells
from services.gateway.calling import REFUSES_IMAGES, failed
from services.gateway.cell_calls import CellCalls
from services.gateway.cells import counts_of
from services.gateway.composition import poor_reasons_of, raise_first_failure
from services.gateway.decision import Counts, Decision, ImageRule, Reason, decide
from services.gateway.judging import CellAnswer, CellEvidence, CellJudge
from services.gateway.locating import ran_locator
from services.gateway.request_context import Display, RequestContext
from services.gateway.run_stats import RunStats
from services.gateway.stubs import Stubs

PROGRESS_SECONDS: Final = 0.5
MAX_EXPLAINED: Final = 50
_EVENTS_AHEAD: Final = 8
Requests = AsyncIterator[patching_pb2.LocateSlideRequest]


@dataclass(frozen=True)
class SlideProgress:
    """Progress of the diagnosis of a slide.

    Attributes:
        bytes_received: of the upload.
        windows_done: windows that were searched for cells.
        windows: in all; 0 while that is not known.
        cells_found: cells that patching found.
        cells_judged: cells that were judged.
    """

    bytes_received: int = 0
    windows_done: int = 0
    windows: int = 0
    cells_found: int = 0
    cells_judged: int = 0


@dataclass
class JudgedSlide:
    """All answers of the services for one slide so far.

    Attributes:
        facts: of the slide; None before they are known.
        end: the last message of patching; None before it.
        progress: progress so far.
        counts: cells counted.
        explained: the most suspicious cells, with neighbours and evidence.
        latent_map: reference cells, if they are to be shown.
        stats: models and times.
    """

    facts: imaging_pb2.SlideFacts | None = None
    end: patching_pb2.SlideEnd | None = None
    progress: SlideProgress = SlideProgress()
    counts: Counts = field(default_factory=lambda: Counts(0, 0, 0))
    explained: list[CellAnswer] = field(default_factory=list)
    latent_map: list[neighbour_pb2.LatentReference] = field(default_factory=list)
    stats: RunStats = field(default_factory=RunStats)

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
            ink_share=self.end.ink_share,
        )

    def decide(self, rule: ImageRule) -> Decision:
        """Decide a slide that was read to its end."""
        quality = self.quality
        doubted = (Reason.COLOURS_DOUBTED,) if Reason.COLOURS_DOUBTED in quality.notes else ()
        return decide(self.counts, rule, phantom=str(ImageNote.PHANTOM) in quality.notes, poor=(*poor_reasons_of(quality), *doubted))


class MostSuspicious:
    """The cells of highest blast probability so far.

    Args:
        count: how many are kept.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._heap: list[tuple[float, int, CellAnswer]] = []

    def add(self, cell: CellAnswer) -> None:
        """Consider a judged cell; of equal ones the earlier is kept."""
        probability = cell.judged.verdict.probability
        if self._count == 0 or math.isnan(probability):
            return
        entry = (probability, -cell.judged.cell_id, cell)
        if len(self._heap) < self._count:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def sorted(self) -> list[CellAnswer]:
        """Those that are kept, most suspicious first."""
        return [cell for _, _, cell in sorted(self._heap, key=lambda entry: (-entry[0], -entry[1]))]


class SlideComposer:
    """Judges slides, a few at once.

    Args:
        stubs: the four services.
        slides_in_flight: slides that are judged at once; more are refused.
        batches_in_flight: batches of one slide that are judged at once.
    """

    def __init__(self, stubs: Stubs, slides_in_flight: int, batches_in_flight: int) -> None:
        self._stubs = stubs
        self._calls = CellCalls(stubs)
        self._judge_cells = CellJudge(self._calls)
        self._slides_in_flight = slides_in_flight
        self._batches_in_flight = batches_in_flight
        self._under_way = 0

    async def judge(
        self, requests: Requests, context: RequestContext, explained: int
    ) -> AsyncGenerator[SlideProgress | list[CellAnswer] | JudgedSlide, None]:
        """Judge every cell of a slide.

        Args:
            requests: the start and, for an upload, the chunks.
            context: of the checked request.
            explained: how many of the most suspicious cells are explained.

        Yields:
            Progress at least every ``PROGRESS_SECONDS``, cells as they are judged, last the slide.

        Raises:
            DomainError: a service refused a call, or is down.
        """
        with self._slot():
            slide = JudgedSlide()
            events: asyncio.Queue[list[CellAnswer] | BaseException | None] = asyncio.Queue(_EVENTS_AHEAD)
            task = asyncio.create_task(self._work(requests, context, explained, slide, events))
            reported = time.monotonic()
            try:
                while True:
                    try:
                        event = await asyncio.wait_for(events.get(), PROGRESS_SECONDS)
                    except TimeoutError:
                        event = []
                    if event is None:
                        break
                    if isinstance(event, BaseException):
                        raise event
                    if event:
                        yield event
                    if not event or time.monotonic() - reported >= PROGRESS_SECONDS:
                        reported = time.monotonic()
                        yield slide.progress
            finally:
                task.cancel()
                await asyncio.wait({task})
            yield slide.progress
            yield slide

    @contextmanager
    def _slot(self) -> Iterator[None]:
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
        context: RequestContext,
        explained: int,
        slide: JudgedSlide,
        events: asyncio.Queue[list[CellAnswer] | BaseException | None],
    ) -> None:
        try:
            most = MostSuspicious(explained)
            await self._follow(requests, context, slide, most, events)
            slide.explained = await self._explained(most, context, slide.stats)
            slide.latent_map = await self._calls.latent_map(context)
            await events.put(None)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # handed to the reader of the events, which raises it
            await events.put(error)

    async def _follow(
        self,
        requests: Requests,
        context: RequestContext,
        slide: JudgedSlide,
        most: MostSuspicious,
        events: asyncio.Queue[list[CellAnswer] | BaseException | None],
    ) -> None:
        """Judge the cells of a slide as they come. A slow caller slows the judging, and that slows the reading of the slide."""
        slots = asyncio.Semaphore(self._batches_in_flight)
        batches: list[asyncio.Task[None]] = []
        streaming = replace(context, display=Display(crops=True))

        async def judge(cells: patching_pb2.SlideCells) -> None:
            try:
                judged = await self._judge_cells.judge(cells.cells, cells.crops, streaming, slide.stats)
                slide.counts += counts_of(cell.judged for cell in judged)
                slide.progress = replace(slide.progress, cells_judged=slide.counts.total)
                for cell in judged:
                    most.add(replace(cell, evidence=replace(cell.evidence, neighbours=())))
                await events.put([_light(cell) for cell in judged])
            finally:
                slots.release()

        try:
            async for part in self._located(requests, context, slide):
                raise_first_failure(batches)
                batches = [b for b in batches if not b.done()]
                match part.WhichOneof("part"):
                    case "facts":
                        slide.facts = part.facts
                    case "progress":
                        slide.progress = _moved(slide.progress, part.progress)
                    case "cells":
                        found = slide.progress.cells_found
                        check_slide_cells(part.cells, found)
                        slide.progress = replace(slide.progress, cells_found=found + len(part.cells.cells))
                        await slots.acquire()
                        batches.append(asyncio.create_task(judge(part.cells)))
                    case _:
                        slide.end = part.end
                        ran_locator(part.end.locator, context.release, slide.stats)
            if slide.facts is None or slide.end is None or slide.end.cell_count != slide.progress.cells_found:
                raise InternalError("INTERNAL", "The patching service did not read the slide to its end.", metadata={"dependency": "patching"})
            await asyncio.gather(*batches)
        finally:
            for batch in batches:
                batch.cancel()

    async def _located(self, requests: Requests, context: RequestContext, slide: JudgedSlide) -> AsyncIterator[patching_pb2.LocateSlideResponse]:
        started = time.perf_counter()
        try:
            async for part in self._stubs.patching.LocateSlide(requests, timeout=context.deadline.left, metadata=metadata()):
                slide.stats.note("locate", started)
                yield part
                started = time.perf_counter()
        except grpc.aio.AioRpcError as error:
            raise failed(error, "patching", of_caller=REFUSES_IMAGES) from error

    async def _explained(self, most: MostSuspicious, context: RequestContext, stats: RunStats) -> list[CellAnswer]:
        """Explain the most suspicious cells on the very pixels that were judged."""
        explained: list[CellAnswer] = []
        rest = iter(most.sorted())
        while batch := list(islice(rest, MAX_CELLS_PER_CALL)):
            pixels = {cell.judged.cell_id: cell.evidence.pixels for cell in batch}
            neighbours = await self._judge_cells.neighbours(pixels, context, stats)
            explained += [replace(cell, evidence=replace(cell.evidence, neighbours=neighbours[cell.judged.cell_id])) for cell in batch]
        return explained


def _light(cell: CellAnswer) -> CellAnswer:
    """The cell as it is streamed, without neighbours and pixels."""
    return replace(cell, evidence=CellEvidence(cell.evidence.located, cell.evidence.side))


def _moved(progress: SlideProgress, message: patching_pb2.SlideProgress) -> SlideProgress:
    received = max(progress.bytes_received, message.bytes_received)
    return replace(progress, bytes_received=received, windows_done=message.windows_done, windows=message.windows)
