"""Cells of one image that are located, enhanced or embedded, and not judged."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from dl4all.classification.v1 import classification_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from dl4all.preprocessing.v1 import enhanced_cell_pb2, preprocessing_pb2
from services.common.errors import InternalError, InvalidImageError, NotFoundError
from services.common.status import error_of
from services.common.tracing import metadata
from services.gateway.answer_checks import check_total, readable
from services.gateway.calling import REFUSES_IMAGES, call
from services.gateway.cell_calls import CellCalls
from services.gateway.image_admission import ImageAdmission
from services.gateway.locating import located_pieces
from services.gateway.request_context import EncodedImage, RequestContext
from services.gateway.run_stats import RunStats
from services.gateway.stubs import Stubs


@dataclass(frozen=True)
class LocatedCells:
    """The cells of an image.

    Attributes:
        header: facts of the image.
        cells: top to bottom.
        crops: one per cell; none where they were not requested.
    """

    header: patching_pb2.LocateCellsHeader
    cells: list[imaging_pb2.Cell]
    crops: list[imaging_pb2.Crop]


@dataclass(frozen=True)
class EnhancedSingleCell:
    """The cell nearest to the centre of an image: located, cut, registered and sharpened."""

    image_sha256: str
    cell: imaging_pb2.Cell
    crop: imaging_pb2.Crop
    enhanced: enhanced_cell_pb2.EnhancedCell


class SingleCells:
    """Looks at the cells of images without judging them.

    Every method raises DomainError where the image is refused for overload, or a service refused a call or is down, and TimeoutError where the deadline passed first.

    Args:
        stubs: the four services.
        admission: lets images in.
    """

    def __init__(self, stubs: Stubs, admission: ImageAdmission) -> None:
        self._stubs = stubs
        self._calls = CellCalls(stubs)
        self._admission = admission

    async def locate(self, image: EncodedImage, context: RequestContext, *, with_crops: bool = False) -> LocatedCells:
        """Locate the cells of an image."""
        async with self._admission.let_in(image, context):
            return await self._locate(image, context, with_crops=with_crops)

    async def measure_focus(self, image: EncodedImage, context: RequestContext) -> float:
        """FQPath focus score of an image as it is."""
        request = preprocessing_pb2.MeasureFocusRequest(request_id=context.request_id, image=image.content)
        async with self._admission.let_in(image, context):
            called = self._stubs.preprocessing.MeasureFocus(request, timeout=context.deadline.left, metadata=metadata())
            answer = await call("preprocessing", called, of_caller=REFUSES_IMAGES)
        if not math.isfinite(readable(answer, "preprocessing").score):
            raise InternalError("INTERNAL", "The preprocessing service answered no focus score.", metadata={"dependency": "preprocessing"})
        return float(answer.score)

    async def enhance(self, image: EncodedImage, context: RequestContext) -> EnhancedSingleCell:
        """Register and sharpen the cell nearest to the centre.

        Raises:
            NotFoundError: NO_CELLS.
        """
        async with self._admission.let_in(image, context):
            return await self._enhance(image, context)

    async def embed(self, image: EncodedImage, context: RequestContext) -> tuple[EnhancedSingleCell, classification_pb2.ClassifiedCell]:
        """Enhance the cell nearest to the centre, and embed it with its place embeddings.

        Raises:
            NotFoundError: NO_CELLS.
            InvalidImageError: CELL_NOT_ACCEPTED: no network may judge the cell.
        """
        async with self._admission.let_in(image, context):
            found = await self._enhance(image, context)
            if not found.enhanced.accepted:
                reasons = ", ".join(found.enhanced.reasons)
                raise InvalidImageError("CELL_NOT_ACCEPTED", f"The cell is too blurred or too small to be a reference ({reasons}).")
            pixels = {found.cell.cell_id: found.enhanced.pixels}
            classified = await self._calls.classify(pixels, context, RunStats(), with_places=True)
        return found, classified[found.cell.cell_id]

    async def _enhance(self, image: EncodedImage, context: RequestContext) -> EnhancedSingleCell:
        alone = replace(image, kind=imaging_pb2.ImageKind.IMAGE_KIND_CELL)
        located = await self._locate(alone, context, with_crops=True)
        if not located.crops:
            raise NotFoundError("NO_CELLS", "No nucleated cell was found in this image.", field="image")
        (outcome,) = await self._calls.enhance(located.crops[:1], context, RunStats())
        if outcome.HasField("error"):
            refusal = error_of(outcome.error)
            raise InternalError(
                "INTERNAL", f"The preprocessing service refused the crop with {refusal.reason}.", metadata={"dependency": "preprocessing"}
            )
        return EnhancedSingleCell(located.header.image_sha256, located.cells[0], located.crops[0], outcome.enhanced)

    async def _locate(self, image: EncodedImage, context: RequestContext, *, with_crops: bool) -> LocatedCells:
        pieces = [piece async for piece in located_pieces(self._stubs.patching, image, context, crops=with_crops)]
        cells = [cell for piece in pieces for cell in piece.cells]
        check_total(pieces[0].header, len(cells))
        return LocatedCells(pieces[0].header, cells, [crop for piece in pieces for crop in piece.crops])
