"""The retrieval service over gRPC."""

from __future__ import annotations

from typing import Any, Final

import grpc
import numpy as np
from numpy.typing import NDArray

from dl4all.imaging.v1 import imaging_pb2
from dl4all.retrieval.v1 import retrieval_pb2, retrieval_pb2_grpc
from services.common.arrays import patches_from_bytes
from services.common.checks import check_count, check_identifier
from services.common.errors import InvalidRequestError
from services.common.health import Needs
from services.common.releases import Release, ReleaseStore
from services.common.server import Registration
from services.common.workers import Workers
from services.retrieval.library import ReferenceLibrary, open_library
from services.retrieval.neighbours import distance_quantile, project, unit, vote
from services.retrieval.search import ExactSearch
from services.retrieval.settings import RetrievalSettings
from services.retrieval.similarity import normalise_patches, quantise, similarity_map

DESCRIPTOR: Final = retrieval_pb2.DESCRIPTOR.services_by_name["RetrievalService"]
MAX_NEIGHBOURS: Final = 20


class RetrievalServicer(retrieval_pb2_grpc.RetrievalServiceServicer):
    """Compares cells with the reference library of a release.

    Args:
        settings: what the service was told.
        releases: the releases that are held; their libraries are opened at once.
        workers: threads.
    """

    def __init__(self, settings: RetrievalSettings, releases: ReleaseStore, workers: Workers) -> None:
        self._settings = settings
        self._releases = releases
        self._workers = workers
        self._libraries = {r.id: open_library(releases.library_path(r)) for r in releases.releases}
        self._searches = {name: ExactSearch(library.embeddings, gpu=settings.device == "gpu") for name, library in self._libraries.items()}

    def registration(self) -> Registration:
        """What a server needs to serve this; every release that is held can be used."""
        needs = Needs(releases={r.id: () for r in self._releases.releases})
        return Registration(DESCRIPTOR, retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server, self, needs)

    async def Explain(self, request: retrieval_pb2.ExplainRequest, context: grpc.aio.ServicerContext[Any, Any]) -> retrieval_pb2.ExplainResponse:
        """See ``retrieval.proto``."""
        check_identifier(request.request_id, "request_id")
        check_identifier(request.release, "release")
        check_count(request.cells, "cells")
        if not 0 <= request.neighbours <= MAX_NEIGHBOURS:
            raise InvalidRequestError("NEIGHBOURS_OUT_OF_RANGE", f"neighbours must lie in 0..{MAX_NEIGHBOURS}.", field="neighbours")
        release = self._releases.held(request.release)
        shown = request.neighbours or self._settings.default_neighbours
        return await self._workers.run("explain", _explain, request, shown, release, self._libraries[release.id], self._searches[release.id])

    async def GetLatentMap(
        self, request: retrieval_pb2.GetLatentMapRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> retrieval_pb2.GetLatentMapResponse:
        """See ``retrieval.proto``."""
        check_identifier(request.request_id, "request_id")
        check_identifier(request.release, "release")
        library = self._libraries[self._releases.held(request.release).id]
        positions = project(library.embeddings, library.projection_mean, library.projection)
        return retrieval_pb2.GetLatentMapResponse(
            references=[
                retrieval_pb2.LatentReference(
                    reference_id=str(library.reference_ids[i]),
                    is_blast=bool(library.is_blast[i]),
                    cell_class=str(library.cell_classes[i]),
                    position=retrieval_pb2.LatentPoint(x=x, y=y),
                )
                for i, (x, y) in enumerate(positions.tolist())
            ]
        )


def _explain(
    request: retrieval_pb2.ExplainRequest, shown: int, release: Release, library: ReferenceLibrary, search: ExactSearch
) -> retrieval_pb2.ExplainResponse:
    queries = unit(_embeddings(request, library))
    k = release.calibration.voting_neighbours
    indices, distances = search.nearest(queries, max(k, shown))
    votes = vote(distances[:, :k], library.is_blast[indices[:, :k]])
    positions = project(queries, library.projection_mean, library.projection)
    calibration = np.asarray(release.calibration.nearest_distances, np.float64)
    cells = []
    for i, cell in enumerate(request.cells):
        patches = _patches(cell, library) if request.include_maps else None
        found = zip(indices[i, :shown].tolist(), distances[i, :shown].tolist(), strict=True)
        cells.append(
            retrieval_pb2.ExplainedCell(
                cell_id=cell.cell_id,
                neighbours=[_neighbour(library, index, distance, queries[i], patches) for index, distance in found],
                vote=float(votes[i]),
                distance_quantile=distance_quantile(float(distances[i, 0]), calibration),
                position=retrieval_pb2.LatentPoint(x=float(positions[i, 0]), y=float(positions[i, 1])),
            )
        )
    return retrieval_pb2.ExplainResponse(cells=cells, library_sha256=release.library.sha256)


def _embeddings(request: retrieval_pb2.ExplainRequest, library: ReferenceLibrary) -> NDArray[np.float32]:
    if any(len(cell.embedding) != library.dimension for cell in request.cells):
        raise InvalidRequestError("EMBEDDING_WRONG_SIZE", f"Embeddings of this release have {library.dimension} numbers.", field="cells")
    embeddings = np.array([cell.embedding for cell in request.cells], np.float32)
    if not np.isfinite(embeddings).all():
        raise InvalidRequestError("NOT_FINITE", "Embeddings must be finite numbers.", field="cells")
    return embeddings


def _patches(cell: retrieval_pb2.ExplainCell, library: ReferenceLibrary) -> NDArray[np.float32]:
    return normalise_patches(patches_from_bytes(cell.patch_embeddings, cell.rows, cell.columns, library.dimension, "cells"))


def _neighbour(
    library: ReferenceLibrary, index: int, distance: float, query: NDArray[np.float32], patches: NDArray[np.float32] | None
) -> retrieval_pb2.Neighbour:
    reference_id = str(library.reference_ids[index])
    neighbour = retrieval_pb2.Neighbour(
        reference_id=reference_id,
        is_blast=bool(library.is_blast[index]),
        cell_class=str(library.cell_classes[index]),
        source=reference_id.partition("/")[0],
        patient=str(library.patients[index]),
        distance=distance,
        image_sha256=str(library.image_sha256[index]),
        center_x=float(library.centers[index, 0]),
        center_y=float(library.centers[index, 1]),
        radius=float(library.radii[index]),
    )
    if patches is not None:
        neighbour.query_map.CopyFrom(_heatmap(similarity_map(patches, library.embeddings[index])))
        neighbour.neighbour_map.CopyFrom(_heatmap(similarity_map(library.patch_embeddings(index), query)))
    return neighbour


def _heatmap(contributions: NDArray[np.float32]) -> imaging_pb2.Heatmap:
    values = quantise(contributions)
    return imaging_pb2.Heatmap(values=values.tobytes(), height=values.shape[0], width=values.shape[1])
