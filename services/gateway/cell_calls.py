"""Calls of the services that look at cells, with their answers checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dl4all.classification.v1 import classification_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.preprocessing.v1 import preprocessing_pb2
from dl4all.retrieval.v1 import neighbour_pb2, retrieval_pb2
from services.common.tracing import metadata
from services.gateway.answer_checks import check_classified, check_enhanced, check_explained, check_library, check_models, readable
from services.gateway.calling import call
from services.gateway.request_context import RequestContext
from services.gateway.run_stats import RunStats, ServedFile
from services.gateway.stubs import Stubs

Classified = Mapping[int, classification_pb2.ClassifiedCell]
Explained = Mapping[int, retrieval_pb2.ExplainedCell]


class CellCalls:
    """Calls preprocessing, classification and retrieval, for at most 32 cells at a time.

    Every method raises DomainError: a service refused the call, is down, or gave an answer that makes no sense.

    Args:
        stubs: the four services.
    """

    def __init__(self, stubs: Stubs) -> None:
        self._stubs = stubs

    async def enhance(
        self, crops: Sequence[imaging_pb2.Crop], context: RequestContext, stats: RunStats
    ) -> Sequence[preprocessing_pb2.EnhanceOutcome]:
        """Registered, sharpened cells: an outcome for each crop, in order."""
        with stats.timed("enhance"):
            request = preprocessing_pb2.EnhanceRequest(request_id=context.request_id, release=context.release.id, crops=crops)
            answer = await call("preprocessing", self._stubs.preprocessing.Enhance(request, timeout=context.deadline.left, metadata=metadata()))
            return check_enhanced(answer, [crop.cell_id for crop in crops], context.release.input.side).outcomes

    async def classify(self, pixels: Mapping[int, bytes], context: RequestContext, stats: RunStats, *, with_places: bool) -> Classified:
        """Judgements of the networks on registered cells, by cell id.

        Args:
            pixels: registered cells by cell id, at the side of the release.
            context: of the request.
            stats: models and times are added here.
            with_places: whether place embeddings and class activations are wanted.
        """
        with stats.timed("classify"):
            request = classification_pb2.ClassifyRequest(
                request_id=context.request_id,
                release=context.release.id,
                cells=[classification_pb2.ClassifyCell(cell_id=cell, pixels=content) for cell, content in pixels.items()],
                include_place_embeddings=with_places,
            )
            answer = await call("classification", self._stubs.classification.Classify(request, timeout=context.deadline.left, metadata=metadata()))
            classified = check_classified(answer, list(pixels), len(context.release.classes))
        check_models(classified.models, context.release)
        stats.ran([ServedFile(m.name, m.version, m.sha256) for m in classified.models], classified.engine)
        return {cell.cell_id: cell for cell in classified.cells}

    async def explain(self, classified: Classified, context: RequestContext, stats: RunStats) -> Explained:
        """How classified cells compare with the known cells, by cell id."""
        with stats.timed("explain"):
            request = retrieval_pb2.ExplainRequest(
                request_id=context.request_id,
                release=context.release.id,
                cells=[_to_explain(cell) for cell in classified.values()],
                neighbours=context.display.neighbours,
                include_maps=context.display.maps,
            )
            answer = await call("retrieval", self._stubs.retrieval.Explain(request, timeout=context.deadline.left, metadata=metadata()))
            checked = check_explained(answer, list(classified))
            check_library(checked.library_sha256, context.release)
        return {outcome.cell_id: outcome.explained for outcome in checked.outcomes}

    async def latent_map(self, context: RequestContext) -> list[neighbour_pb2.LatentReference]:
        """Reference cells of the latent map, if they are to be shown."""
        if not context.display.latent_map:
            return []
        request = retrieval_pb2.GetLatentMapRequest(request_id=context.request_id, release=context.release.id)
        answer = await call("retrieval", self._stubs.retrieval.GetLatentMap(request, timeout=context.deadline.left, metadata=metadata()))
        return list(readable(answer, "retrieval").references)


def _to_explain(cell: classification_pb2.ClassifiedCell) -> retrieval_pb2.ExplainCell:
    places = cell.place_embeddings if cell.HasField("place_embeddings") else None
    return retrieval_pb2.ExplainCell(cell_id=cell.cell_id, embedding=cell.embedding, place_embeddings=places)
