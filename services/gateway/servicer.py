"""The gateway over gRPC: the only service that faces outside."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import Any, Final

import grpc

from dl4all.diagnosis.v1 import diagnosis_pb2, diagnosis_pb2_grpc
from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from services.common import metrics
from services.common.checks import check_identifier, check_microns_per_pixel
from services.common.errors import DomainError, InvalidImageError, InvalidRequestError
from services.common.guard import CallFailedError, guarded
from services.common.health import NeedsNow
from services.common.releases import Release, ReleaseStore
from services.common.server import Registration
from services.gateway.answers import diagnosis_message, slide_message, specimen_message, systems_message
from services.gateway.calling import Clock
from services.gateway.composition import Composer, JudgedImage
from services.gateway.judging import Asked
from services.gateway.settings import GatewaySettings
from services.gateway.slides import MAX_EXPLAINED, SlideComposer
from services.gateway.specimens import Specimen, Tally
from services.gateway.streams import answered
from services.gateway.stubs import Stubs

DESCRIPTOR: Final = diagnosis_pb2.DESCRIPTOR.services_by_name["DiagnosisService"]
MAX_NEIGHBOURS: Final = 20
_STREAM_METHOD: Final = "/dl4all.diagnosis.v1.DiagnosisService/DiagnoseStream#image"
_Answer = diagnosis_pb2.DiagnoseStreamResponse


class DiagnosisServicer(diagnosis_pb2_grpc.DiagnosisServiceServicer):
    """Composes the four services into one diagnosis."""

    def __init__(self, settings: GatewaySettings, releases: ReleaseStore, stubs: Stubs) -> None:
        self._settings = settings
        self._releases = releases
        self._slides = SlideComposer(stubs, settings.slides_in_flight, settings.batches_in_flight)
        self._composer = Composer(stubs, settings.images_in_flight, settings.batches_in_flight)

    def registration(self, needs: NeedsNow) -> Registration:
        """What a server needs to serve this; ready while what it composes is."""
        return Registration(DESCRIPTOR, diagnosis_pb2_grpc.add_DiagnosisServiceServicer_to_server, self, needs)

    async def Diagnose(self, request: diagnosis_pb2.DiagnoseRequest, context: grpc.aio.ServicerContext[Any, Any]) -> diagnosis_pb2.DiagnoseResponse:
        """See ``diagnosis.proto``."""
        started = time.perf_counter()
        request, release = self._checked(request)
        image = await self._composer.judge(request, Asked(request.request_id, release, request.display, self._clock(context)))
        return diagnosis_pb2.DiagnoseResponse(diagnosis=self._diagnosis(request, image, release, started))

    async def DiagnoseStream(
        self, request_iterator: AsyncIterator[diagnosis_pb2.DiagnoseStreamRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[_Answer]:
        """See ``diagnosis.proto``."""
        requests = (message.request async for message in request_iterator)
        async for answer in self._answers(requests, context, Tally()):
            yield answer

    async def DiagnoseSpecimen(
        self, request_iterator: AsyncIterator[diagnosis_pb2.DiagnoseSpecimenRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[diagnosis_pb2.DiagnoseSpecimenResponse]:
        """See ``diagnosis.proto``."""
        tally = Tally()
        specimen: list[Specimen] = []

        async def requests() -> AsyncIterator[diagnosis_pb2.DiagnoseRequest]:
            async for message in request_iterator:
                if not specimen:
                    check_identifier(message.request.release, "release")
                    specimen.append(Specimen(message.request.specimen, message.request.release, self._releases.resolve(message.request.release)))
                yield specimen[0].claim(message.request)

        async for answer in self._answers(requests(), context, tally):
            yield diagnosis_pb2.DiagnoseSpecimenResponse(image=answer)
        if not specimen:
            raise InvalidRequestError("SPECIMEN_EMPTY", "A specimen needs at least one image.", field="request")
        aggregate = specimen_message(tally.images, specimen[0].release, tally.effort, images=len(tally.seen), duplicates=tally.duplicates)
        yield diagnosis_pb2.DiagnoseSpecimenResponse(specimen=aggregate)

    async def DiagnoseSlide(
        self, request_iterator: AsyncIterator[diagnosis_pb2.DiagnoseSlideRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[diagnosis_pb2.DiagnoseSlideResponse]:
        """See ``diagnosis.proto``."""
        started = time.perf_counter()
        start = await _slide_start(request_iterator)
        release = self._checked_slide(start)
        asked = Asked(start.request_id, release, start.display, self._clock(context, self._settings.slide_deadline_seconds))
        explained = start.explained_cells or MAX_EXPLAINED
        async with aclosing(self._slides.judge(_to_patching(start, request_iterator), asked, explained)) as parts:
            async for part in parts:
                if isinstance(part, diagnosis_pb2.DiagnoseSlideResponse):
                    yield part
                    continue
                slide = slide_message(start.request_id, part, release, 1000.0 * (time.perf_counter() - started))
                if slide.ByteSize() > self._settings.max_answer_bytes:
                    raise _answer_too_large(len(slide.explained))
                _count_finding(release.id, slide.finding, slide.reasons, slide.counts)
                yield diagnosis_pb2.DiagnoseSlideResponse(slide=slide)

    async def ListSystems(
        self, request: diagnosis_pb2.ListSystemsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> diagnosis_pb2.ListSystemsResponse:
        """See ``diagnosis.proto``."""
        return systems_message(self._releases)

    def _answers(
        self, requests: AsyncIterator[diagnosis_pb2.DiagnoseRequest], context: grpc.aio.ServicerContext[Any, Any], tally: Tally
    ) -> AsyncIterator[_Answer]:
        return answered(
            requests,
            identify=lambda request: request.request_id,
            answer=lambda request: self._answer(request, context, tally),
            refuse=lambda request, error: _refused(request, error, tally),
            window=self._settings.stream_window,
        )

    async def _answer(self, request: diagnosis_pb2.DiagnoseRequest, context: grpc.aio.ServicerContext[Any, Any], tally: Tally) -> _Answer:
        started = time.perf_counter()
        request_id = request.request_id
        try:
            async with guarded(_STREAM_METHOD, request_id):
                request, release = self._checked(request)
                image = await self._composer.judge(request, Asked(request.request_id, release, request.display, self._clock(context)))
                diagnosis = self._diagnosis(request, image, release, started)
                tally.add(image, suspected=diagnosis.finding == diagnosis_pb2.FINDING_BLASTS_SUSPECTED)
                return _Answer(request_id=request_id, diagnosis=diagnosis)
        except CallFailedError as failed:
            tally.add_failure()
            return _Answer(request_id=request_id, error=failed.status)

    def _checked_slide(self, start: diagnosis_pb2.DiagnoseSlideStart) -> Release:
        """The release that the start of a slide means, whose fields make sense; a missing request id is made up."""
        check_identifier(start.request_id, "request_id")
        check_identifier(start.specimen, "specimen")
        check_identifier(start.release, "release")
        check_microns_per_pixel(start.microns_per_pixel)
        _check_neighbours(start.display)
        if not 0 <= start.explained_cells <= MAX_EXPLAINED:
            raise InvalidRequestError("EXPLAINED_CELLS_OUT_OF_RANGE", f"explained_cells must lie in 0..{MAX_EXPLAINED}.", field="explained_cells")
        start.request_id = start.request_id or uuid.uuid4().hex
        release = self._releases.resolve(start.release)
        if release.patches is not None:
            raise InvalidRequestError("RELEASE_TAKES_NO_SLIDES", f"The release {release.id} judges patches of fields, not slides.", field="release")
        return release

    def _checked(self, request: diagnosis_pb2.DiagnoseRequest) -> tuple[diagnosis_pb2.DiagnoseRequest, Release]:
        """A request with an id whose fields make sense, and the release that it means."""
        check_identifier(request.request_id, "request_id")
        check_identifier(request.specimen, "specimen")
        check_identifier(request.release, "release")
        check_microns_per_pixel(request.microns_per_pixel)
        _check_neighbours(request.display)
        if request.kind not in imaging_pb2.ImageKind.values():
            raise InvalidRequestError("KIND_UNKNOWN", "kind must be AUTO, CELL or FIELD.", field="kind")
        if len(request.image) > self._settings.max_image_bytes:
            limit = self._settings.max_image_bytes // (1024 * 1024)
            raise InvalidImageError("IMAGE_TOO_LARGE", f"The encoded image has {len(request.image)} bytes; at most {limit} MiB are accepted.")
        if not request.request_id:
            named = diagnosis_pb2.DiagnoseRequest()
            named.CopyFrom(request)
            named.request_id = uuid.uuid4().hex
            request = named
        return request, self._releases.resolve(request.release)

    def _diagnosis(self, request: diagnosis_pb2.DiagnoseRequest, image: JudgedImage, release: Release, started: float) -> diagnosis_pb2.Diagnosis:
        diagnosis = diagnosis_message(request.request_id, image, release, 1000.0 * (time.perf_counter() - started))
        if diagnosis.ByteSize() > self._settings.max_answer_bytes:
            raise _answer_too_large(image.counts.total)
        _count(diagnosis)
        return diagnosis

    def _clock(self, context: grpc.aio.ServicerContext[Any, Any], seconds: float | None = None) -> Clock:
        """The time that the caller gives; without it ``seconds``, or the usual time."""
        left = context.time_remaining()
        return Clock((seconds or self._settings.default_deadline_seconds) if left is None else left)


async def _refused(request: diagnosis_pb2.DiagnoseRequest, error: DomainError, tally: Tally) -> _Answer:
    tally.add_failure()
    try:
        async with guarded(_STREAM_METHOD, request.request_id):
            raise error
    except CallFailedError as failed:
        return _Answer(request_id=request.request_id, error=failed.status)


def _check_neighbours(display: diagnosis_pb2.DisplayOptions) -> None:
    if not 0 <= display.neighbours <= MAX_NEIGHBOURS:
        raise InvalidRequestError("NEIGHBOURS_OUT_OF_RANGE", f"display.neighbours must lie in 0..{MAX_NEIGHBOURS}.", field="display.neighbours")


def _answer_too_large(cells: int) -> InvalidRequestError:
    message = f"The diagnosis of {cells} cells is too large to send with all that was asked for; ask for less in display."
    return InvalidRequestError("ANSWER_TOO_LARGE", message, field="display")


def _count(diagnosis: diagnosis_pb2.Diagnosis) -> None:
    release = diagnosis.provenance.release
    _count_finding(release, diagnosis.finding, diagnosis.reasons, diagnosis.counts)
    metrics.CELLS_PER_IMAGE.observe(diagnosis.counts.total)
    for cell in diagnosis.cells:
        for reason in cell.reasons if cell.indeterminate else ():
            metrics.ABSTENTIONS.labels(release, reason).inc()


def _count_finding(release: str, finding: diagnosis_pb2.Finding.ValueType, reasons: Iterable[str], counts: diagnosis_pb2.CellCounts) -> None:
    metrics.FINDINGS.labels(release, diagnosis_pb2.Finding.Name(finding).removeprefix("FINDING_")).inc()
    for reason in reasons:
        metrics.FINDING_REASONS.labels(release, reason).inc()
    metrics.CELLS.labels(release, "suspected").inc(counts.suspected)
    metrics.CELLS.labels(release, "indeterminate").inc(counts.indeterminate)
    metrics.CELLS.labels(release, "not_suspected").inc(counts.not_suspected)


async def _slide_start(requests: AsyncIterator[diagnosis_pb2.DiagnoseSlideRequest]) -> diagnosis_pb2.DiagnoseSlideStart:
    async for request in requests:
        if request.WhichOneof("part") == "start":
            return request.start
        break
    raise InvalidRequestError("SLIDE_START_MISSING", "The first message of a slide must be its start.", field="start")


async def _to_patching(
    start: diagnosis_pb2.DiagnoseSlideStart, requests: AsyncIterator[diagnosis_pb2.DiagnoseSlideRequest]
) -> AsyncIterator[patching_pb2.LocateSlideRequest]:
    asked = patching_pb2.LocateSlideStart(request_id=start.request_id, source=start.source, microns_per_pixel=start.microns_per_pixel)
    yield patching_pb2.LocateSlideRequest(start=asked)
    if start.source.WhichOneof("source") != "upload_bytes":
        return
    async for request in requests:
        is_chunk = request.WhichOneof("part") == "chunk"
        yield patching_pb2.LocateSlideRequest(chunk=request.chunk) if is_chunk else patching_pb2.LocateSlideRequest()
