"""The retrieval service over gRPC."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import Any, Final

import grpc
import numpy as np
import structlog
from numpy.typing import NDArray

from dl4all.imaging.v1 import imaging_pb2
from dl4all.retrieval.v1 import library_pb2, neighbour_pb2, retrieval_pb2, retrieval_pb2_grpc
from services.common.checks import check_count, check_identifier
from services.common.errors import BrokenReleaseError, FailedPreconditionError, InvalidRequestError
from services.common.health import Needs
from services.common.maps import heatmap_message, read_feature_map
from services.common.releases import Release, ReleaseStore
from services.common.server import Registration
from services.common.status import status_of
from services.common.workers import Workers
from services.retrieval.additions import AdditionStore
from services.retrieval.library import ReferenceLibrary, open_library
from services.retrieval.messages import check_withdrawal, read_references
from services.retrieval.neighbours import distance_quantile, project, unit, vote
from services.retrieval.search import ExactSearch
from services.retrieval.settings import RetrievalSettings
from services.retrieval.similarity import grad_cam, normalise_places, place_similarities, quantise, similarity_map

DESCRIPTOR: Final = retrieval_pb2.DESCRIPTOR.services_by_name["RetrievalService"]
_log = structlog.get_logger("dl4all")
MAX_NEIGHBOURS: Final = 20
MAX_QUERIES: Final = 4096
MAX_SEARCHED: Final = 100
MAX_FOUND: Final = 100_000
"""Neighbours of one answer of Search, over all queries: about 17 MiB, below the largest message."""


class RetrievalServicer(retrieval_pb2_grpc.RetrievalServiceServicer):
    """Compares cells with the reference library of a release, and keeps confirmed cells for its next version.

    Args:
        settings: settings of the service.
        releases: the releases that are held; their libraries are opened at once.
        workers: threads.
    """

    def __init__(self, settings: RetrievalSettings, releases: ReleaseStore, workers: Workers) -> None:
        self._settings = settings
        self._releases = releases
        self._workers = workers
        self._known = {r.id: self._open(r) for r in releases.releases}
        self._refused: dict[str, str] = {}
        self._opening: dict[str, asyncio.Task[tuple[ReferenceLibrary, ExactSearch]]] = {}
        self._additions = None if settings.additions is None else AdditionStore(settings.additions, settings.max_additions, settings.min_free_bytes)

    def registration(self) -> Registration:
        """Registration at a server; ready while the library of the default release can be used."""
        return Registration(DESCRIPTOR, retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server, self, self._needs)

    def _needs(self) -> Needs:
        self._releases.take_in()
        libraries = {f"library/{r.id}": partial(self._can_be_used, r) for r in self._releases.releases}
        return Needs(libraries, {r.id: (f"library/{r.id}",) for r in self._releases.releases}, self._releases.index.default)

    async def Explain(self, request: retrieval_pb2.ExplainRequest, context: grpc.aio.ServicerContext[Any, Any]) -> retrieval_pb2.ExplainResponse:
        """See ``retrieval.proto``."""
        check_identifier(request.request_id, "request_id")
        check_identifier(request.release, "release")
        check_count(request.cells, "cells")
        if not 0 <= request.neighbours <= MAX_NEIGHBOURS:
            raise InvalidRequestError("NEIGHBOURS_OUT_OF_RANGE", f"neighbours must lie in 0..{MAX_NEIGHBOURS}.", field="neighbours")
        release = self._releases.held(request.release)
        shown = request.neighbours or self._settings.default_neighbours
        return await self._workers.run("explain", _explain, request, shown, release, *await self._known_cells(release))

    async def GetLatentMap(
        self, request: retrieval_pb2.GetLatentMapRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> retrieval_pb2.GetLatentMapResponse:
        """See ``retrieval.proto``."""
        check_identifier(request.request_id, "request_id")
        check_identifier(request.release, "release")
        library, _ = await self._known_cells(self._releases.held(request.release))
        positions = project(library.embeddings, library.projection_mean, library.projection)
        return retrieval_pb2.GetLatentMapResponse(
            references=[
                neighbour_pb2.LatentReference(
                    reference_id=str(library.reference_ids[i]),
                    is_blast=bool(library.is_blast[i]),
                    cell_class=str(library.cell_classes[i]),
                    position=neighbour_pb2.LatentPoint(x=x, y=y),
                )
                for i, (x, y) in enumerate(positions.tolist())
            ]
        )

    async def Search(self, request: retrieval_pb2.SearchRequest, context: grpc.aio.ServicerContext[Any, Any]) -> retrieval_pb2.SearchResponse:
        """See ``retrieval.proto``."""
        check_identifier(request.request_id, "request_id")
        check_identifier(request.release, "release")
        if not 1 <= len(request.queries) <= MAX_QUERIES:
            raise InvalidRequestError(
                "BATCH_SIZE_OUT_OF_RANGE", f"queries takes 1..{MAX_QUERIES} entries, got {len(request.queries)}.", field="queries"
            )
        if not 0 <= request.neighbours <= MAX_SEARCHED:
            raise InvalidRequestError("NEIGHBOURS_OUT_OF_RANGE", f"neighbours must lie in 0..{MAX_SEARCHED}.", field="neighbours")
        release = self._releases.held(request.release)
        shown = request.neighbours or self._settings.default_neighbours
        if len(request.queries) * shown > MAX_FOUND:
            raise InvalidRequestError(
                "ANSWER_TOO_LARGE", f"An answer takes at most {MAX_FOUND} neighbours; request fewer neighbours or queries.", field="neighbours"
            )
        return await self._workers.run("search", _search, request, shown, release, *await self._known_cells(release))

    async def GetLibrary(
        self, request: retrieval_pb2.GetLibraryRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> retrieval_pb2.GetLibraryResponse:
        """See ``retrieval.proto``."""
        check_identifier(request.request_id, "request_id")
        check_identifier(request.release, "release")
        release = self._releases.held(request.release)
        library, _ = await self._known_cells(release)
        waiting = [] if self._additions is None else await asyncio.to_thread(self._additions.ids, embedder_name(release))
        counts = Counter(zip(library.cell_classes.tolist(), library.is_blast.tolist(), strict=True))
        held = library_pb2.Library(
            sha256=release.library.sha256,
            embedder=embedder_name(release),
            dimension=library.dimension,
            classes=[library_pb2.LibraryClass(cell_class=c, is_blast=b, count=n) for (c, b), n in sorted(counts.items())],
            patients=len(np.unique(library.patients)),
            takes_additions=self._additions is not None,
            pending_additions=len(set(waiting) - set(library.addition_ids.tolist())),
        )
        return retrieval_pb2.GetLibraryResponse(library=held)

    async def AddReferences(
        self, request: retrieval_pb2.AddReferencesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> retrieval_pb2.AddReferencesResponse:
        """See ``retrieval.proto``."""
        check_identifier(request.request_id, "request_id")
        check_identifier(request.release, "release")
        release = self._releases.held(request.release)
        references = read_references(request, (await self._known_cells(release))[0])
        store = self._store()
        ids, repeated = await asyncio.to_thread(
            store.add, request.idempotency_key, embedder_name(release), request.source, request.confirmed_by, references, request.verified_as
        )
        return retrieval_pb2.AddReferencesResponse(addition_ids=ids, repeated_call=repeated)

    async def WithdrawReferences(
        self, request: retrieval_pb2.WithdrawReferencesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> retrieval_pb2.WithdrawReferencesResponse:
        """See ``retrieval.proto``."""
        check_identifier(request.request_id, "request_id")
        check_withdrawal(request)
        withdrawn = await asyncio.to_thread(self._store().withdraw, list(request.addition_ids), request.withdrawn_by, request.reason)
        return retrieval_pb2.WithdrawReferencesResponse(withdrawn=withdrawn)

    async def _known_cells(self, release: Release) -> tuple[ReferenceLibrary, ExactSearch]:
        """The library of a release and its search; opened now, once, where the release was added since.

        Raises:
            BrokenReleaseError: it cannot be opened; why is in the log.
        """
        if release.id in self._known:
            return self._known[release.id]
        if release.id not in self._opening:
            self._opening[release.id] = asyncio.create_task(self._workers.run("open", self._open, release))
        try:
            self._known[release.id] = await asyncio.shield(self._opening[release.id])
        except BrokenReleaseError as error:
            if self._refused.get(release.id) != error.message:
                _log.error("library refused", release=release.id, cause=error.message)
            self._refused[release.id] = error.message
            raise BrokenReleaseError(error.reason, f"The library of {release.id} cannot be used; the log of retrieval says why.") from None
        finally:
            if release.id in self._opening and self._opening[release.id].done():
                del self._opening[release.id]
        return self._known[release.id]

    async def _can_be_used(self, release: Release) -> bool:
        await self._known_cells(release)
        return True

    def _open(self, release: Release) -> tuple[ReferenceLibrary, ExactSearch]:
        library = open_library(self._releases.library_path(release), f"{release.embedder.model}/{release.embedder.version}")
        return library, ExactSearch(library.embeddings, gpu=self._settings.device == "gpu")

    def _store(self) -> AdditionStore:
        if self._additions is None:
            message = "This service takes no additions; set DL4ALL_RETRIEVAL_ADDITIONS to a file on a disk that lasts."
            raise FailedPreconditionError("ADDITIONS_OFF", message)
        return self._additions


def embedder_name(release: Release) -> str:
    """Model and version of the embedder of a release."""
    return f"{release.embedder.model}/{release.embedder.version}"


def _search(
    request: retrieval_pb2.SearchRequest, shown: int, release: Release, library: ReferenceLibrary, search: ExactSearch
) -> retrieval_pb2.SearchResponse:
    sound = [i for i, query in enumerate(request.queries) if len(query.embedding) == library.dimension and np.isfinite(query.embedding).all()]
    outcomes = [retrieval_pb2.SearchOutcome(query_id=query.query_id) for query in request.queries]
    if sound:
        queries = unit(np.array([request.queries[i].embedding for i in sound], np.float32))
        for i, indices, distances in zip(sound, *search.nearest(queries, shown), strict=True):
            found = zip(indices.tolist(), distances.tolist(), strict=True)
            outcomes[i].found.neighbours.extend(_neighbour(library, index, distance) for index, distance in found)
    bad = InvalidRequestError("EMBEDDING_INVALID", f"Embeddings of this release have {library.dimension} finite numbers.", field="queries")
    for outcome in outcomes:
        if outcome.WhichOneof("result") is None:
            outcome.error.CopyFrom(status_of(bad))
    return retrieval_pb2.SearchResponse(outcomes=outcomes, library_sha256=release.library.sha256)


def _explain(
    request: retrieval_pb2.ExplainRequest, shown: int, release: Release, library: ReferenceLibrary, search: ExactSearch
) -> retrieval_pb2.ExplainResponse:
    outcomes: list[retrieval_pb2.ExplainOutcome] = []
    sound: list[tuple[int, NDArray[np.float32], NDArray[np.float32] | None]] = []
    for cell in request.cells:
        outcome = retrieval_pb2.ExplainOutcome(cell_id=cell.cell_id)
        try:
            sound.append((len(outcomes), _embedding(cell, library), _places(cell, library) if request.include_maps else None))
        except InvalidRequestError as error:
            outcome.error.CopyFrom(status_of(error))
        outcomes.append(outcome)
    answer = retrieval_pb2.ExplainResponse(outcomes=outcomes, library_sha256=release.library.sha256)
    if not sound:
        return answer
    queries = unit(np.array([embedding for _, embedding, _ in sound], np.float32))
    k = release.calibration.voting_neighbours
    indices, distances = search.nearest(queries, max(k, shown))
    votes = vote(distances[:, :k], library.is_blast[indices[:, :k]])
    positions = project(queries, library.projection_mean, library.projection)
    calibration = np.asarray(release.calibration.nearest_distances, np.float64)
    for row, (number, _, places) in enumerate(sound):
        explained = answer.outcomes[number].explained
        for index, distance in zip(indices[row, :shown].tolist(), distances[row, :shown].tolist(), strict=True):
            neighbour = _neighbour(library, index, distance)
            if places is not None:
                _add_maps(neighbour, library, index, queries[row], places, embedder_name(release))
            explained.neighbours.append(neighbour)
        explained.vote = float(votes[row])
        explained.distance_quantile = distance_quantile(float(distances[row, 0]), calibration)
        explained.position.x, explained.position.y = positions[row].tolist()
    return answer


def _embedding(cell: retrieval_pb2.ExplainCell, library: ReferenceLibrary) -> NDArray[np.float32]:
    if len(cell.embedding) != library.dimension:
        raise InvalidRequestError("EMBEDDING_WRONG_SIZE", f"Embeddings of this release have {library.dimension} numbers.", field="cells")
    embedding = np.array(cell.embedding, np.float32)
    if not np.isfinite(embedding).all():
        raise InvalidRequestError("NOT_FINITE", "Embeddings must be finite numbers.", field="cells")
    return embedding


def _places(cell: retrieval_pb2.ExplainCell, library: ReferenceLibrary) -> NDArray[np.float32]:
    return normalise_places(read_feature_map(cell.place_embeddings, library.dimension, "cells"))


def _neighbour(library: ReferenceLibrary, index: int, distance: float) -> neighbour_pb2.Neighbour:
    reference_id = str(library.reference_ids[index])
    return neighbour_pb2.Neighbour(
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


def _add_maps(
    neighbour: neighbour_pb2.Neighbour, library: ReferenceLibrary, index: int, query: NDArray[np.float32], places: NDArray[np.float32], model: str
) -> None:
    neighbour.query_map.CopyFrom(_heatmap(similarity_map(places, library.embeddings[index])))
    neighbour.query_grad_cam.CopyFrom(_heatmap(grad_cam(places, library.embeddings[index])))
    neighbour.map_model = model
    known = library.places_of(index)
    if known is not None:
        neighbour.neighbour_map.CopyFrom(_heatmap(similarity_map(known, query)))
        neighbour.neighbour_grad_cam.CopyFrom(_heatmap(grad_cam(known, query)))
        neighbour.place_similarities.CopyFrom(_place_similarities(place_similarities(places, known)))


def _place_similarities(contributions: NDArray[np.float32]) -> neighbour_pb2.PlaceSimilarities:
    height, width, neighbour_height, neighbour_width = contributions.shape
    by_place = heatmap_message(quantise(contributions).reshape(height, width, neighbour_height * neighbour_width))
    return neighbour_pb2.PlaceSimilarities(map=by_place, neighbour_height=neighbour_height, neighbour_width=neighbour_width)


def _heatmap(contributions: NDArray[np.float32]) -> imaging_pb2.SpatialMap:
    return heatmap_message(quantise(contributions))
