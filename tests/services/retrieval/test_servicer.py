"""The retrieval servicer: libraries that are added later, answers that are too large, additions that wait."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from dl4all.retrieval.v1 import retrieval_pb2
from services.common.errors import BrokenReleaseError, InvalidRequestError
from services.common.health import Readiness
from services.common.releases import INDEX_FILE, RELEASE_FILE, ReleaseStore, sha256_of
from services.common.workers import Workers
from services.retrieval.additions import AdditionStore, NewReference
from services.retrieval.library import open_library
from services.retrieval.servicer import MAX_FOUND, RetrievalServicer
from services.retrieval.settings import RetrievalSettings

NAME = "dl4all.retrieval.v1.RetrievalService"
NO_CONTEXT = cast(Any, None)


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers(2)
    yield made
    made.close()


def put(copy: Any, release: str, library: bytes | None = None) -> None:
    """Add a release whose checksums hold, with another library if one is given, and make it the default."""
    folder = copy.releases / release
    shutil.copytree(copy.releases / "plain-resnet-1", folder)
    if library is not None:
        (folder / "library.npz").write_bytes(library)
    told = json.loads((folder / RELEASE_FILE).read_text(encoding="utf-8"))
    told |= {"id": release, "library": {"file": "library.npz", "sha256": sha256_of(folder / "library.npz")}}
    (folder / RELEASE_FILE).write_text(json.dumps(told), encoding="utf-8")
    index = json.loads((copy.releases / INDEX_FILE).read_text(encoding="utf-8"))
    (copy.releases / INDEX_FILE).write_text(json.dumps({**index, "default": release}), encoding="utf-8")


def test_a_library_that_cannot_be_opened_is_told_by_health_and_without_a_path(release_copy: Any, workers: Workers) -> None:
    store = ReleaseStore(release_copy.releases, release_copy.model_repository)
    servicer = RetrievalServicer(RetrievalSettings(), store, workers)
    readiness = Readiness([NAME], {NAME: servicer.registration().needs}, timeout=30)

    async def look() -> tuple[dict[str, int], dict[str, int], dict[str, int], str]:
        before = await readiness.statuses()
        put(release_copy, "later-1")
        whole = await readiness.statuses()
        put(release_copy, "later-2", b"PK half")
        half = await readiness.statuses()
        with pytest.raises(BrokenReleaseError) as caught:
            await servicer.GetLatentMap(retrieval_pb2.GetLatentMapRequest(release="later-2"), NO_CONTEXT)
        assert caught.value.reason == "LIBRARY_BROKEN"
        return before, whole, half, caught.value.message

    before, whole, half, message = asyncio.run(look())
    assert before[""] == whole[""] == whole["release/later-1"] == 1
    assert (half[""], half["release/later-1"], half["release/later-2"]) == (2, 1, 2)
    assert "later-2" in message
    assert str(release_copy.releases) not in message


def test_calls_that_come_together_open_a_library_once(release_copy: Any, workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    servicer = RetrievalServicer(RetrievalSettings(), ReleaseStore(release_copy.releases, release_copy.model_repository), workers)
    put(release_copy, "later-1")
    opened: list[Path] = []

    def counted(path: Path, embedder: str) -> Any:
        opened.append(path)
        return open_library(path, embedder)

    monkeypatch.setattr("services.retrieval.servicer.open_library", counted)

    async def ask() -> None:
        request = retrieval_pb2.GetLatentMapRequest(release="later-1")
        await asyncio.gather(*(servicer.GetLatentMap(request, NO_CONTEXT) for _ in range(4)))

    asyncio.run(ask())
    assert len(opened) == 1


def test_an_answer_that_could_not_be_sent_is_refused_before_it_is_made(release_copy: Any, workers: Workers) -> None:
    servicer = RetrievalServicer(RetrievalSettings(), ReleaseStore(release_copy.releases, release_copy.model_repository), workers)
    queries = [retrieval_pb2.SearchQuery(embedding=[1.0])] * (MAX_FOUND // 100 + 1)
    with pytest.raises(InvalidRequestError, match="request fewer") as caught:
        asyncio.run(servicer.Search(retrieval_pb2.SearchRequest(release="plain-resnet-1", queries=queries, neighbours=100), NO_CONTEXT))
    assert caught.value.reason == "ANSWER_TOO_LARGE"


def test_what_the_library_holds_does_not_wait(release_copy: Any, workers: Workers, tmp_path: Path) -> None:
    store = ReleaseStore(release_copy.releases, release_copy.model_repository)
    release = store.held("plain-resnet-1")
    library = open_library(store.library_path(release))
    cells = [
        NewReference(False, "x", f"p{i}", library.embeddings[i], np.zeros((1, 1, library.dimension), np.float32), "0" * 64, 0, 0, 1) for i in (0, 1)
    ]
    AdditionStore(tmp_path / "additions.sqlite").add("k", f"{release.embedder.model}/{release.embedder.version}", "lab", "Dr A", cells)
    servicer = RetrievalServicer(RetrievalSettings(additions=tmp_path / "additions.sqlite"), store, workers)
    request = retrieval_pb2.GetLibraryRequest(release="plain-resnet-1")
    assert asyncio.run(servicer.GetLibrary(request, NO_CONTEXT)).library.pending_additions == 2
    library.addition_ids[0] = 1
    servicer._known["plain-resnet-1"] = (library, servicer._known["plain-resnet-1"][1])
    assert asyncio.run(servicer.GetLibrary(request, NO_CONTEXT)).library.pending_additions == 1
