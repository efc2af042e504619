"""The cells of an image, from patching, piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc

from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from services.common.errors import InternalError
from services.common.releases import Release
from services.common.tracing import metadata
from services.gateway.answer_checks import check_locator, check_piece
from services.gateway.calling import REFUSES_IMAGES, failed
from services.gateway.request_context import EncodedImage, RequestContext
from services.gateway.run_stats import RunStats, ServedFile
from services.gateway.stubs import PatchingStub


def ran_locator(locator: patching_pb2.LocatorModel, release: Release, stats: RunStats) -> None:
    """Note the network that found the cells, if one did.

    Raises:
        FailedPreconditionError: it is not that of the release.
    """
    check_locator(locator, release)
    if locator.name:
        stats.ran([ServedFile(locator.name, locator.version, locator.sha256)], locator.engine)


async def located_pieces(
    patching: PatchingStub,
    image: EncodedImage,
    context: RequestContext,
    *,
    activations: patching_pb2.PatchActivations | None = None,
    crops: bool = True,
) -> AsyncIterator[patching_pb2.LocateCellsResponse]:
    """Locate the cells of an image.

    Args:
        patching: the service.
        image: the encoded image.
        context: of the request.
        activations: where a network of patches sees cells, if the release has one.
        crops: whether every cell comes with its crop.

    Yields:
        Pieces of the answer, checked; at least one, the first with the header.

    Raises:
        DomainError: patching refused the image, is down, or answered nonsense.
    """
    request = patching_pb2.LocateCellsRequest(
        request_id=context.request_id,
        image=image.content,
        kind=imaging_pb2.ImageKind.ValueType(image.kind),
        microns_per_pixel=image.microns_per_pixel,
        omit_crops=not crops,
        activations=activations,
        release=context.release.id,
    )
    first = True
    try:
        async for piece in patching.LocateCells(request, timeout=context.deadline.left, metadata=metadata()):
            yield check_piece(piece, first=first, crops=crops)
            first = False
    except grpc.aio.AioRpcError as error:
        raise failed(error, "patching", of_caller=REFUSES_IMAGES) from error
    if first:
        raise InternalError("INTERNAL", "The patching service answered nothing.", metadata={"dependency": "patching"})
