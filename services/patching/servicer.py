"""The patching service over gRPC."""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import grpc
import numpy as np
from numpy.typing import NDArray

from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2, patching_pb2_grpc
from services.common.checks import check_identifier, check_microns_per_pixel
from services.common.engines.base import InferenceEngine
from services.common.errors import InvalidImageError
from services.common.image_codec import DecodedImage, ImageNote, decode_image, read_header
from services.common.maps import float_map_message
from services.common.memory_budget import MemoryBudget, Share
from services.common.releases import ReleaseStore
from services.common.server import Registration
from services.common.workers import Workers
from services.patching.cells import MIN_CELLS_OF_FIELD, LocatedCell, LocatedCells, central_cell, locate_cells, looks_like_single_cell
from services.patching.crops import batches
from services.patching.grid import Patch
from services.patching.image_memory import location_bytes, patches_bytes
from services.patching.locating import Location, locate
from services.patching.locator import Locator, Locators
from services.patching.margins import Box, picture_box
from services.patching.messages import (
    Activations,
    cell_message,
    check_grid,
    crop_message,
    patch_message,
    patches_of_message,
    read_activations,
)
from services.patching.patches import SCALE_RANGE, cells_at, cut_patches, find_peaks, scaled_side
from services.patching.quality import Exposure, focus_map, measure_exposure, typical_blur
from services.patching.settings import PatchingSettings
from services.patching.slide_calls import SlideCalls

DESCRIPTOR: Final = patching_pb2.DESCRIPTOR.services_by_name["PatchingService"]
_KIND = imaging_pb2.ImageKind
Patches = Iterator[tuple[Patch, NDArray[np.uint8]]]


@dataclass(frozen=True)
class _Located:
    image: DecodedImage
    box: Box
    kind: imaging_pb2.ImageKind.ValueType
    cells: tuple[LocatedCell, ...]
    exposure: Exposure
    blur: float
    focus_map: NDArray[np.float32]
    found: LocatedCells


class PatchingServicer(patching_pb2_grpc.PatchingServiceServicer):
    """Decodes an image once, or reads a slide window by window, and streams the cells with their crops."""

    def __init__(self, settings: PatchingSettings, releases: ReleaseStore, engine: InferenceEngine, workers: Workers) -> None:
        self._settings = settings
        self._workers = workers
        self._memory = MemoryBudget(settings.image_memory_bytes)
        self._locators = Locators(releases, engine, workers)
        self._slides = SlideCalls(settings, self._locators, workers)

    def registration(self) -> Registration:
        """Registration at a server; ready while the engine has the locators of the releases."""
        return Registration(DESCRIPTOR, patching_pb2_grpc.add_PatchingServiceServicer_to_server, self, self._locators.needs)

    async def LocateCells(
        self, request: patching_pb2.LocateCellsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[patching_pb2.LocateCellsResponse]:
        """See ``patching.proto``."""
        scale = self._checked(request)
        activations = read_activations(request.activations) if request.HasField("activations") else None
        locator = self._locators.of(request.release)
        header = await self._workers.run("header", read_header, request.image)
        async with (
            self._memory.taken(location_bytes(header)) as share,
            aclosing(self._located(request, scale, activations, share, locator, context.time_remaining())) as responses,
        ):
            async for response in responses:
                yield response

    async def CutPatches(
        self, request: patching_pb2.CutPatchesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[patching_pb2.CutPatchesResponse]:
        """See ``patching.proto``."""
        scale = self._checked(request)
        check_grid(request)
        header = await self._workers.run("header", read_header, request.image)
        locator = self._locators.of(request.release)
        longest = math.ceil(SCALE_RANGE[1] * request.patch_side)
        async with self._memory.taken(patches_bytes(header, longest)) as share:
            kind, patches = await locator.drive("patches", _patches(request, scale, learned=locator.is_learned), share, context.time_remaining())
            first, most = 0, patches_of_message(request.side)
            while True:
                message = await self._workers.run("patches", share.used_by(_next_patches), kind, first, patches, most)
                if first and not message.patches:
                    return
                yield message
                first += len(message.patches)
                if len(message.patches) < most:
                    return

    async def LocateSlide(
        self, request_iterator: AsyncIterator[patching_pb2.LocateSlideRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[patching_pb2.LocateSlideResponse]:
        """See ``patching.proto``."""
        async with aclosing(self._slides.locate(request_iterator, context.time_remaining())) as responses:
            async for response in responses:
                yield response

    def _checked(self, request: patching_pb2.LocateCellsRequest | patching_pb2.CutPatchesRequest) -> float | None:
        """Check the fields of a request; returns its scale."""
        check_identifier(request.request_id, "request_id")
        if len(request.image) > self._settings.max_image_bytes:
            limit = self._settings.max_image_bytes // (1024 * 1024)
            raise InvalidImageError("IMAGE_TOO_LARGE", f"The encoded image has {len(request.image)} bytes; at most {limit} MiB are read.")
        return check_microns_per_pixel(request.microns_per_pixel)

    async def _located(
        self,
        request: patching_pb2.LocateCellsRequest,
        scale: float | None,
        activations: Activations | None,
        share: Share,
        locator: Locator,
        seconds: float | None,
    ) -> AsyncGenerator[patching_pb2.LocateCellsResponse, None]:
        locating = _locate(request.image, request.kind, scale, activations, learned=locator.is_learned)
        located = await locator.drive("locate", locating, share, seconds)
        header: patching_pb2.LocateCellsHeader | None = _header(located, locator)
        box = located.box
        if request.omit_crops or not located.cells:
            cells = [cell_message(number, cell.moved(*box.origin)) for number, cell in enumerate(located.cells)]
            yield patching_pb2.LocateCellsResponse(header=header, cells=cells)
            return
        microns = 0.0 if located.found.scale_is_doubted else request.microns_per_pixel
        for batch in batches(box.of(located.image.pixels), located.cells):
            moved = [(number, cell.moved(*box.origin), crop.moved(*box.origin)) for number, cell, crop in batch]
            yield patching_pb2.LocateCellsResponse(
                header=header,
                cells=[cell_message(number, cell) for number, cell, _ in moved],
                crops=[crop_message(number, cell, crop, microns) for number, cell, crop in moved],
            )
            header = None


def _cells_of(picture: NDArray[np.uint8], scale: float | None, *, learned: bool) -> Location:
    """The cells of a picture, by the locator or by the stain alone."""
    return (yield from locate(picture, scale, masks=False)) if learned else locate_cells(picture, scale, masks=False)


def _locate(
    encoded: bytes, kind: imaging_pb2.ImageKind.ValueType, scale: float | None, activations: Activations | None = None, *, learned: bool
) -> Generator[NDArray[np.uint8], NDArray[np.float32], _Located]:
    image = decode_image(encoded)
    box = picture_box(image.pixels)
    picture = box.of(image.pixels)
    found = yield from _cells_of(picture, scale, learned=learned)
    decided = _decide_kind(kind, found, picture)
    cells = found.cells
    if decided == _KIND.IMAGE_KIND_CELL:
        central = central_cell(cells, *picture.shape[:2])
        cells = () if central is None else (central,)
    elif activations is not None:
        patches = tuple(p.moved(-box.left, -box.top) for p in activations.patches)
        seen = find_peaks(patches, activations.min_activation, activations.suppression_radius)
        height, width = picture.shape[:2]
        seen = tuple(p for p in seen if 0 <= p.x < width and 0 <= p.y < height)
        cells = cells_at(seen, cells, found.red_cell_radius, *picture.shape[:2])
    in_squares = focus_map(image.pixels)
    blur = typical_blur(in_squares if picture.shape == image.pixels.shape else focus_map(picture))
    return _Located(image, box, decided, cells, measure_exposure(picture, found.outside), blur, in_squares, found)


def _patches(
    request: patching_pb2.CutPatchesRequest, scale: float | None, *, learned: bool
) -> Generator[NDArray[np.uint8], NDArray[np.float32], tuple[imaging_pb2.ImageKind.ValueType, Patches]]:
    """What an image shows, and the patches of a field, each cut when it is asked for."""
    image = decode_image(request.image).pixels
    box = picture_box(image)
    picture = box.of(image)
    found = yield from _cells_of(picture, scale, learned=learned)
    kind = _decide_kind(request.kind, found, picture)
    if kind == _KIND.IMAGE_KIND_CELL:
        return kind, iter(())
    stated = None if found.scale_is_doubted else scale
    patch_side = scaled_side(request.patch_side, request.nominal_red_cell_radius, found.red_cell_radius, stated, min(picture.shape[:2]))
    patches = cut_patches(picture, patch_side, request.overlap, request.side)
    return kind, ((patch.moved(*box.origin), pixels) for patch, pixels in patches)


def _next_patches(kind: imaging_pb2.ImageKind.ValueType, first: int, patches: Patches, most: int) -> patching_pb2.CutPatchesResponse:
    return patch_message(kind, first, itertools.islice(patches, most))


def _decide_kind(kind: imaging_pb2.ImageKind.ValueType, found: LocatedCells, rgb: NDArray[np.uint8]) -> imaging_pb2.ImageKind.ValueType:
    if kind in (_KIND.IMAGE_KIND_CELL, _KIND.IMAGE_KIND_FIELD):
        return kind
    single = len(found.cells) < MIN_CELLS_OF_FIELD and looks_like_single_cell(found.cells, *rgb.shape[:2])
    return _KIND.IMAGE_KIND_CELL if single else _KIND.IMAGE_KIND_FIELD


def _notes(located: _Located) -> list[str]:
    doubted = [ImageNote.SCALE_DOUBTED] if located.found.scale_is_doubted else []
    return [str(note) for note in (*located.image.notes, *doubted)]


def _header(located: _Located, locator: Locator) -> patching_pb2.LocateCellsHeader:
    height, width = located.image.pixels.shape[:2]
    quality = imaging_pb2.ImageQuality(
        width=width,
        height=height,
        overexposed_share=located.exposure.over,
        underexposed_share=located.exposure.under,
        red_cell_radius=located.found.red_cell_radius or 0.0,
        notes=_notes(located),
        blur=located.blur,
        focus_map=float_map_message(located.focus_map),
        covered_share=located.found.covered,
        ink_share=located.found.ink,
    )
    return patching_pb2.LocateCellsHeader(
        quality=quality, kind=located.kind, image_sha256=located.image.sha256, cell_count=len(located.cells), locator=locator.message()
    )
