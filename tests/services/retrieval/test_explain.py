"""Tests of Explain: each cell its own explanation or refusal, whatever the others are."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any, cast

import pytest

from dl4all.imaging.v1 import imaging_pb2
from dl4all.retrieval.v1 import retrieval_pb2
from services.common.errors import ConfigurationError, InvalidRequestError
from services.common.maps import feature_map_message
from services.common.releases import ReleaseStore
from services.common.settings import CommonSettings
from services.common.status import error_of
from services.common.workers import Workers
from services.retrieval.library import open_library
from services.retrieval.servicer import RetrievalServicer
from services.retrieval.settings import RetrievalSettings

COMMON = CommonSettings()
STORE = ReleaseStore(COMMON.releases, COMMON.model_repository)
RELEASE = STORE.resolve("plain-resnet-1")
LIBRARY = open_library(STORE.library_path(RELEASE))
EXEMPLARS = [int(i) for i in LIBRARY.exemplars[:3]]


def cell(number: int, **changes: Any) -> retrieval_pb2.ExplainCell:
    """A cell that looks like one of the exemplars, each of another length."""
    index = EXEMPLARS[number % len(EXEMPLARS)]
    places = LIBRARY.places_of(index)
    assert places is not None
    facts = {
        "cell_id": 40 + number,
        "embedding": (1.0 + number) * LIBRARY.embeddings[index],
        "place_embeddings": feature_map_message(places),
    }
    return retrieval_pb2.ExplainCell(**(facts | changes))


def explain(cells: Sequence[retrieval_pb2.ExplainCell], *, maps: bool) -> retrieval_pb2.ExplainResponse:
    workers = Workers(1)
    try:
        servicer = RetrievalServicer(RetrievalSettings(), STORE, workers)
        request = retrieval_pb2.ExplainRequest(release=RELEASE.id, cells=cells, include_maps=maps)
        return asyncio.run(servicer.Explain(request, cast(Any, None)))
    finally:
        workers.close()


def places_of_one(values: bytes) -> imaging_pb2.SpatialMap:
    """A map of one place with these values."""
    return imaging_pb2.SpatialMap(height=1, width=1, channels=LIBRARY.dimension, value_type=imaging_pb2.VALUE_TYPE_FLOAT16, values=values)


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "too short": ({"embedding": [1.0, 2.0]}, "EMBEDDING_WRONG_SIZE"),
    "empty": ({"embedding": []}, "EMBEDDING_WRONG_SIZE"),
    "not a number": ({"embedding": [math.nan] * LIBRARY.dimension}, "NOT_FINITE"),
    "infinite": ({"embedding": [1.0] * (LIBRARY.dimension - 1) + [math.inf]}, "NOT_FINITE"),
    "places cut off": ({"place_embeddings": places_of_one(b"\0" * 10)}, "MAP_WRONG_SIZE"),
    "no places": ({"place_embeddings": None}, "MAP_WRONG_SIZE"),
    "places not a number": ({"place_embeddings": places_of_one(b"\xff\xff" * LIBRARY.dimension)}, "NOT_FINITE"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_bad_cell_is_refused_alone(what: str) -> None:
    changes, reason = BROKEN[what]
    sound = [cell(0), cell(1), cell(2)]
    found = explain([sound[0], cell(7, **changes), *sound[1:]], maps=True)
    assert [o.cell_id for o in found.outcomes] == [40, 47, 41, 42]
    refused = found.outcomes[1]
    assert refused.WhichOneof("result") == "error"
    assert (error_of(refused.error).reason, isinstance(error_of(refused.error), InvalidRequestError)) == (reason, True)
    del found.outcomes[1]
    assert found == explain(sound, maps=True)
    assert [o.explained.neighbours[0].reference_id for o in found.outcomes] == [str(LIBRARY.reference_ids[i]) for i in EXEMPLARS]
    assert all(o.explained.neighbours[0].HasField("query_map") for o in found.outcomes)


def test_places_are_not_looked_at_where_no_maps_are_asked_for() -> None:
    found = explain([cell(0, place_embeddings=places_of_one(b"\0"))], maps=False)
    assert found.outcomes[0].WhichOneof("result") == "explained"
    assert 0.0 <= found.outcomes[0].explained.vote <= 1.0


def test_all_cells_may_be_bad() -> None:
    found = explain([cell(i, embedding=[]) for i in range(3)], maps=False)
    assert [error_of(c.error).reason for c in found.outcomes] == ["EMBEDDING_WRONG_SIZE"] * 3
    assert found.library_sha256 == RELEASE.library.sha256


def test_a_gpu_that_is_not_there_is_told_at_the_start() -> None:
    workers = Workers(1)
    try:
        with pytest.raises(ConfigurationError) as caught:
            RetrievalServicer(RetrievalSettings(device="gpu"), STORE, workers)
    finally:
        workers.close()
    assert caught.value.reason == "GPU_UNAVAILABLE"
