"""The preprocessing service over gRPC."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc

from dl4all.imaging.v1 import imaging_pb2
from dl4all.preprocessing.v1 import enhanced_cell_pb2, preprocessing_pb2, preprocessing_pb2_grpc
from services.common.arrays import pixels_from_bytes
from services.common.checks import check_count, check_identifier
from services.common.errors import DomainError, InvalidImageError, InvalidRequestError
from services.common.health import Needs
from services.common.image_codec import decode_image, read_header
from services.common.image_header import ImageHeader, decode_bytes
from services.common.memory_budget import MemoryBudget
from services.common.releases import InputKind, Release, ReleaseStore
from services.common.server import Registration
from services.common.status import status_of
from services.common.workers import Workers
from services.preprocessing.focus import focus_score
from services.preprocessing.registration import register
from services.preprocessing.settings import PreprocessingSettings
from services.preprocessing.unsharpening import FocusParameters, SharpenedCell, sharpen_adaptively

DESCRIPTOR: Final = preprocessing_pb2.DESCRIPTOR.services_by_name["PreprocessingService"]
_CELL_AT_BORDER = "CELL_AT_BORDER"
MAX_CROP_SIDE: Final = 2048
SCORE_BYTES: Final = 64
"""Bytes for each pixel of an image whose focus is scored as a whole, the decoded image among them."""
MIN_MEMORY: Final = 64 << 20
"""Bytes for all such images at once, and at least those of the largest that is accepted."""


class PreprocessingServicer(preprocessing_pb2_grpc.PreprocessingServiceServicer):
    """Registers, measures and sharpens crops; each crop has its own outcome."""

    def __init__(self, settings: PreprocessingSettings, releases: ReleaseStore, workers: Workers) -> None:
        self._settings = settings
        self._releases = releases
        self._workers = workers
        self._memory = MemoryBudget(max(MIN_MEMORY, SCORE_BYTES * settings.max_focus_pixels))

    def registration(self) -> Registration:
        """Registration at a server; every release that is held can be used."""
        return Registration(DESCRIPTOR, preprocessing_pb2_grpc.add_PreprocessingServiceServicer_to_server, self, self._needs)

    def _needs(self) -> Needs:
        self._releases.take_in()
        return Needs(releases={r.id: () for r in self._releases.releases})

    async def Enhance(
        self, request: preprocessing_pb2.EnhanceRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> preprocessing_pb2.EnhanceResponse:
        """See ``preprocessing.proto``."""
        check_identifier(request.request_id, "request_id")
        check_identifier(request.release, "release")
        check_count(request.crops, "crops")
        release = self._releases.held(request.release)
        jobs = [self._workers.run("enhance", self._enhance, crop, release) for crop in request.crops]
        return preprocessing_pb2.EnhanceResponse(outcomes=await asyncio.gather(*jobs))

    async def MeasureFocus(
        self, request: preprocessing_pb2.MeasureFocusRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> preprocessing_pb2.MeasureFocusResponse:
        """See ``preprocessing.proto``."""
        check_identifier(request.request_id, "request_id")
        header = await self._workers.run("header", _checked_header, request.image, self._settings.max_focus_pixels)
        async with self._memory.taken(_score_bytes(header)) as share:
            score = await self._workers.run("focus", share.used_by(_score), request.image)
        return preprocessing_pb2.MeasureFocusResponse(score=score)

    def _enhance(self, crop: imaging_pb2.Crop, release: Release) -> preprocessing_pb2.EnhanceOutcome:
        try:
            if max(crop.height, crop.width) > MAX_CROP_SIDE:
                raise InvalidRequestError("CROP_TOO_LARGE", f"A crop has sides of at most {MAX_CROP_SIDE} px.", field="crops")
            pixels = pixels_from_bytes(crop.pixels, crop.height, crop.width, "crops")
            registered = register(pixels, crop.center_x, crop.center_y, crop.radius_estimate, release.input.side)
        except DomainError as error:
            return preprocessing_pb2.EnhanceOutcome(cell_id=crop.cell_id, error=status_of(error))
        sharpened = sharpen_adaptively(registered.pixels, registered.upscale_factor, FocusParameters(**dict(release.preprocessing)))
        given = sharpened.pixels if release.input.kind is InputKind.REGISTERED_SHARPENED else registered.pixels
        reasons = [str(r) for r in sharpened.reasons]
        reduction = max(1, crop.reduction)
        shift = (reduction - 1) / 2
        if registered.reflected_share > self._settings.border_share:
            reasons.append(_CELL_AT_BORDER)
        enhanced = enhanced_cell_pb2.EnhancedCell(
            pixels=given.tobytes(),
            side=release.input.side,
            center_x=crop.origin_x + crop.center_x * reduction + shift,
            center_y=crop.origin_y + crop.center_y * reduction + shift,
            radius=crop.radius_estimate * reduction,
            upscale_factor=registered.upscale_factor,
            reasons=reasons,
            **_scores(sharpened),
        )
        return preprocessing_pb2.EnhanceOutcome(cell_id=crop.cell_id, enhanced=enhanced)


def _checked_header(encoded: bytes, max_pixels: int) -> ImageHeader:
    header = read_header(encoded)
    if header.pixels > max_pixels:
        raise InvalidImageError("IMAGE_TOO_LARGE", f"The focus of images of at most {max_pixels // 10**6} megapixels is scored.")
    return header


def _score_bytes(header: ImageHeader) -> int:
    """Most memory in bytes of decoding and scoring at a time."""
    return max(decode_bytes(header), SCORE_BYTES * header.pixels)


def _score(encoded: bytes) -> float:
    return focus_score(decode_image(encoded).pixels)


def _scores(cell: SharpenedCell) -> dict[str, Any]:
    return {
        "focus_before": cell.focus_before,
        "focus_after": cell.focus_after,
        "unsharp_radius": cell.unsharp_radius,
        "accepted": cell.accepted,
    }
