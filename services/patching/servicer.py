"""The patching service over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import grpc
import numpy as np
from numpy.typing import NDArray

from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2, patching_pb2_grpc
from services.common.checks import check_identifier, check_microns_per_pixel
from services.common.errors import InvalidImageError
from services.common.image_codec import DecodedImage, decode_image
from services.common.server import Registration
from services.common.workers import Workers
from services.patching.cells import LocatedCell, LocatedCells, central_cell, locate_cells, looks_like_single_cell
from services.patching.crops import CutCrop, batches
from services.patching.quality import Exposure, measure_exposure
from services.patching.settings import PatchingSettings

DESCRIPTOR: Final = patching_pb2.DESCRIPTOR.services_by_name["PatchingService"]
_KIND = imaging_pb2.ImageKind


@dataclass(frozen=True)
class _Located:
    image: DecodedImage
    kind: imaging_pb2.ImageKind.ValueType
    cells: tuple[LocatedCell, ...]
    exposure: Exposure
    red_cell_radius: float | None


class PatchingServicer(patching_pb2_grpc.PatchingServiceServicer):
    """Decodes an image once and streams its cells with their crops."""

    def __init__(self, settings: PatchingSettings, workers: Workers) -> None:
        self._settings = settings
        self._workers = workers
        self._in_memory = asyncio.Semaphore(settings.images_in_memory)

    def registration(self) -> Registration:
        """What a server needs to serve this; it needs nothing else."""
        return Registration(DESCRIPTOR, patching_pb2_grpc.add_PatchingServiceServicer_to_server, self)

    async def LocateCells(
        self, request: patching_pb2.LocateCellsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[patching_pb2.LocateCellsResponse]:
        """See ``patching.proto``."""
        check_identifier(request.request_id, "request_id")
        scale = check_microns_per_pixel(request.microns_per_pixel)
        if len(request.image) > self._settings.max_image_bytes:
            limit = self._settings.max_image_bytes // (1024 * 1024)
            raise InvalidImageError("IMAGE_TOO_LARGE", f"The encoded image has {len(request.image)} bytes; at most {limit} MiB are read.")
        async with self._in_memory:
            async for response in self._located(request, scale):
                yield response

    async def _located(self, request: patching_pb2.LocateCellsRequest, scale: float | None) -> AsyncIterator[patching_pb2.LocateCellsResponse]:
        located = await self._workers.run("locate", _locate, request.image, request.kind, scale)
        header: patching_pb2.LocateCellsHeader | None = _header(located)
        if request.omit_crops or not located.cells:
            cells = [_cell(number, cell) for number, cell in enumerate(located.cells)]
            yield patching_pb2.LocateCellsResponse(header=header, cells=cells)
            return
        for batch in batches(located.image.pixels, located.cells):
            yield patching_pb2.LocateCellsResponse(
                header=header,
                cells=[_cell(number, cell) for number, cell, _ in batch],
                crops=[_crop(number, cell, crop, request.microns_per_pixel) for number, cell, crop in batch],
            )
            header = None


def _locate(encoded: bytes, kind: imaging_pb2.ImageKind.ValueType, scale: float | None) -> _Located:
    image = decode_image(encoded)
    found = locate_cells(image.pixels, scale)
    decided = _decide_kind(kind, found, image.pixels)
    cells = found.cells
    if decided == _KIND.IMAGE_KIND_CELL:
        central = central_cell(cells, *image.pixels.shape[:2])
        cells = () if central is None else (central,)
    return _Located(image, decided, cells, measure_exposure(image.pixels), found.red_cell_radius)


def _decide_kind(kind: imaging_pb2.ImageKind.ValueType, found: LocatedCells, rgb: NDArray[np.uint8]) -> imaging_pb2.ImageKind.ValueType:
    if kind in (_KIND.IMAGE_KIND_CELL, _KIND.IMAGE_KIND_FIELD):
        return kind
    single = looks_like_single_cell(found.cells, *rgb.shape[:2])
    return _KIND.IMAGE_KIND_CELL if single else _KIND.IMAGE_KIND_FIELD


def _header(located: _Located) -> patching_pb2.LocateCellsHeader:
    height, width = located.image.pixels.shape[:2]
    quality = imaging_pb2.ImageQuality(
        width=width,
        height=height,
        overexposed_share=located.exposure.over,
        underexposed_share=located.exposure.under,
        red_cell_radius=located.red_cell_radius or 0.0,
        notes=[str(n) for n in located.image.notes],
    )
    return patching_pb2.LocateCellsHeader(quality=quality, kind=located.kind, image_sha256=located.image.sha256, cell_count=len(located.cells))


def _cell(number: int, cell: LocatedCell) -> imaging_pb2.Cell:
    box = imaging_pb2.Box(x=cell.x, y=cell.y, width=cell.width, height=cell.height)
    return imaging_pb2.Cell(cell_id=number, box=box, center_x=cell.center_x, center_y=cell.center_y, radius=cell.radius, confidence=cell.confidence)


def _crop(number: int, cell: LocatedCell, crop: CutCrop, microns_per_pixel: float) -> imaging_pb2.Crop:
    height, width = crop.pixels.shape[:2]
    return imaging_pb2.Crop(
        pixels=crop.pixels.tobytes(),
        height=height,
        width=width,
        origin_x=crop.origin_x,
        origin_y=crop.origin_y,
        center_x=cell.center_x - crop.origin_x,
        center_y=cell.center_y - crop.origin_y,
        radius_estimate=cell.radius,
        microns_per_pixel=microns_per_pixel,
        cell_id=number,
    )
