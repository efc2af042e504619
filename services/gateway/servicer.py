"""Diagnosis over gRPC: messages to plain values and back."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

import grpc

from dl4all.diagnosis.v1 import diagnosis_pb2, diagnosis_pb2_grpc
from services.common.admission.caller import caller_of
from services.common.health import NeedsNow
from services.common.releases import ReleaseStore
from services.common.server import Registration
from services.gateway.answers import (
    check_size,
    enhanced_message,
    located_message,
    releases_message,
    slide_message,
    slide_part_message,
    specimen_message,
)
from services.gateway.composition import Composer
from services.gateway.counting import count_decision
from services.gateway.image_admission import ImageAdmission
from services.gateway.image_answers import ImageAnswers
from services.gateway.image_room import ImageRoom
from services.gateway.requests import RequestReader, SpecimenReader, image_requests, slide_parts, slide_start
from services.gateway.rules import image_rule
from services.gateway.settings import GatewaySettings
from services.gateway.single_cells import SingleCells
from services.gateway.slides import JudgedSlide, SlideComposer
from services.gateway.specimens import Tally
from services.gateway.stubs import Stubs

DESCRIPTOR: Final = diagnosis_pb2.DESCRIPTOR.services_by_name["DiagnosisService"]
_STREAM: Final = f"/{DESCRIPTOR.full_name}/DiagnoseStream"
_SPECIMEN: Final = f"/{DESCRIPTOR.full_name}/DiagnoseSpecimen"
_ONE_IMAGE: Final = ("Diagnose", "LocateCells", "MeasureFocus", "EnhanceCell")
_Context = grpc.aio.ServicerContext[Any, Any]


class DiagnosisServicer(diagnosis_pb2_grpc.DiagnosisServiceServicer):
    """Composes the four services into one diagnosis. Every method is described in ``diagnosis.proto``.

    Args:
        settings: of the gateway.
        releases: the releases that can be chosen.
        stubs: the four services.
        admission: lets images in.
    """

    def __init__(self, settings: GatewaySettings, releases: ReleaseStore, stubs: Stubs, admission: ImageAdmission) -> None:
        self._releases = releases
        self._max_answer_bytes = settings.max_answer_bytes
        self._requests = RequestReader(settings, releases)
        self._slides = SlideComposer(stubs, settings.slides_in_flight, settings.batches_in_flight)
        self._single_cells = SingleCells(stubs, admission)
        composer = Composer(stubs, admission, settings.batches_in_flight)
        room = ImageRoom(settings.stream_bytes, settings.unread_seconds)
        self._early = dict.fromkeys(_ONE_IMAGE, admission.refuse_early)
        self._images = ImageAnswers(self._requests, composer, settings.max_answer_bytes, room, settings.stream_window)

    def registration(self, needs: NeedsNow) -> Registration:
        """Registration at a server; ready while the composed services are ready."""
        return Registration(DESCRIPTOR, diagnosis_pb2_grpc.add_DiagnosisServiceServicer_to_server, self, needs, self._early)

    async def Diagnose(self, request: diagnosis_pb2.DiagnoseRequest, context: _Context) -> diagnosis_pb2.DiagnoseResponse:
        """See ``diagnosis.proto``."""
        diagnosis, _, _ = await self._images.answer(request, context.time_remaining(), caller_of(context))
        return diagnosis_pb2.DiagnoseResponse(diagnosis=diagnosis)

    async def DiagnoseStream(
        self, request_iterator: AsyncIterator[diagnosis_pb2.DiagnoseStreamRequest], context: _Context
    ) -> AsyncIterator[diagnosis_pb2.DiagnoseStreamResponse]:
        """See ``diagnosis.proto``."""
        async for answer in self._images.stream(image_requests(request_iterator), context.time_remaining(), caller_of(context), _STREAM, Tally()):
            yield answer

    async def DiagnoseSpecimen(
        self, request_iterator: AsyncIterator[diagnosis_pb2.DiagnoseSpecimenRequest], context: _Context
    ) -> AsyncIterator[diagnosis_pb2.DiagnoseSpecimenResponse]:
        """See ``diagnosis.proto``."""
        tally, images = Tally(), SpecimenReader(self._requests)
        async for answer in self._images.stream(images.read(request_iterator), context.time_remaining(), caller_of(context), _SPECIMEN, tally):
            yield diagnosis_pb2.DiagnoseSpecimenResponse(image=answer)
        release = self._releases.held(images.found.release_id)
        yield diagnosis_pb2.DiagnoseSpecimenResponse(specimen=specimen_message(tally, release))

    async def DiagnoseSlide(
        self, request_iterator: AsyncIterator[diagnosis_pb2.DiagnoseSlideRequest], context: _Context
    ) -> AsyncIterator[diagnosis_pb2.DiagnoseSlideResponse]:
        """See ``diagnosis.proto``."""
        started = time.perf_counter()
        slide = self._requests.slide(await slide_start(request_iterator), context.time_remaining())
        release = slide.context.release
        async with aclosing(self._slides.judge(slide_parts(slide.start, request_iterator), slide.context, slide.explained)) as parts:
            async for part in parts:
                if not isinstance(part, JudgedSlide):
                    yield slide_part_message(part, release)
                    continue
                decision = part.decide(image_rule(release))
                message = slide_message(part, decision, slide.context, 1000.0 * (time.perf_counter() - started))
                check_size(message, self._max_answer_bytes, len(part.explained))
                count_decision(release.id, decision, part.counts)
                yield diagnosis_pb2.DiagnoseSlideResponse(slide=message)

    async def LocateCells(self, request: diagnosis_pb2.LocateCellsRequest, context: _Context) -> diagnosis_pb2.LocateCellsResponse:
        """See ``diagnosis.proto``."""
        image = self._requests.image(request.image, request.kind, request.microns_per_pixel)
        request_context = self._requests.context(request.request_id, "", context.time_remaining(), caller=caller_of(context))
        return located_message(await self._single_cells.locate(image, request_context), request_context)

    async def MeasureFocus(self, request: diagnosis_pb2.MeasureFocusRequest, context: _Context) -> diagnosis_pb2.MeasureFocusResponse:
        """See ``diagnosis.proto``."""
        image = self._requests.image(request.image)
        request_context = self._requests.context(request.request_id, "", context.time_remaining(), caller=caller_of(context))
        score = await self._single_cells.measure_focus(image, request_context)
        return diagnosis_pb2.MeasureFocusResponse(score=score, request_id=request_context.request_id)

    async def EnhanceCell(self, request: diagnosis_pb2.EnhanceCellRequest, context: _Context) -> diagnosis_pb2.EnhanceCellResponse:
        """See ``diagnosis.proto``."""
        image = self._requests.image(request.image, microns_per_pixel=request.microns_per_pixel)
        request_context = self._requests.context(request.request_id, request.release, context.time_remaining(), caller=caller_of(context))
        found = await self._single_cells.enhance(image, request_context)
        return enhanced_message(found, request_context, crop=request.include_crop)

    async def ListReleases(self, request: diagnosis_pb2.ListReleasesRequest, context: _Context) -> diagnosis_pb2.ListReleasesResponse:
        """See ``diagnosis.proto``."""
        return releases_message(self._releases)
