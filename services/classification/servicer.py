"""The classification service over gRPC."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc
import numpy as np
from numpy.typing import NDArray

from dl4all.classification.v1 import classification_pb2, classification_pb2_grpc
from services.common.arrays import pixels_from_bytes
from services.common.checks import check_count, check_identifier
from services.common.engines.base import CLASS_ACTIVATIONS, EMBEDDING, LOGITS, PLACE_EMBEDDINGS, InferenceEngine
from services.common.engines.needs import needs_of_models
from services.common.errors import FailedPreconditionError
from services.common.health import Needs
from services.common.maps import feature_map_message
from services.common.releases import Model, Release, ReleaseStore
from services.common.server import Registration

DESCRIPTOR: Final = classification_pb2.DESCRIPTOR.services_by_name["ClassificationService"]
Outputs = dict[str, NDArray[np.float32]]


class ClassificationServicer(classification_pb2_grpc.ClassificationServiceServicer):
    """Runs the network and the embedder of a release once each on the cells of an image, and its network of patches on a field."""

    def __init__(self, releases: ReleaseStore, engine: InferenceEngine) -> None:
        self._releases = releases
        self._engine = engine

    def registration(self) -> Registration:
        """Registration at a server; ready while the engine has the models of the default release."""
        return Registration(DESCRIPTOR, classification_pb2_grpc.add_ClassificationServiceServicer_to_server, self, self._needs)

    def _needs(self) -> Needs:
        return needs_of_models(self._releases, self._engine, lambda release: release.models)

    async def Classify(
        self, request: classification_pb2.ClassifyRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> classification_pb2.ClassifyResponse:
        """See ``classification.proto``."""
        check_identifier(request.request_id, "request_id")
        check_identifier(request.release, "release")
        check_count(request.cells, "cells")
        release = self._releases.held(request.release)
        side = release.input.side
        images = np.stack([pixels_from_bytes(cell.pixels, side, side, "cells") for cell in request.cells])
        judged, embedded = await self._run(release, images, request.include_place_embeddings, context.time_remaining())
        places, activations = embedded.get(PLACE_EMBEDDINGS), judged.get(CLASS_ACTIVATIONS)
        cells = [
            classification_pb2.ClassifiedCell(
                cell_id=cell.cell_id,
                logits=judged[LOGITS][i],
                embedding=embedded[EMBEDDING][i],
                place_embeddings=None if places is None else feature_map_message(places[i]),
                class_activations=None if activations is None else feature_map_message(activations[i]),
            )
            for i, cell in enumerate(request.cells)
        ]
        return classification_pb2.ClassifyResponse(cells=cells, engine=self._engine.name, models=self._served(release))

    async def ClassifyPatches(
        self, request: classification_pb2.ClassifyPatchesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> classification_pb2.ClassifyPatchesResponse:
        """See ``classification.proto``."""
        check_identifier(request.request_id, "request_id")
        check_identifier(request.release, "release")
        check_count(request.patches, "patches")
        release = self._releases.held(request.release)
        if release.patches is None:
            raise FailedPreconditionError("RELEASE_WITHOUT_PATCHES", f"The release {release.id!r} judges no patches.", field="release")
        network, side = release.patches.network, release.patches.side
        images = np.stack([pixels_from_bytes(patch.pixels, side, side, "patches") for patch in request.patches])
        outputs = await self._engine.infer(network, images, [LOGITS, CLASS_ACTIVATIONS], context.time_remaining())
        patches = [
            classification_pb2.ClassifiedPatch(patch_id=patch.patch_id, logits=logits, activations=feature_map_message(activations))
            for patch, logits, activations in zip(request.patches, outputs[LOGITS], outputs[CLASS_ACTIVATIONS], strict=True)
        ]
        return classification_pb2.ClassifyPatchesResponse(patches=patches, engine=self._engine.name, model=self._served_model(network))

    async def _run(self, release: Release, images: NDArray[np.uint8], with_places: bool, timeout: float | None) -> tuple[Outputs, Outputs]:
        """Outputs of the network and of the embedder; one inference where they are one model."""
        embedding = [EMBEDDING, PLACE_EMBEDDINGS] if with_places else [EMBEDDING]
        judgement = [LOGITS, CLASS_ACTIVATIONS] if with_places and release.class_activations else [LOGITS]
        if release.embedder == release.network:
            both = await self._engine.infer(release.network, images, [*judgement, *embedding], timeout)
            return both, both
        return await asyncio.gather(
            self._engine.infer(release.network, images, judgement, timeout),
            self._engine.infer(release.embedder, images, embedding, timeout),
        )

    def _served(self, release: Release) -> list[classification_pb2.ServedModel]:
        models: list[Model] = [release.network]
        if release.embedder != release.network:
            models.append(release.embedder)
        return [self._served_model(m) for m in models]

    def _served_model(self, model: Model) -> classification_pb2.ServedModel:
        return classification_pb2.ServedModel(name=model.model, version=model.version, sha256=self._engine.served_sha256(model))
