"""Compose the diagnosis of an image: locate its cells, then judge them batch by batch. Uses stubs, no servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from dl4all.retrieval.v1 import neighbour_pb2
from services.common.image_codec import ImageNote
from services.gateway.answer_checks import check_total
from services.gateway.cell_calls import CellCalls
from services.gateway.cells import counts_of
from services.gateway.decision import Counts, DecidedImage, ImageRule, Reason, decide_image
from services.gateway.image_admission import ImageAdmission, ImageWork
from services.gateway.image_quality import Quality, poor_reasons
from services.gateway.judging import CellAnswer, CellJudge
from services.gateway.locating import located_pieces, ran_locator
from services.gateway.patches import JudgedPatch, PatchJudge
from services.gateway.request_context import EncodedImage, RequestContext
from services.gateway.run_stats import RunStats
from services.gateway.stubs import Stubs


@dataclass
class JudgedImage:
    """All answers of the services for one image.

    Attributes:
        header: facts of the image.
        cells: judged cells, top to bottom.
        latent_map: reference cells, if they are to be shown.
        patches: judged patches, where the release judges them.
        stats: models and times.
    """

    header: patching_pb2.LocateCellsHeader
    cells: list[CellAnswer] = field(default_factory=list)
    latent_map: list[neighbour_pb2.LatentReference] = field(default_factory=list)
    patches: tuple[JudgedPatch, ...] = ()
    stats: RunStats = field(default_factory=RunStats)

    @property
    def counts(self) -> Counts:
        """Cells counted."""
        return counts_of(cell.judged for cell in self.cells)

    def decide(self, rule: ImageRule) -> DecidedImage:
        """Decide by the numbers of the image. Crops around one cell are judged by the cell's own focus, not by that of the image."""
        single_cell = self.header.kind == imaging_pb2.ImageKind.IMAGE_KIND_CELL
        return decide_image(
            self.header.image_sha256,
            self.counts,
            rule,
            phantom=str(ImageNote.PHANTOM) in self.header.quality.notes,
            single_cell=single_cell,
            poor=() if single_cell else poor_reasons_of(self.header.quality),
        )


def poor_reasons_of(quality: imaging_pb2.ImageQuality) -> tuple[Reason, ...]:
    """Why an image is too poor for a negative."""
    measured = Quality(
        quality.blur, quality.red_cell_radius, quality.overexposed_share, quality.underexposed_share, quality.covered_share, quality.ink_share
    )
    return poor_reasons(measured)


class Composer:
    """Locates and judges all cells of an image.

    Args:
        stubs: the four services.
        admission: lets images in.
        batches_in_flight: batches of one image that are judged at once.
    """

    def __init__(self, stubs: Stubs, admission: ImageAdmission, batches_in_flight: int) -> None:
        self._stubs = stubs
        self._calls = CellCalls(stubs)
        self._judge_cells = CellJudge(self._calls)
        self._judge_patches = PatchJudge(stubs)
        self._admission = admission
        self._batches_in_flight = batches_in_flight

    async def judge(self, image: EncodedImage, context: RequestContext) -> JudgedImage:
        """Judge every cell of an image.

        Args:
            image: the encoded image.
            context: of the checked request.

        Raises:
            DomainError: the image is refused for overload, a service refused a call, or is down; no other rule replaces that of the release.
            TimeoutError: the deadline passed before it was the turn of the image.
        """
        async with self._admission.let_in(image, context) as work:
            return await self._judge(image, context, work)

    async def _judge(self, image: EncodedImage, context: RequestContext, work: ImageWork) -> JudgedImage:
        slots = asyncio.Semaphore(self._batches_in_flight)
        judged: JudgedImage | None = None
        batches: list[asyncio.Task[list[CellAnswer]]] = []
        announced = 0
        stats = RunStats()
        patches, activations = None, None
        if context.release.patches is not None:
            patches = await self._judge_patches.judge(image, context.release.patches, context, stats)
            image, activations = replace(image, kind=patches.kind), patches.activations
            work.found(len(patches.patches))
        started = time.perf_counter()
        try:
            async for piece in located_pieces(self._stubs.patching, image, context, activations=activations):
                if judged is None:
                    judged = JudgedImage(piece.header, stats=stats)
                    ran_locator(piece.header.locator, context.release, stats)
                    work.found(piece.header.cell_count + (0 if patches is None else len(patches.patches)), _pixels(piece.header))
                announced += len(piece.cells)
                stats.note("locate", started)
                raise_first_failure(batches)
                if piece.cells:
                    await slots.acquire()
                    batches.append(asyncio.create_task(self._judge_batch(piece, context, stats, slots)))
                started = time.perf_counter()
            assert judged is not None
            check_total(judged.header, announced)
            judged.latent_map = await self._calls.latent_map(context)
            finished = await asyncio.gather(*batches)
        finally:
            for batch in batches:
                batch.cancel()
        judged.cells = [cell for batch in finished for cell in batch]
        if patches is not None and patches.model is not None:
            judged.patches = patches.patches
            stats.ran([patches.model])
        return judged

    async def _judge_batch(
        self, piece: patching_pb2.LocateCellsResponse, context: RequestContext, stats: RunStats, slots: asyncio.Semaphore
    ) -> list[CellAnswer]:
        try:
            return await self._judge_cells.judge(piece.cells, piece.crops, context, stats)
        finally:
            slots.release()


def _pixels(header: patching_pb2.LocateCellsHeader) -> int:
    return header.quality.width * header.quality.height


def raise_first_failure(batches: Sequence[asyncio.Task[Any]]) -> None:
    """End an image as soon as one of its batches has failed: the rest would be wasted work."""
    for batch in batches:
        if batch.done():
            batch.result()
