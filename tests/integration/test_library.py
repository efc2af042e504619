"""Search, the contents of a library, and confirmed cells, over the wire and by command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import pytest

from dl4all.retrieval.v1 import retrieval_pb2, retrieval_pb2_grpc
from dl4all_client import ServiceError
from services.common.maps import feature_map_message
from services.common.phantom import CellKind, encode_png, single_cell
from services.common.releases import ReleaseStore
from services.common.settings import CommonSettings
from services.retrieval.library import ReferenceLibrary, open_library
from tests.running import Running, Stack, own_copy

SETTINGS = CommonSettings()
STORE = ReleaseStore(SETTINGS.releases, SETTINGS.model_repository)
RELEASE = STORE.resolve("")
LIBRARY: ReferenceLibrary = open_library(STORE.library_path(RELEASE))


@pytest.fixture(scope="module")
def retrieval(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = own_copy(stack["retrieval"], DL4ALL_RETRIEVAL_ADDITIONS=str(tmp_path_factory.mktemp("additions") / "additions.sqlite"))
    running.start().wait_serving()
    yield running
    running.end()


def call(running: Running, method: str, request: object) -> Any:
    with running.channel() as channel:
        return getattr(retrieval_pb2_grpc.RetrievalServiceStub(channel), method)(request, timeout=30)


def reason(running: Running, method: str, request: object) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(running, method, request)
    error = ServiceError.from_rpc(caught.value)
    return error.code, error.reason


def addition(**changes: Any) -> retrieval_pb2.AddReferencesRequest:
    places = LIBRARY.places_of(0)
    assert places is not None
    cell = retrieval_pb2.NewReference(
        is_blast=True,
        cell_class="blast",
        patient="n1",
        embedding=LIBRARY.embeddings[0],
        place_embeddings=feature_map_message(places),
        image_sha256="0" * 64,
        center_x=5.0,
        center_y=6.0,
        radius=7.0,
    )
    of_cell = {name: changes.pop(name) for name in list(changes) if name in cell.DESCRIPTOR.fields_by_name}
    for name, value in of_cell.items():
        cell.ClearField(cast(Any, name))
        if name == "embedding":
            cell.embedding.extend(value)
        elif name == "place_embeddings":
            cell.place_embeddings.CopyFrom(value)
        else:
            setattr(cell, name, value)
    fields: dict[str, Any] = {
        "release": RELEASE.id,
        "idempotency_key": "k",
        "confirmed_by": "Dr A",
        "source": "here",
        "references": [cell],
        **changes,
    }
    return retrieval_pb2.AddReferencesRequest(**fields)


def test_search_answers_in_order_and_a_bad_query_fails_alone(retrieval: Running) -> None:
    queries = [retrieval_pb2.SearchQuery(query_id=10 + i, embedding=3.0 * LIBRARY.embeddings[i]) for i in (4, 2, 7)]
    queries.insert(1, retrieval_pb2.SearchQuery(query_id=1, embedding=[1.0, 2.0]))
    queries.append(retrieval_pb2.SearchQuery(query_id=2, embedding=[float("nan")] * LIBRARY.dimension))
    answer = call(retrieval, "Search", retrieval_pb2.SearchRequest(release=RELEASE.id, queries=queries, neighbours=5))
    assert [o.query_id for o in answer.outcomes] == [14, 1, 12, 17, 2]
    assert [o.WhichOneof("result") for o in answer.outcomes] == ["found", "error", "found", "found", "error"]
    for outcome, index in zip((answer.outcomes[0], answer.outcomes[2], answer.outcomes[3]), (4, 2, 7), strict=True):
        assert outcome.found.neighbours[0].reference_id == LIBRARY.reference_ids[index]
        assert outcome.found.neighbours[0].distance == pytest.approx(0.0, abs=1e-3)
        assert len(outcome.found.neighbours) == 5
    assert ServiceError.from_status(answer.outcomes[1].error).reason == "EMBEDDING_INVALID"


def test_explain_answers_in_order_and_a_bad_cell_fails_alone(retrieval: Running) -> None:
    cells = [retrieval_pb2.ExplainCell(cell_id=10 + i, embedding=3.0 * LIBRARY.embeddings[i]) for i in (4, 2, 7)]
    cells.insert(1, retrieval_pb2.ExplainCell(cell_id=1, embedding=[1.0, 2.0]))
    answer = call(retrieval, "Explain", retrieval_pb2.ExplainRequest(release=RELEASE.id, cells=cells))
    assert [o.cell_id for o in answer.outcomes] == [14, 1, 12, 17]
    assert [o.WhichOneof("result") for o in answer.outcomes] == ["explained", "error", "explained", "explained"]
    assert ServiceError.from_status(answer.outcomes[1].error).reason == "EMBEDDING_WRONG_SIZE"
    sound = [o.explained for o in answer.outcomes if o.HasField("explained")]
    assert [c.neighbours[0].reference_id for c in sound] == [LIBRARY.reference_ids[i] for i in (4, 2, 7)]
    empty = retrieval_pb2.ExplainRequest(release=RELEASE.id)
    assert reason(retrieval, "Explain", empty) == ("INVALID_ARGUMENT", "BATCH_SIZE_OUT_OF_RANGE")


def test_search_is_brute_force(retrieval: Running) -> None:
    random = np.random.default_rng(0).normal(size=(200, LIBRARY.dimension)).astype(np.float32)
    queries = [retrieval_pb2.SearchQuery(query_id=i, embedding=row) for i, row in enumerate(random)]
    answer = call(retrieval, "Search", retrieval_pb2.SearchRequest(release=RELEASE.id, queries=queries, neighbours=10))
    unit = random / np.linalg.norm(random, axis=1, keepdims=True)
    expected = np.sqrt(np.maximum(2 - 2 * np.sort(unit @ LIBRARY.embeddings.T, axis=1)[:, ::-1][:, :10], 0))
    found = np.array([[n.distance for n in o.found.neighbours] for o in answer.outcomes])
    assert np.allclose(found, expected, atol=1e-4)


def test_a_library_says_what_it_holds(retrieval: Running) -> None:
    library = call(retrieval, "GetLibrary", retrieval_pb2.GetLibraryRequest(release=RELEASE.id)).library
    assert sum(c.count for c in library.classes) == len(LIBRARY)
    assert (library.sha256, library.dimension) == (RELEASE.library.sha256, LIBRARY.dimension)
    assert library.embedder == f"{RELEASE.embedder.model}/{RELEASE.embedder.version}"
    assert {c.is_blast for c in library.classes} == {True, False}


def test_confirmed_cells_are_kept_once_and_can_be_withdrawn(retrieval: Running) -> None:
    first = call(retrieval, "AddReferences", addition(idempotency_key="once"))
    again = call(retrieval, "AddReferences", addition(idempotency_key="once"))
    assert list(first.addition_ids) == list(again.addition_ids)
    assert (first.repeated_call, again.repeated_call) == (False, True)
    assert reason(retrieval, "AddReferences", addition(idempotency_key="once", cell_class="other")) == ("ALREADY_EXISTS", "IDEMPOTENCY_KEY_REUSED")
    pending = call(retrieval, "GetLibrary", retrieval_pb2.GetLibraryRequest(release=RELEASE.id)).library.pending_additions
    request = retrieval_pb2.WithdrawReferencesRequest(addition_ids=first.addition_ids, withdrawn_by="Dr B", reason="wrong")
    assert [call(retrieval, "WithdrawReferences", request).withdrawn for _ in range(2)] == [1, 0]
    assert call(retrieval, "GetLibrary", retrieval_pb2.GetLibraryRequest(release=RELEASE.id)).library.pending_additions == pending - 1
    unknown = retrieval_pb2.WithdrawReferencesRequest(addition_ids=[10**9], withdrawn_by="Dr B", reason="wrong")
    assert reason(retrieval, "WithdrawReferences", unknown) == ("NOT_FOUND", "ADDITION_UNKNOWN")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"idempotency_key": ""}, "TEXT_INVALID"),
        ({"confirmed_by": " "}, "TEXT_INVALID"),
        ({"source": "a/b"}, "TEXT_INVALID"),
        ({"cell_class": "x" * 129}, "TEXT_INVALID"),
        ({"patient": "a\nb"}, "TEXT_INVALID"),
        ({"references": []}, "BATCH_SIZE_OUT_OF_RANGE"),
        ({"embedding": [1.0]}, "EMBEDDING_INVALID"),
        ({"embedding": [0.0] * LIBRARY.dimension}, "EMBEDDING_INVALID"),
        ({"place_embeddings": feature_map_message(np.zeros((1, 1, LIBRARY.dimension), np.float32))}, "MAP_WRONG_SIZE"),
        ({"image_sha256": "abc"}, "SHA256_INVALID"),
        ({"radius": 0.0}, "CELL_NOT_FINITE"),
    ],
)
def test_what_makes_no_sense_is_refused_and_not_kept(retrieval: Running, changes: dict, expected: str) -> None:
    before = call(retrieval, "GetLibrary", retrieval_pb2.GetLibraryRequest(release=RELEASE.id)).library.pending_additions
    assert reason(retrieval, "AddReferences", addition(**changes)) == ("INVALID_ARGUMENT", expected)
    assert call(retrieval, "GetLibrary", retrieval_pb2.GetLibraryRequest(release=RELEASE.id)).library.pending_additions == before


def test_without_a_store_nothing_is_taken(stack: Stack) -> None:
    assert reason(stack["retrieval"], "AddReferences", addition()) == ("FAILED_PRECONDITION", "ADDITIONS_OFF")


def test_as_a_user_types_it(tmp_path: Path) -> None:
    for seed in (1, 2):
        (tmp_path / f"{seed}.png").write_bytes(encode_png(single_cell(seed, CellKind.LYMPHOCYTE)))
    command = [sys.executable, "-m", "clients.cli.main", "library"]
    store = ["--store", str(tmp_path / "additions.sqlite")]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120)

    facts = ["--normal", "--cell-class", "lymphocyte", "--patient", "n1", "--source", "here", "--confirmed-by", "Dr A", "--key", "once"]
    images = [str(tmp_path / "1.png"), str(tmp_path / "2.png")]
    for _ in range(2):
        added = run("add", *images, *facts, *store)
        assert added.returncode == 0, added.stderr
    listed = [json.loads(line) for line in run("list", "--json", *store).stdout.splitlines()]
    assert [(a["id"], a["patient"], a["confirmed_by"], a["is_blast"]) for a in listed] == [(1, "n1", "Dr A", False), (2, "n1", "Dr A", False)]
    assert run("withdraw", "2", "--by", "Dr B", "--reason", "blurred", *store).returncode == 0
    assert len(run("list", *store).stdout.splitlines()) == 1
    assert "withdrawn by Dr B: blurred" in run("list", "--withdrawn", *store).stdout
    shown = json.loads(run("show", "--json").stdout)
    assert shown["release"] == RELEASE.id
    assert run("withdraw", "99", "--by", "Dr B", "--reason", "x", *store).returncode == 1
