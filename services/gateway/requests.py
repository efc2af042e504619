"""Requests of the contract as checked plain values; a missing request id is made up."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from services.common.admission.caller import Caller
from services.common.admission.priority import Priority
from services.common.checks import check_identifier, check_microns_per_pixel
from services.common.errors import InvalidImageError, InvalidRequestError
from services.common.releases import ReleaseStore
from services.gateway.deadline import Deadline
from services.gateway.request_context import UNKNOWN, Display, EncodedImage, RequestContext
from services.gateway.settings import GatewaySettings
from services.gateway.slides import MAX_EXPLAINED
from services.gateway.specimens import Specimen

MAX_NEIGHBOURS: Final = 20
START_SECONDS: Final = 60.0
"""Within which the start of a slide must come."""
_PRIORITIES: Final[dict[int, Priority]] = {
    diagnosis_pb2.PRIORITY_UNSPECIFIED: Priority.INTERACTIVE,
    diagnosis_pb2.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    diagnosis_pb2.PRIORITY_BATCH: Priority.BATCH,
}
_NOTHING_SHOWN: Final = diagnosis_pb2.DisplayOptions()


@dataclass(frozen=True)
class SlideRequest:
    """A slide that is to be judged.

    Attributes:
        start: the start of the slide for patching.
        context: of the request.
        explained: how many of the most suspicious cells are explained.
    """

    start: patching_pb2.LocateSlideStart
    context: RequestContext
    explained: int


class RequestReader:
    """Reads requests. Every method raises InvalidRequestError or NotFoundError with the field at fault.

    Args:
        settings: of the gateway.
        releases: the releases that can be chosen.
    """

    def __init__(self, settings: GatewaySettings, releases: ReleaseStore) -> None:
        self._settings = settings
        self._releases = releases

    def context(
        self,
        request_id: str,
        release: str,
        left: float | None,
        display: diagnosis_pb2.DisplayOptions = _NOTHING_SHOWN,
        *,
        caller: Caller = UNKNOWN,
        priority: int = diagnosis_pb2.PRIORITY_INTERACTIVE,
    ) -> RequestContext:
        """The context of a call.

        Args:
            request_id: the caller's; made up if empty.
            release: release id, system, or empty for the default.
            left: seconds until the caller's deadline; None where it sets none.
            display: the display options.
            caller: who calls.
            priority: a value of the contract's ``Priority``.
        """
        check_identifier(request_id, "request_id")
        check_identifier(release, "release")
        if not 0 <= display.neighbours <= MAX_NEIGHBOURS:
            raise InvalidRequestError("NEIGHBOURS_OUT_OF_RANGE", f"display.neighbours must lie in 0..{MAX_NEIGHBOURS}.", field="display.neighbours")
        if priority not in _PRIORITIES:
            raise InvalidRequestError("PRIORITY_UNKNOWN", "priority must be INTERACTIVE or BATCH.", field="priority")
        shown = Display(display.neighbours, display.include_maps, display.include_crops, display.include_latent_map)
        resolved, end = self._releases.resolve(release), self.deadline(left)
        return RequestContext(request_id or uuid.uuid4().hex, resolved, shown, end, caller, _PRIORITIES[priority])

    def diagnose(self, request: diagnosis_pb2.DiagnoseRequest, left: float | None, caller: Caller = UNKNOWN) -> tuple[EncodedImage, RequestContext]:
        """The image of a request and its context; ``left`` and ``caller`` as for ``context``."""
        check_identifier(request.specimen, "specimen")
        context = self.context(request.request_id, request.release, left, request.display, caller=caller, priority=request.priority)
        return self.image(request.image, request.kind, request.microns_per_pixel), context

    def specimen(self, request: diagnosis_pb2.DiagnoseRequest) -> Specimen:
        """The specimen that the first of its images names."""
        check_identifier(request.release, "release")
        return Specimen(request.specimen, request.release, self._releases.resolve(request.release).id)

    def image(self, content: bytes, kind: int = imaging_pb2.IMAGE_KIND_AUTO, microns_per_pixel: float = 0.0) -> EncodedImage:
        """An image within the limits."""
        check_microns_per_pixel(microns_per_pixel)
        if kind not in imaging_pb2.ImageKind.values():
            raise InvalidRequestError("KIND_UNKNOWN", "kind must be AUTO, CELL or FIELD.", field="kind")
        if len(content) > self._settings.max_image_bytes:
            limit = self._settings.max_image_bytes // (1024 * 1024)
            raise InvalidImageError("IMAGE_TOO_LARGE", f"The encoded image has {len(content)} bytes; at most {limit} MiB are accepted.")
        return EncodedImage(content, kind, microns_per_pixel)

    def slide(self, start: diagnosis_pb2.DiagnoseSlideStart, left: float | None) -> SlideRequest:
        """The start of a slide; ``left`` as for ``context``."""
        check_identifier(start.specimen, "specimen")
        check_microns_per_pixel(start.microns_per_pixel)
        if not 0 <= start.explained_cells <= MAX_EXPLAINED:
            raise InvalidRequestError("EXPLAINED_CELLS_OUT_OF_RANGE", f"explained_cells must lie in 0..{MAX_EXPLAINED}.", field="explained_cells")
        context = self.context(start.request_id, start.release, None, start.display)
        longest = self._settings.slide_deadline_seconds
        context = replace(context, deadline=Deadline(longest if left is None else min(left, longest)))
        if context.release.patches is not None:
            message = f"The release {context.release.id} judges patches of fields, not slides."
            raise InvalidRequestError("RELEASE_TAKES_NO_SLIDES", message, field="release")
        located = patching_pb2.LocateSlideStart(
            request_id=context.request_id, source=start.source, microns_per_pixel=start.microns_per_pixel, release=context.release.id
        )
        return SlideRequest(located, context, start.explained_cells or MAX_EXPLAINED)

    def deadline(self, left: float | None) -> Deadline:
        """When a call about an image ends; ``left`` as for ``context``."""
        settings = self._settings
        return Deadline(settings.default_deadline_seconds if left is None else min(left, settings.longest_deadline_seconds))


class SpecimenReader:
    """Reads the images of one specimen; the first image says which specimen and which release.

    Args:
        requests: reads what the first image names.
    """

    def __init__(self, requests: RequestReader) -> None:
        self._requests = requests
        self.specimen: Specimen | None = None

    async def read(self, messages: AsyncIterator[diagnosis_pb2.DiagnoseSpecimenRequest]) -> AsyncIterator[diagnosis_pb2.DiagnoseRequest]:
        """The images, each with specimen and release filled in.

        Raises:
            InvalidRequestError: PART_UNKNOWN, SPECIMEN_MIXED, or what is wrong with the first image's release.
        """
        async for request in image_requests(messages):
            self.specimen = self.specimen or self._requests.specimen(request)
            self.specimen.check(request.specimen, request.release)
            request.specimen, request.release = self.specimen.name, self.specimen.release_id
            yield request

    @property
    def found(self) -> Specimen:
        """The specimen of the images that were read.

        Raises:
            InvalidRequestError: SPECIMEN_EMPTY.
        """
        if self.specimen is None:
            raise InvalidRequestError("SPECIMEN_EMPTY", "A specimen needs at least one image.", field="request")
        return self.specimen


async def image_requests(
    messages: AsyncIterator[diagnosis_pb2.DiagnoseStreamRequest] | AsyncIterator[diagnosis_pb2.DiagnoseSpecimenRequest],
) -> AsyncIterator[diagnosis_pb2.DiagnoseRequest]:
    """The images of a stream or a specimen.

    Raises:
        InvalidRequestError: PART_UNKNOWN: a message brings something else, such as a part that only later versions know.
    """
    async for message in messages:
        if message.WhichOneof("part") != "request":
            raise InvalidRequestError("PART_UNKNOWN", "A message of this stream must bring an image (request).", field="part")
        yield message.request


async def slide_start(
    requests: AsyncIterator[diagnosis_pb2.DiagnoseSlideRequest], seconds: float = START_SECONDS
) -> diagnosis_pb2.DiagnoseSlideStart:
    """The first message of a slide. No slot is taken before it.

    Args:
        requests: of the caller.
        seconds: within which it must come.

    Raises:
        InvalidRequestError: SLIDE_START_MISSING.
    """
    with suppress(TimeoutError, StopAsyncIteration):
        async with asyncio.timeout(seconds):
            request = await anext(requests)
        if request.WhichOneof("part") == "start":
            return request.start
    raise InvalidRequestError("SLIDE_START_MISSING", "The first message of a slide must be its start.", field="start")


async def slide_parts(
    start: patching_pb2.LocateSlideStart, requests: AsyncIterator[diagnosis_pb2.DiagnoseSlideRequest]
) -> AsyncIterator[patching_pb2.LocateSlideRequest]:
    """The messages to patching for a slide: its start, then the chunks of an upload. A message without a chunk becomes an empty chunk."""
    yield patching_pb2.LocateSlideRequest(start=start)
    if start.source.WhichOneof("source") != "upload_bytes":
        return
    async for request in requests:
        is_chunk = request.WhichOneof("part") == "chunk"
        yield patching_pb2.LocateSlideRequest(chunk=request.chunk) if is_chunk else patching_pb2.LocateSlideRequest()
