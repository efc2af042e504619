"""The classification servicer over a fake engine: its inferences, refusals and answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from dl4all.classification.v1 import classification_pb2
from services.classification.servicer import ClassificationServicer
from services.common.engines.base import CLASS_ACTIVATIONS, EMBEDDING, LOGITS, PLACE_EMBEDDINGS
from services.common.errors import FailedPreconditionError, InvalidRequestError
from services.common.maps import read_feature_map
from services.common.releases import Model, ReleaseStore, Role
from tests.paths import ROOT

STORE = ReleaseStore(ROOT / "releases", ROOT / "model_repository")
RELEASE = STORE.held("plain-resnet-1")
PATCH_RELEASE = STORE.held("all-idb-patches-1")
SIDE = RELEASE.input.side


class FakeEngine:
    """Answers with the first pixel of each image, which identifies it."""

    name = "fake"

    def __init__(self, role: Role = Role.CPU) -> None:
        self.role = role
        self.runs: list[tuple[str, int, tuple[str, ...], float | None]] = []
        self.missing: set[str] = set()

    def served_sha256(self, model: Model) -> str:
        return model.files[self.role].sha256

    async def is_ready(self, model: Model) -> bool:
        return model.model not in self.missing

    async def infer(
        self, model: Model, images: NDArray[np.uint8], outputs: Sequence[str], timeout: float | None = None
    ) -> dict[str, NDArray[np.float32]]:
        self.runs.append((model.model, len(images), tuple(outputs), timeout))
        first = images[:, 0, 0, 0].astype(np.float32)
        shapes = {LOGITS: (2,), EMBEDDING: (4,), PLACE_EMBEDDINGS: (2, 3, 4), CLASS_ACTIVATIONS: (2, 3, 2)}
        return {name: np.broadcast_to(first.reshape(-1, *[1] * len(shapes[name])), (len(images), *shapes[name])).copy() for name in outputs}

    async def close(self) -> None:
        pass


class Context:
    def time_remaining(self) -> float:
        return 7.0


def _cells(*values: int, side: int = SIDE) -> list[classification_pb2.ClassifyCell]:
    return [classification_pb2.ClassifyCell(cell_id=10 + value, pixels=bytes([value]) * (3 * side * side)) for value in values]


async def _classify(engine: FakeEngine, **fields: Any) -> classification_pb2.ClassifyResponse:
    request = classification_pb2.ClassifyRequest(**{"release": RELEASE.id, "cells": _cells(1, 2), **fields})
    return await ClassificationServicer(STORE, engine).Classify(request, cast(Any, Context()))


async def test_network_and_embedder_that_are_one_model_are_run_once_with_the_time_that_is_left() -> None:
    engine = FakeEngine()
    answer = await _classify(engine)
    assert engine.runs == [(RELEASE.network.model, 2, (LOGITS, EMBEDDING), 7.0)]
    assert [(c.cell_id, list(c.logits), list(c.embedding)) for c in answer.cells] == [(11, [1.0] * 2, [1.0] * 4), (12, [2.0] * 2, [2.0] * 4)]
    assert answer.engine == "fake"


async def test_embeddings_by_place_come_only_where_they_are_asked_for() -> None:
    engine = FakeEngine()
    plain, shown = await _classify(engine), await _classify(engine, include_place_embeddings=True)
    assert not any(c.HasField("place_embeddings") for c in plain.cells)
    first = shown.cells[0]
    np.testing.assert_array_equal(read_feature_map(first.place_embeddings, 4, "x"), np.ones((2, 3, 4), np.float32))
    activations = CLASS_ACTIVATIONS in engine.runs[-1][2]
    assert activations == RELEASE.class_activations
    assert first.HasField("class_activations") == activations


@pytest.mark.parametrize("role", list(Role))
async def test_the_served_file_is_that_of_the_role_of_the_engine(role: Role) -> None:
    answer = await _classify(FakeEngine(role))
    assert [(m.name, m.version, m.sha256) for m in answer.models] == [
        (RELEASE.network.model, RELEASE.network.version, RELEASE.network.files[role].sha256)
    ]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"cells": []}, "BATCH_SIZE_OUT_OF_RANGE"),
        ({"cells": _cells(*range(33), side=1)}, "BATCH_SIZE_OUT_OF_RANGE"),
        ({"cells": _cells(1, side=SIDE - 1)}, "PIXELS_WRONG_SIZE"),
        ({"request_id": "x" * 129}, "IDENTIFIER_INVALID"),
    ],
)
async def test_bad_requests_run_nothing(fields: dict[str, Any], reason: str) -> None:
    engine = FakeEngine()
    with pytest.raises(InvalidRequestError) as caught:
        await _classify(engine, **fields)
    assert caught.value.reason == reason
    assert engine.runs == []


async def test_a_release_that_is_not_held_is_refused() -> None:
    with pytest.raises(FailedPreconditionError) as caught:
        await _classify(FakeEngine(), release="unknown-1")
    assert caught.value.reason == "RELEASE_NOT_HELD"


async def _classify_patches(engine: FakeEngine, release: str, side: int) -> classification_pb2.ClassifyPatchesResponse:
    patches = [classification_pb2.ClassifyPatch(patch_id=5, pixels=bytes([9]) * (3 * side * side))]
    request = classification_pb2.ClassifyPatchesRequest(release=release, patches=patches)
    return await ClassificationServicer(STORE, engine).ClassifyPatches(request, cast(Any, Context()))


async def test_patches_are_judged_by_the_network_of_patches() -> None:
    assert PATCH_RELEASE.patches is not None
    engine = FakeEngine()
    answer = await _classify_patches(engine, PATCH_RELEASE.id, PATCH_RELEASE.patches.side)
    assert engine.runs == [(PATCH_RELEASE.patches.network.model, 1, (LOGITS, CLASS_ACTIVATIONS), 7.0)]
    (patch,) = answer.patches
    assert (patch.patch_id, list(patch.logits), patch.activations.height, patch.activations.width) == (5, [9.0, 9.0], 2, 3)
    assert answer.model.name == PATCH_RELEASE.patches.network.model


async def test_a_release_that_judges_no_patches_says_so() -> None:
    with pytest.raises(FailedPreconditionError) as caught:
        await _classify_patches(FakeEngine(), RELEASE.id, 8)
    assert caught.value.reason == "RELEASE_WITHOUT_PATCHES"


async def test_it_needs_every_model_of_every_release_and_knows_which_release_needs_which() -> None:
    engine = FakeEngine()
    needs = ClassificationServicer(STORE, engine)._needs()
    assert set(needs.dependencies) == {f"{m.model}/{m.version}" for r in STORE.releases for m in r.models}
    engine.missing = {"dss_1"}
    ready = {name: await probe() for name, probe in needs.dependencies.items()}
    assert [name for name, is_ready in ready.items() if not is_ready] == ["dss_1/1"]
    assert needs.releases[PATCH_RELEASE.id] == sorted({f"{m.model}/{m.version}" for m in PATCH_RELEASE.models})
    assert needs.default_release == STORE.index.default
