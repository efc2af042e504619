"""The classification service over gRPC."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np

from dl4all.classification.v1 import classification_pb2, classification_pb2_grpc
from services.common.arrays import patches_to_bytes, pixels_from_bytes
from services.common.checks import check_count, check_identifier
from services.common.engines.base import InferenceEngine
from services.common.releases import Model, Release, ReleaseStore


class ClassificationServicer(classification_pb2_grpc.ClassificationServiceServicer):
    """Runs the network and the embedder of a release on the cells of an image, once each."""

    def __init__(self, releases: ReleaseStore, engine: InferenceEngine) -> None:
        self._releases = releases
        self._engine = engine

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
        judged = await self._engine.infer(release.network, images)
        embedded = judged if release.embedder == release.network else await self._engine.infer(release.embedder, images)
        cells = [
            classification_pb2.ClassifiedCell(
                cell_id=cell.cell_id,
                logits=judged["logits"][i],
                embedding=embedded["embedding"][i],
                patch_embeddings=patches_to_bytes(embedded["patch_embeddings"][i]) if request.include_patch_embeddings else b"",
                rows=embedded["patch_embeddings"].shape[1],
                columns=embedded["patch_embeddings"].shape[2],
            )
            for i, cell in enumerate(request.cells)
        ]
        return classification_pb2.ClassifyResponse(cells=cells, engine=self._engine.name, models=self._served(release))

    def _served(self, release: Release) -> list[classification_pb2.ServedModel]:
        models: list[Model] = [release.network]
        if release.embedder != release.network:
            models.append(release.embedder)
        return [classification_pb2.ServedModel(name=m.model, version=m.version, sha256=self._engine.served_sha256(m)) for m in models]
