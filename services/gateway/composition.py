"""The way of an image: located, enhanced, classified, explained; one diagnosis out. Knows stubs, not servers."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import grpc
import structlog

from dl4all.classification.v1 import classification_pb2
from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from dl4all.preprocessing.v1 import preprocessing_pb2
from dl4all.retrieval.v1 import retrieval_pb2
from services.common import metrics
from services.common.errors import InternalError
from services.common.image_codec import ImageNote
from services.common.releases import Detects, Release
from services.common.status import error_of_rpc
from services.common.tracing import client_span, metadata
from services.gateway.answer_checks import check_classified, check_enhanced, check_explained, check_piece, check_total
from services.gateway.decision import Counts, ImageRule
from services.gateway.fusion import CellRule, CellVerdict, blast_probability, judge_cell, unjudged_cell

_log = structlog.get_logger("dl4all")
Metadata = tuple[tuple[str, str], ...]


class PatchingStub(Protocol):
    """What the gateway calls of patching."""

    def LocateCells(
        self, request: patching_pb2.LocateCellsRequest, *, timeout: float, metadata: Metadata
    ) -> AsyncIterator[patching_pb2.LocateCellsResponse]: ...


class PreprocessingStub(Protocol):
    """What the gateway calls of preprocessing."""

    def Enhance(self, request: preprocessing_pb2.EnhanceRequest, *, timeout: float, metadata: Metadata) -> Any: ...


class ClassificationStub(Protocol):
    """What the gateway calls of classification."""

    def Classify(self, request: classification_pb2.ClassifyRequest, *, timeout: float, metadata: Metadata) -> Any: ...


class RetrievalStub(Protocol):
    """What the gateway calls of retrieval."""

    def Explain(self, request: retrieval_pb2.ExplainRequest, *, timeout: float, metadata: Metadata) -> Any: ...

    def GetLatentMap(self, request: retrieval_pb2.GetLatentMapRequest, *, timeout: float, metadata: Metadata) -> Any: ...


@dataclass(frozen=True)
class Stubs:
    """The four services that the gateway composes."""

    patching: PatchingStub
    preprocessing: PreprocessingStub
    classification: ClassificationStub
    retrieval: RetrievalStub


@dataclass(frozen=True)
class JudgedCell:
    """One cell with its verdict, as answered and as counted."""

    verdict: CellVerdict
    message: diagnosis_pb2.CellDiagnosis


@dataclass
class JudgedImage:
    """All that the services said of one image.

    Attributes:
        header: facts of the image.
        cells: judged cells, top to bottom.
        latent_map: reference cells, if asked for.
        engine: engine that ran the models; empty where no cell was judged.
        models: models that were run.
        milliseconds: time by stage, summed over batches.
    """

    header: patching_pb2.LocateCellsHeader
    cells: list[JudgedCell] = field(default_factory=list)
    latent_map: list[retrieval_pb2.LatentReference] = field(default_factory=list)
    engine: str = ""
    models: list[classification_pb2.ServedModel] = field(default_factory=list)
    milliseconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def counts(self) -> Counts:
        """Cells counted."""
        verdicts = [c.verdict for c in self.cells]
        return Counts(len(verdicts), sum(v.suspected for v in verdicts), sum(v.indeterminate for v in verdicts))

    @property
    def is_phantom(self) -> bool:
        """Whether the image says of itself that it is a drawing."""
        return str(ImageNote.PHANTOM) in self.header.quality.notes

    @property
    def is_single_cell(self) -> bool:
        """Whether the image shows one cell."""
        return self.header.kind == imaging_pb2.ImageKind.IMAGE_KIND_CELL


class Clock:
    """The time that a call has left.

    Args:
        seconds: from now.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds left, at least 1 ms, so that a call that starts late still ends as DEADLINE_EXCEEDED."""
        return max(0.001, self._end - time.monotonic())


def cell_rule(release: Release) -> CellRule:
    """The numbers of a release that judge a cell."""
    c = release.calibration
    return CellRule(c.network_weight, c.min_probability, c.max_disagreement)


def image_rule(release: Release) -> ImageRule:
    """The numbers of a release that decide an image."""
    d = release.decision
    return ImageRule(d.false_blasts, d.min_cells_for_negative, d.max_fraction_for_negative, release.detects is Detects.LYMPHOBLAST)


class Composer:
    """Takes an image all the way.

    Args:
        stubs: the four services.
        images_in_flight: images that are judged at once; others wait.
        batches_in_flight: batches of one image that are judged at once.
    """

    def __init__(self, stubs: Stubs, images_in_flight: int, batches_in_flight: int) -> None:
        self._stubs = stubs
        self._images = asyncio.Semaphore(images_in_flight)
        self._batches_in_flight = batches_in_flight

    async def judge(self, request: diagnosis_pb2.DiagnoseRequest, release: Release, clock: Clock) -> JudgedImage:
        """Judge every cell of an image.

        Args:
            request: a checked request with a request id.
            release: the release that decides.
            clock: the time that is left.

        Raises:
            DomainError: what a service refused, or that one is down; nothing is answered by another rule.
            TimeoutError: the time was over before the image's turn came.
        """
        started = time.perf_counter()
        with metrics.IMAGES_WAITING.track_inprogress():
            async with asyncio.timeout(clock.left):
                await self._images.acquire()
        metrics.STAGE_SECONDS.labels("wait").observe(time.perf_counter() - started)
        try:
            with metrics.IMAGES_IN_FLIGHT.track_inprogress():
                return await self._judge(request, release, clock)
        finally:
            self._images.release()

    async def _judge(self, request: diagnosis_pb2.DiagnoseRequest, release: Release, clock: Clock) -> JudgedImage:
        places = asyncio.Semaphore(self._batches_in_flight)
        image: JudgedImage | None = None
        batches: list[asyncio.Task[list[JudgedCell]]] = []
        announced = 0
        started = time.perf_counter()
        try:
            async for piece in self._locate(request, clock):
                image = image or JudgedImage(piece.header)
                announced += len(piece.cells)
                _note_stage(image, "locate", started)
                _raise_first_failure(batches)
                if piece.cells:
                    await places.acquire()
                    batches.append(asyncio.create_task(self._judge_batch(piece, request, release, clock, image, places)))
                started = time.perf_counter()
            if image is None:
                raise InternalError("INTERNAL", "The patching service answered nothing.")
            check_total(image.header, announced)
            image.latent_map = await self._latent_map(request, release, clock)
            judged = await asyncio.gather(*batches)
        finally:
            for batch in batches:
                batch.cancel()
        image.cells = [cell for batch in judged for cell in batch]
        return image

    async def _locate(self, request: diagnosis_pb2.DiagnoseRequest, clock: Clock) -> AsyncIterator[patching_pb2.LocateCellsResponse]:
        asked = patching_pb2.LocateCellsRequest(
            request_id=request.request_id, image=request.image, kind=request.kind, microns_per_pixel=request.microns_per_pixel
        )
        first = True
        try:
            async for piece in self._stubs.patching.LocateCells(asked, timeout=clock.left, metadata=metadata()):
                yield check_piece(piece, first=first)
                first = False
        except grpc.aio.AioRpcError as error:
            raise _failed(error, "patching") from error

    async def _judge_batch(
        self,
        piece: patching_pb2.LocateCellsResponse,
        request: diagnosis_pb2.DiagnoseRequest,
        release: Release,
        clock: Clock,
        image: JudgedImage,
        places: asyncio.Semaphore,
    ) -> list[JudgedCell]:
        try:
            with _timed(image, "enhance"):
                asked = preprocessing_pb2.EnhanceRequest(request_id=request.request_id, release=release.id, crops=piece.crops)
                answer = await _call("preprocessing", self._stubs.preprocessing.Enhance(asked, timeout=clock.left, metadata=metadata()))
                enhanced = check_enhanced(answer, [c.cell_id for c in piece.cells], release.input.side)
            usable = [o for o in enhanced.outcomes if o.HasField("enhanced")]
            classified, explained = {}, {}
            if usable:
                with _timed(image, "classify"):
                    judged = await self._classify(usable, request, release, clock)
                image.engine, image.models = judged.engine, list(judged.models)
                classified = {c.cell_id: c for c in judged.cells}
                with _timed(image, "explain"):
                    explained = await self._explain(judged, request, release, clock)
        finally:
            places.release()
        rule = cell_rule(release)
        return [
            _judged_cell(cell, outcome, classified.get(cell.cell_id), explained.get(cell.cell_id), rule, request.display)
            for cell, outcome in zip(piece.cells, enhanced.outcomes, strict=True)
        ]

    async def _classify(
        self, usable: list[preprocessing_pb2.EnhanceOutcome], request: diagnosis_pb2.DiagnoseRequest, release: Release, clock: Clock
    ) -> classification_pb2.ClassifyResponse:
        asked = classification_pb2.ClassifyRequest(
            request_id=request.request_id,
            release=release.id,
            cells=[classification_pb2.ClassifyCell(cell_id=o.cell_id, pixels=o.enhanced.pixels) for o in usable],
            include_patch_embeddings=request.display.include_maps,
        )
        answer = await _call("classification", self._stubs.classification.Classify(asked, timeout=clock.left, metadata=metadata()))
        return check_classified(answer, [o.cell_id for o in usable])

    async def _explain(
        self, classified: classification_pb2.ClassifyResponse, request: diagnosis_pb2.DiagnoseRequest, release: Release, clock: Clock
    ) -> dict[int, retrieval_pb2.ExplainedCell]:
        cells = [
            retrieval_pb2.ExplainCell(cell_id=c.cell_id, embedding=c.embedding, patch_embeddings=c.patch_embeddings, rows=c.rows, columns=c.columns)
            for c in classified.cells
        ]
        asked = retrieval_pb2.ExplainRequest(
            request_id=request.request_id,
            release=release.id,
            cells=cells,
            neighbours=request.display.neighbours,
            include_maps=request.display.include_maps,
        )
        answer = await _call("retrieval", self._stubs.retrieval.Explain(asked, timeout=clock.left, metadata=metadata()))
        return {c.cell_id: c for c in check_explained(answer, [c.cell_id for c in cells]).cells}

    async def _latent_map(self, request: diagnosis_pb2.DiagnoseRequest, release: Release, clock: Clock) -> list[retrieval_pb2.LatentReference]:
        if not request.display.include_latent_map:
            return []
        asked = retrieval_pb2.GetLatentMapRequest(request_id=request.request_id, release=release.id)
        answer = await _call("retrieval", self._stubs.retrieval.GetLatentMap(asked, timeout=clock.left, metadata=metadata()))
        if answer is None:
            raise InternalError("INTERNAL", "The retrieval service answered a message that cannot be read.")
        return list(answer.references)


def _raise_first_failure(batches: Sequence[asyncio.Task[list[JudgedCell]]]) -> None:
    """End an image as soon as a batch of it has failed: the rest would be work for nothing."""
    for batch in batches:
        if batch.done():
            batch.result()


async def _call(dependency: str, call: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise _failed(error, dependency) from error


def _failed(error: grpc.aio.AioRpcError, dependency: str) -> Exception:
    metrics.DEPENDENCY_ERRORS.labels(dependency, error.code().name).inc()
    _log.warning("dependency failed", dependency=dependency, code=error.code().name, details=error.details())
    return error_of_rpc(error, dependency)


@contextmanager
def _timed(image: JudgedImage, stage: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        with client_span(stage):
            yield
    finally:
        _note_stage(image, stage, started)


def _note_stage(image: JudgedImage, stage: str, started: float) -> None:
    seconds = time.perf_counter() - started
    metrics.STAGE_SECONDS.labels(stage).observe(seconds)
    image.milliseconds[stage] += 1000.0 * seconds


_UNJUDGED: Final = float("nan")


def _judged_cell(
    cell: imaging_pb2.Cell,
    outcome: preprocessing_pb2.EnhanceOutcome,
    classified: classification_pb2.ClassifiedCell | None,
    explained: retrieval_pb2.ExplainedCell | None,
    rule: CellRule,
    display: diagnosis_pb2.DisplayOptions,
) -> JudgedCell:
    message = diagnosis_pb2.CellDiagnosis(cell=cell, network_probability=_UNJUDGED, neighbour_vote=_UNJUDGED)
    if classified is None or explained is None:
        verdict = unjudged_cell()
    else:
        enhanced = outcome.enhanced
        network, vote = float(blast_probability(list(classified.logits))), float(explained.vote)
        verdict = judge_cell(network, vote, enhanced.accepted, list(enhanced.reasons), rule)
        message.network_probability, message.neighbour_vote = network, vote
        message.focus_before, message.focus_after = enhanced.focus_before, enhanced.focus_after
        message.unsharp_radius, message.upscale_factor = enhanced.unsharp_radius, enhanced.upscale_factor
        message.neighbours.extend(explained.neighbours)
        message.distance_quantile = explained.distance_quantile
        message.position.CopyFrom(explained.position)
        message.registered_side = enhanced.side
        if display.include_crops:
            message.registered_pixels = enhanced.pixels
    message.blast_probability = verdict.probability
    message.prediction_set.extend(verdict.prediction_set)
    message.suspected, message.indeterminate = verdict.suspected, verdict.indeterminate
    message.reasons.extend(verdict.reasons)
    return JudgedCell(verdict, message)
