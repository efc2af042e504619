"""The reference library over gRPC: its content, and images of confirmed cells for its next version."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

import grpc

from dl4all.diagnosis.v1 import library_pb2, library_pb2_grpc
from dl4all.retrieval.v1 import library_pb2 as retrieval_library_pb2
from dl4all.retrieval.v1 import retrieval_pb2
from services.common.admission.caller import caller_of
from services.common.checks import MAX_NAME, MAX_REFERENCES, check_identifier, check_source, check_text
from services.common.errors import DeadlineError, DomainError, FailedPreconditionError, InvalidRequestError
from services.common.health import NeedsNow
from services.common.releases import ReleaseStore
from services.common.server import Registration
from services.common.tracing import metadata
from services.gateway.answer_checks import check_library, readable
from services.gateway.calling import REFUSES_ADDITIONS, call
from services.gateway.image_admission import ImageAdmission
from services.gateway.request_context import RequestContext
from services.gateway.requests import RequestReader
from services.gateway.settings import GatewaySettings
from services.gateway.single_cells import SingleCells
from services.gateway.stubs import Stubs

DESCRIPTOR: Final = library_pb2.DESCRIPTOR.services_by_name["LibraryService"]
_Context = grpc.aio.ServicerContext[Any, Any]
_Requests = AsyncIterator[library_pb2.AddReferencesRequest]


class LibraryServicer(library_pb2_grpc.LibraryServiceServicer):
    """Describes a library, and makes references from images. Every method is described in ``library.proto``.

    Args:
        settings: of the gateway.
        releases: the releases that can be chosen.
        stubs: the four services.
        admission: lets images in.
    """

    def __init__(self, settings: GatewaySettings, releases: ReleaseStore, stubs: Stubs, admission: ImageAdmission) -> None:
        self._settings = settings
        self._requests = RequestReader(settings, releases)
        self._single_cells = SingleCells(stubs, admission)
        self._stubs = stubs

    def registration(self, needs: NeedsNow) -> Registration:
        """Registration at a server; ready while the composed services are ready."""
        return Registration(DESCRIPTOR, library_pb2_grpc.add_LibraryServiceServicer_to_server, self, needs)

    async def GetLibrary(self, request: library_pb2.GetLibraryRequest, context: _Context) -> library_pb2.GetLibraryResponse:
        """See ``library.proto``."""
        request_context = self._requests.context(request.request_id, request.release, context.time_remaining())
        library = await self._library(request_context)
        return library_pb2.GetLibraryResponse(request_id=request_context.request_id, release=request_context.release.id, library=library)

    async def AddReferences(self, request_iterator: _Requests, context: _Context) -> library_pb2.AddReferencesResponse:
        """See ``library.proto``. Where the caller sets no deadline, each image has the usual time."""
        messages = _in_time(request_iterator, self._settings.default_deadline_seconds)
        start = await _start(messages)
        request_context = self._requests.context(start.request_id, start.release, context.time_remaining(), caller=caller_of(context))
        library = await self._library(request_context)
        check_library(library.sha256, request_context.release)
        if not library.takes_additions:
            text = "This service takes no confirmed cells; its operator must set DL4ALL_RETRIEVAL_ADDITIONS."
            raise FailedPreconditionError("ADDITIONS_OFF", text)
        references: list[retrieval_pb2.NewReference] = []
        async for message in messages:
            if message.WhichOneof("part") != "reference":
                raise InvalidRequestError("ADDITIONS_START_MISSING", "After the start come only references.", field="reference")
            if len(references) == MAX_REFERENCES:
                raise _wrong_count()
            of_image = replace(request_context, deadline=self._requests.deadline(context.time_remaining()))
            references.append(await self._embedded(message.reference, len(references), of_image))
        if not references:
            raise _wrong_count()
        request = retrieval_pb2.AddReferencesRequest(
            request_id=request_context.request_id,
            release=request_context.release.id,
            idempotency_key=start.idempotency_key,
            confirmed_by=start.confirmed_by,
            verified_as=caller_of(context).certificate_name[:MAX_NAME],
            source=start.source,
            references=references,
        )
        deadline = self._requests.deadline(context.time_remaining())
        called = self._stubs.retrieval.AddReferences(request, timeout=deadline.left, metadata=metadata())
        answer = readable(await call("retrieval", called, of_caller=REFUSES_ADDITIONS), "retrieval")
        return library_pb2.AddReferencesResponse(
            request_id=request_context.request_id,
            addition_ids=answer.addition_ids,
            repeated_call=answer.repeated_call,
            release=request_context.release.id,
        )

    async def _library(self, context: RequestContext) -> retrieval_library_pb2.Library:
        request = retrieval_pb2.GetLibraryRequest(request_id=context.request_id, release=context.release.id)
        answer = await call("retrieval", self._stubs.retrieval.GetLibrary(request, timeout=context.deadline.left, metadata=metadata()))
        library: retrieval_library_pb2.Library = readable(answer, "retrieval").library
        return library

    async def _embedded(self, reference: library_pb2.ReferenceImage, number: int, context: RequestContext) -> retrieval_pb2.NewReference:
        """The cell of an image, as the networks of the release see it. An error names the number of the image."""
        try:
            check_text(reference.cell_class, "reference.cell_class")
            check_text(reference.patient, "reference.patient")
            image = self._requests.image(reference.image, microns_per_pixel=reference.microns_per_pixel)
            found, classified = await self._single_cells.embed(image, context)
        except DomainError as error:
            error.metadata["image"] = str(number)
            raise
        return retrieval_pb2.NewReference(
            is_blast=reference.is_blast,
            cell_class=reference.cell_class,
            patient=reference.patient,
            embedding=classified.embedding,
            place_embeddings=classified.place_embeddings,
            image_sha256=found.image_sha256,
            center_x=found.cell.center_x,
            center_y=found.cell.center_y,
            radius=found.cell.radius,
        )


async def _in_time(requests: _Requests, seconds: float) -> _Requests:
    """The messages of a caller, each within ``seconds`` of the one before.

    Raises:
        DeadlineError: the next one did not come.
    """
    while True:
        try:
            async with asyncio.timeout(seconds):
                message = await anext(requests)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise DeadlineError("DEADLINE_EXCEEDED", f"No further message came for {seconds:g} seconds.") from error
        yield message


async def _start(messages: _Requests) -> library_pb2.AddReferencesStart:
    async for message in messages:
        if message.WhichOneof("part") == "start":
            check_text(message.start.idempotency_key, "idempotency_key")
            check_identifier(message.start.idempotency_key, "idempotency_key")
            check_text(message.start.confirmed_by, "confirmed_by")
            check_source(message.start.source)
            return message.start
        break
    raise InvalidRequestError("ADDITIONS_START_MISSING", "The first message must be the start.", field="start")


def _wrong_count() -> InvalidRequestError:
    return InvalidRequestError("BATCH_SIZE_OUT_OF_RANGE", f"A call takes 1..{MAX_REFERENCES} references.", field="reference")
