"""Fakes of the four services: stubs that answer at once, note their requests, and fail or wait where a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

import grpc
import numpy as np
from google.protobuf.message import Message

from dl4all.classification.v1 import classification_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from dl4all.preprocessing.v1 import enhanced_cell_pb2, preprocessing_pb2
from dl4all.retrieval.v1 import library_pb2, neighbour_pb2, retrieval_pb2
from services.common.admission.caller import Caller
from services.common.admission.priority import Priority
from services.common.maps import feature_map_message
from services.common.releases import Release, ReleaseStore, Role
from services.gateway.deadline import Deadline
from services.gateway.image_admission import ImageAdmission
from services.gateway.request_context import UNKNOWN, Display, EncodedImage, RequestContext
from services.gateway.settings import GatewaySettings
from services.gateway.stubs import Stubs
from tests.paths import ROOT

STORE = ReleaseStore(ROOT / "releases", ROOT / "model_repository")
RELEASE = STORE.held("plain-resnet-1")
PATCH_RELEASE = STORE.held("all-idb-patches-1")
BLAST, NORMAL = (-4.0, 4.0), (4.0, -4.0)
IMAGE = EncodedImage(b"x", imaging_pb2.IMAGE_KIND_AUTO, 0.25)


class Down(grpc.aio.AioRpcError):
    """The error of a call to a service that does not run."""

    def __init__(self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        super().__init__(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "not there")


class FakeServices:
    """All four services.

    Args:
        pieces: answers of patching for an image, in order.
        release: the release whose files they hold.
        logits: of a cell, by its number.
        votes: of a cell, by its number.
    """

    def __init__(
        self,
        pieces: Sequence[patching_pb2.LocateCellsResponse] = (),
        release: Release = RELEASE,
        logits: Callable[[int], Sequence[float]] = lambda _: NORMAL,
        votes: Callable[[int], float] = lambda _: 0.0,
    ) -> None:
        self.pieces, self.release, self.logits, self.votes = list(pieces), release, logits, votes
        self.called: list[tuple[str, Message]] = []
        self.failures: dict[str, Exception] = {}
        self.changes: dict[str, Callable[[Any], None]] = {}
        self.slide: list[patching_pb2.LocateSlideResponse] = []
        self.patches: list[patching_pb2.CutPatchesResponse] = []
        self.unusable: set[int] = set()
        self.gate: asyncio.Event | None = None
        self.at_once = self.most_at_once = 0

    @property
    def stubs(self) -> Stubs:
        return Stubs(*[cast(Any, self)] * 4)

    def requests(self, name: str) -> list[Any]:
        """Requests of an RPC, in order."""
        return [request for called, request in self.called if called == name]

    async def LocateCells(self, request: patching_pb2.LocateCellsRequest, **_: Any) -> AsyncIterator[patching_pb2.LocateCellsResponse]:
        await self._called("LocateCells", request)
        for piece in self.pieces:
            await asyncio.sleep(0)
            given = patching_pb2.LocateCellsResponse()
            given.CopyFrom(piece)
            if request.omit_crops:
                given.ClearField("crops")
            yield given

    async def CutPatches(self, request: patching_pb2.CutPatchesRequest, **_: Any) -> AsyncIterator[patching_pb2.CutPatchesResponse]:
        await self._called("CutPatches", request)
        for piece in self.patches:
            yield piece

    async def LocateSlide(
        self, requests: AsyncIterator[patching_pb2.LocateSlideRequest], **_: Any
    ) -> AsyncIterator[patching_pb2.LocateSlideResponse]:
        async for request in requests:
            await self._called("LocateSlide", request)
        for part in self.slide:
            yield part

    async def Enhance(self, request: preprocessing_pb2.EnhanceRequest, **_: Any) -> preprocessing_pb2.EnhanceResponse:
        await self._called("Enhance", request)
        side = self.release.input.side
        answer = preprocessing_pb2.EnhanceResponse()
        for crop in request.crops:
            outcome = answer.outcomes.add(cell_id=crop.cell_id)
            if crop.cell_id in self.unusable:
                outcome.error.code = grpc.StatusCode.INVALID_ARGUMENT.value[0]
            else:
                pixels = bytes([crop.cell_id % 256]) * (3 * side * side)
                outcome.enhanced.CopyFrom(enhanced_cell_pb2.EnhancedCell(pixels=pixels, side=side, accepted=True, focus_before=0.5, focus_after=0.4))
        return self._changed("Enhance", answer)

    async def Classify(self, request: classification_pb2.ClassifyRequest, **_: Any) -> classification_pb2.ClassifyResponse:
        await self._called("Classify", request)
        model = self.release.network
        answer = classification_pb2.ClassifyResponse(engine="onnxruntime", models=[_served(model.model, model.version, model.files[Role.CPU].sha256)])
        for cell in request.cells:
            answer.cells.add(cell_id=cell.cell_id, logits=self.logits(cell.cell_id), embedding=[1.0, 0.0])
            if request.include_place_embeddings:
                answer.cells[-1].place_embeddings.CopyFrom(feature_map(1.0, 0.0))
        return self._changed("Classify", answer)

    async def ClassifyPatches(self, request: classification_pb2.ClassifyPatchesRequest, **_: Any) -> classification_pb2.ClassifyPatchesResponse:
        await self._called("ClassifyPatches", request)
        assert self.release.patches is not None
        model = self.release.patches.network
        answer = classification_pb2.ClassifyPatchesResponse(model=_served(model.model, model.version, model.files[Role.CPU].sha256))
        for patch in request.patches:
            answer.patches.add(patch_id=patch.patch_id, logits=self.logits(patch.patch_id), activations=feature_map(0.0, 0.0))
        return self._changed("ClassifyPatches", answer)

    async def Explain(self, request: retrieval_pb2.ExplainRequest, **_: Any) -> retrieval_pb2.ExplainResponse:
        await self._called("Explain", request)
        answer = retrieval_pb2.ExplainResponse(library_sha256=self.release.library.sha256)
        for cell in request.cells:
            explained = answer.outcomes.add(cell_id=cell.cell_id).explained
            explained.vote = self.votes(cell.cell_id)
            explained.neighbours.add(reference_id="a/1")
        return self._changed("Explain", answer)

    async def GetLatentMap(self, request: retrieval_pb2.GetLatentMapRequest, **_: Any) -> retrieval_pb2.GetLatentMapResponse:
        await self._called("GetLatentMap", request)
        return retrieval_pb2.GetLatentMapResponse(references=[neighbour_pb2.LatentReference(reference_id="a/1")])

    async def MeasureFocus(self, request: preprocessing_pb2.MeasureFocusRequest, **_: Any) -> preprocessing_pb2.MeasureFocusResponse:
        await self._called("MeasureFocus", request)
        return self._changed("MeasureFocus", preprocessing_pb2.MeasureFocusResponse(score=6.5))  # type: ignore[no-any-return]

    async def GetLibrary(self, request: retrieval_pb2.GetLibraryRequest, **_: Any) -> retrieval_pb2.GetLibraryResponse:
        await self._called("GetLibrary", request)
        return self._changed(
            "GetLibrary",
            retrieval_pb2.GetLibraryResponse(library=library_pb2.Library(sha256=self.release.library.sha256, patients=3, takes_additions=True)),
        )  # type: ignore[no-any-return]

    async def AddReferences(self, request: retrieval_pb2.AddReferencesRequest, **_: Any) -> retrieval_pb2.AddReferencesResponse:
        await self._called("AddReferences", request)
        return self._changed("AddReferences", retrieval_pb2.AddReferencesResponse(addition_ids=range(len(request.references))))  # type: ignore[no-any-return]

    async def _called(self, name: str, request: Message) -> None:
        self.called.append((name, request))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0)
            if self.gate is not None and name == "Enhance":
                await self.gate.wait()
            if name in self.failures:
                raise self.failures[name]
        finally:
            self.at_once -= 1

    def _changed(self, name: str, answer: Any) -> Any:
        if name in self.changes:
            self.changes[name](answer)
        return answer


def admission(images: int = 1, **settings: Any) -> ImageAdmission:
    """Lets so many images in at once."""
    return ImageAdmission(GatewaySettings(images_in_flight=images, **settings).image_limits())


def located(*numbers: int, total: int | None = None, **header: Any) -> patching_pb2.LocateCellsResponse:
    """A piece of located cells; the first one, with a header, where ``total`` is given."""
    piece = patching_pb2.LocateCellsResponse()
    if total is not None:
        facts = {"kind": imaging_pb2.ImageKind.IMAGE_KIND_FIELD, "image_sha256": "0" * 64, "cell_count": total, **header}
        piece.header.CopyFrom(patching_pb2.LocateCellsHeader(**facts))
    for number in numbers:
        piece.cells.add(cell_id=number, center_x=float(number), center_y=2.0, radius=10.0)
        piece.crops.add(cell_id=number, pixels=bytes(3 * 16), height=4, width=4)
    return piece


def slide_cells(*numbers: int) -> patching_pb2.LocateSlideResponse:
    """Located cells of a slide."""
    piece = located(*numbers)
    return patching_pb2.LocateSlideResponse(cells=patching_pb2.SlideCells(cells=piece.cells, crops=piece.crops))


def context(
    release: Release = RELEASE, seconds: float = 30.0, caller: Caller = UNKNOWN, priority: Priority = Priority.INTERACTIVE, **display: Any
) -> RequestContext:
    """The context of a request."""
    return RequestContext("r", release, Display(**display), Deadline(seconds), caller, priority)


def feature_map(*values: float) -> imaging_pb2.SpatialMap:
    """A feature map of one place."""
    return feature_map_message(np.asarray([[values]], np.float32))


def _served(name: str, version: int, sha256: str) -> classification_pb2.ServedModel:
    return classification_pb2.ServedModel(name=name, version=version, sha256=sha256)
