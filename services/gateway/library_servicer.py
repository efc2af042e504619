"""The reference library over gRPC: its content, and images of confirmed cells for its next version."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

import grpc

from dl4all.diagnosis.v1 import library_pb2, library_pb2_grpc
from dl4all.retrieval.v1 import retrieval_pb2
from services.common.checks import MAX_REFERENCES, check_text
from services.common.errors import DomainError, InternalError, InvalidRequestError
from services.common.health import NeedsNow
from services.common.releases import ReleaseStore
from services.common.server import Registration
from services.common.tracing import metadata
from services.gateway.calling import call
from services.gateway.image_slots import ImageSlots
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
        slots: how many images are worked on at once.
    """

    def __init__(self, settings: GatewaySettings, releases: ReleaseStore, stubs: Stubs, slots: ImageSlots) -> None:
        self._requests = RequestReader(settings, releases)
        self._single_cells = SingleCells(stubs, slots)
        self._stubs = stubs

    def registration(self, needs: NeedsNow) -> Registration:
        """Registration at a server; ready while the composed services are ready."""
        return Registration(DESCRIPTOR, library_pb2_grpc.add_LibraryServiceServicer_to_server, self, needs)

    async def GetLibrary(self, request: library_pb2.GetLibraryRequest, context: _Context) -> library_pb2.GetLibraryResponse:
        """See ``library.proto``."""
        request_context = self._requests.context(request.request_id, request.release, context.time_remaining())
        wanted = retrieval_pb2.GetLibraryRequest(request_id=request_context.request_id, release=request_context.release.id)
        answer = await call("retrieval", self._stubs.retrieval.GetLibrary(wanted, timeout=request_context.deadline.left, metadata=metadata()))
        if answer is None:
            raise _unreadable()
        return library_pb2.GetLibraryResponse(release=request_context.release.id, library=answer.library)

    async def AddReferences(self, request_iterator: _Requests, context: _Context) -> library_pb2.AddReferencesResponse:
        """See ``library.proto``. Where the caller sets no deadline, each image has the usual time."""
        start = await _start(request_iterator)
        request_context = self._requests.context(start.request_id, start.release, context.time_remaining())
        wanted = retrieval_pb2.AddReferencesRequest(
            request_id=request_context.request_id,
            release=request_context.release.id,
            idempotency_key=start.idempotency_key,
            confirmed_by=start.confirmed_by,
            source=start.source,
        )
        async for message in request_iterator:
            if message.WhichOneof("part") != "reference":
                raise InvalidRequestError("ADDITIONS_START_MISSING", "All messages after the start must be references.", field="reference")
            if len(wanted.references) == MAX_REFERENCES:
                raise InvalidRequestError("BATCH_SIZE_OUT_OF_RANGE", f"A call takes 1..{MAX_REFERENCES} references.", field="reference")
            of_image = replace(request_context, deadline=self._requests.deadline(context.time_remaining()))
            wanted.references.append(await self._embedded(message.reference, len(wanted.references), of_image))
        if not wanted.references:
            raise InvalidRequestError("BATCH_SIZE_OUT_OF_RANGE", f"A call takes 1..{MAX_REFERENCES} references.", field="reference")
        deadline = self._requests.deadline(context.time_remaining())
        called = self._stubs.retrieval.AddReferences(wanted, timeout=deadline.left, metadata=metadata())
        answer = await call("retrieval", called, of_caller=True)
        if answer is None or len(answer.addition_ids) != len(wanted.references):
            raise _unreadable()
        return library_pb2.AddReferencesResponse(
            addition_ids=answer.addition_ids, repeated_call=answer.repeated_call, release=request_context.release.id
        )

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


async def _start(requests: _Requests) -> library_pb2.AddReferencesStart:
    async for request in requests:
        if request.WhichOneof("part") == "start":
            for field in ("idempotency_key", "confirmed_by", "source"):
                check_text(getattr(request.start, field), field)
            return request.start
        break
    raise InvalidRequestError("ADDITIONS_START_MISSING", "The first message must be the start.", field="start")


def _unreadable() -> InternalError:
    return InternalError("INTERNAL", "The retrieval service answered a message that cannot be read.", metadata={"dependency": "retrieval"})
