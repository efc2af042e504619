"""The way of an image: located, then judged batch by batch; one diagnosis out. Knows stubs, not servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import grpc

from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from dl4all.retrieval.v1 import retrieval_pb2
from services.common import metrics
from services.common.errors import InternalError
from services.common.image_codec import ImageNote
from services.common.tracing import metadata
from services.gateway.answer_checks import check_piece, check_total
from services.gateway.calling import Clock, Effort, failed
from services.gateway.decision import Counts, Reason
from services.gateway.image_quality import Quality, poor_reasons
from services.gateway.judging import Asked, CellJudge, JudgedCell
from services.gateway.patches import JudgedPatches, PatchJudge
from services.gateway.stubs import Stubs


@dataclass
class JudgedImage:
    """All that the services said of one image.

    Attributes:
        header: facts of the image.
        cells: judged cells, top to bottom.
        latent_map: reference cells, if asked for.
        patches: judged patches, where the release judges them.
        effort: what it took.
    """

    header: patching_pb2.LocateCellsHeader
    cells: list[JudgedCell] = field(default_factory=list)
    latent_map: list[retrieval_pb2.LatentReference] = field(default_factory=list)
    patches: tuple[diagnosis_pb2.PatchDiagnosis, ...] = ()
    effort: Effort = field(default_factory=Effort)

    @property
    def counts(self) -> Counts:
        """Cells counted."""
        return counts_of(self.cells)

    @property
    def is_phantom(self) -> bool:
        """Whether the image says of itself that it is a drawing."""
        return str(ImageNote.PHANTOM) in self.header.quality.notes

    @property
    def is_single_cell(self) -> bool:
        """Whether the image shows one cell."""
        return self.header.kind == imaging_pb2.ImageKind.IMAGE_KIND_CELL

    @property
    def poor(self) -> tuple[Reason, ...]:
        """Why the image is too poor for a negative; crops around one cell are judged by the cell's own focus."""
        return () if self.is_single_cell else poor_reasons_of(self.header.quality)


def poor_reasons_of(quality: imaging_pb2.ImageQuality) -> tuple[Reason, ...]:
    """Why an image is too poor for a negative."""
    measured = Quality(quality.blur, quality.red_cell_radius, quality.overexposed_share, quality.underexposed_share, quality.covered_share)
    return poor_reasons(measured)


def counts_of(cells: Sequence[JudgedCell]) -> Counts:
    """Count judged cells."""
    verdicts = [c.verdict for c in cells]
    return Counts(len(verdicts), sum(v.suspected for v in verdicts), sum(v.indeterminate for v in verdicts))


class Composer:
    """Takes an image all the way.

    Args:
        stubs: the four services.
        images_in_flight: images that are judged at once; others wait.
        batches_in_flight: batches of one image that are judged at once.
    """

    def __init__(self, stubs: Stubs, images_in_flight: int, batches_in_flight: int) -> None:
        self._stubs = stubs
        self._judge_cells = CellJudge(stubs)
        self._judge_patches = PatchJudge(stubs)
        self._images = asyncio.Semaphore(images_in_flight)
        self._batches_in_flight = batches_in_flight

    async def judge(self, request: diagnosis_pb2.DiagnoseRequest, asked: Asked) -> JudgedImage:
        """Judge every cell of an image.

        Args:
            request: a checked request with a request id.
            asked: what it asks for.

        Raises:
            DomainError: what a service refused, or that one is down; nothing is answered by another rule.
            TimeoutError: the time was over before the image's turn came.
        """
        started = time.perf_counter()
        with metrics.IMAGES_WAITING.track_inprogress():
            async with asyncio.timeout(asked.clock.left):
                await self._images.acquire()
        metrics.STAGE_SECONDS.labels("wait").observe(time.perf_counter() - started)
        try:
            with metrics.IMAGES_IN_FLIGHT.track_inprogress():
                return await self._judge(request, asked)
        finally:
            self._images.release()

    async def _judge(self, request: diagnosis_pb2.DiagnoseRequest, asked: Asked) -> JudgedImage:
        places = asyncio.Semaphore(self._batches_in_flight)
        image: JudgedImage | None = None
        batches: list[asyncio.Task[list[JudgedCell]]] = []
        announced = 0
        effort = Effort()
        patches = None
        if asked.release.patches is not None:
            patches = await self._judge_patches.judge(request, asked.release.patches, asked, effort)
        started = time.perf_counter()
        try:
            async for piece in self._locate(request, patches, asked.clock):
                image = image or JudgedImage(piece.header, effort=effort)
                announced += len(piece.cells)
                image.effort.note("locate", started)
                raise_first_failure(batches)
                if piece.cells:
                    await places.acquire()
                    batches.append(asyncio.create_task(self._judge_batch(piece, asked, image.effort, places)))
                started = time.perf_counter()
            if image is None:
                raise InternalError("INTERNAL", "The patching service answered nothing.")
            check_total(image.header, announced)
            image.latent_map = await self._judge_cells.latent_map(asked)
            judged = await asyncio.gather(*batches)
        finally:
            for batch in batches:
                batch.cancel()
        image.cells = [cell for batch in judged for cell in batch]
        if patches is not None and patches.model is not None:
            image.patches = patches.messages
            effort.models.append(patches.model)
        return image

    async def _judge_batch(
        self, piece: patching_pb2.LocateCellsResponse, asked: Asked, effort: Effort, places: asyncio.Semaphore
    ) -> list[JudgedCell]:
        try:
            return await self._judge_cells.judge(piece.cells, piece.crops, asked, effort)
        finally:
            places.release()

    async def _locate(
        self, request: diagnosis_pb2.DiagnoseRequest, patches: JudgedPatches | None, clock: Clock
    ) -> AsyncIterator[patching_pb2.LocateCellsResponse]:
        asked = patching_pb2.LocateCellsRequest(
            request_id=request.request_id,
            image=request.image,
            kind=request.kind if patches is None else patches.kind,
            microns_per_pixel=request.microns_per_pixel,
            activations=None if patches is None else patches.activations,
        )
        first = True
        try:
            async for piece in self._stubs.patching.LocateCells(asked, timeout=clock.left, metadata=metadata()):
                yield check_piece(piece, first=first)
                first = False
        except grpc.aio.AioRpcError as error:
            raise failed(error, "patching") from error


def raise_first_failure(batches: Sequence[asyncio.Task[list[JudgedCell]]]) -> None:
    """End an image as soon as a batch of it has failed: the rest would be work for nothing."""
    for batch in batches:
        if batch.done():
            batch.result()
