"""A location is driven with the locator of the release, by whatever engine there is; without one the stain alone finds the cells."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dl4all.patching.v1 import patching_pb2
from services.common.errors import DeadlineError, FailedPreconditionError
from services.common.memory_budget import Share
from services.common.phantom import PhantomOptions, encode_png, smear_field
from services.common.releases import File, Model, ReleaseStore, Role
from services.common.settings import CommonSettings
from services.common.workers import Workers
from services.patching.locator import Locator, Locators
from services.patching.locator_maps import CHANNELS, MAPS
from services.patching.servicer import PatchingServicer
from services.patching.settings import PatchingSettings
from tests.services.patching.drawn_maps import CONTEXT, Disk, maps_of

SHA = "ab" * 32
MODEL = Model(model="locator_test", version=3, files={role: File(file="model.onnx", sha256=SHA) for role in Role})
DRAWN = smear_field(2, PhantomOptions(width=640, height=480, cells=5, cell_radius=24.0, label=False))


class FakeEngine:
    """Says that there is one cell, where the image is most violet."""

    name, role = "fake", Role.CPU

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[int, ...], float | None]] = []
        self.ready = True

    def served_sha256(self, model: Model) -> str:
        return model.files[self.role].sha256

    async def is_ready(self, model: Model) -> bool:
        return self.ready

    async def infer(
        self, model: Model, images: NDArray[np.uint8], outputs: Sequence[str], timeout: float | None = None
    ) -> dict[str, NDArray[np.float32]]:
        self.calls.append((model.model, images.shape, timeout))
        if timeout is not None and timeout <= 0:
            raise DeadlineError("DEADLINE_EXCEEDED", "The caller's deadline has passed.")
        assert list(outputs) == [MAPS]
        violet = cv2.GaussianBlur(images[0].astype(np.float32) @ np.array([0, -1, 1], np.float32), (0, 0), 4)
        row, column = np.unravel_index(int(violet.argmax()), violet.shape)
        return {MAPS: maps_of([Disk(float(column), float(row), 12)], *images.shape[1:3])[None]}

    async def close(self) -> None:
        return


class Store:
    """Releases as a store hands them out: ``with-own`` names a locator, ``without`` names none."""

    class _Index:
        default = "without"

    index = _Index()

    def __init__(self, fallback: Model | None) -> None:
        self._fallback = fallback
        self.releases = [type("R", (), {"id": "with-own"})(), type("R", (), {"id": "without"})()]

    def take_in(self) -> None:
        return

    def locator(self, release_id: str) -> Model | None:
        if release_id not in ("", "with-own", "without"):
            raise FailedPreconditionError("RELEASE_NOT_HELD", "This service does not hold the release.", field="release")
        return MODEL if release_id == "with-own" else self._fallback


@pytest.fixture
def workers() -> Iterator[Workers]:
    pool = Workers(1)
    yield pool
    pool.close()


def _service(engine: FakeEngine, workers: Workers, fallback: Model | None = None) -> PatchingServicer:
    return PatchingServicer(PatchingSettings(), cast(Any, Store(fallback)), cast(Any, engine), workers)


async def _located(service: PatchingServicer, release: str) -> patching_pb2.LocateCellsResponse:
    request = patching_pb2.LocateCellsRequest(image=encode_png(DRAWN), release=release, omit_crops=True)
    async with aclosing(cast(Any, service.LocateCells(request, CONTEXT))) as answers:
        return cast(patching_pb2.LocateCellsResponse, await anext(answers))


async def test_the_locator_of_the_release_finds_the_cells_and_is_named(workers: Workers) -> None:
    engine = FakeEngine()
    answer = await _located(_service(engine, workers), "with-own")
    assert len(answer.cells) == 1
    assert (answer.header.locator.name, answer.header.locator.version, answer.header.locator.sha256) == ("locator_test", 3, SHA)
    assert answer.header.locator.engine == "fake"
    assert [name for name, _, _ in engine.calls] == ["locator_test"]


async def test_without_a_locator_the_stain_finds_them_and_nothing_is_named(workers: Workers) -> None:
    engine = FakeEngine()
    answer = await _located(_service(engine, workers), "without")
    assert len(answer.cells) == len(DRAWN.cells)
    assert not answer.header.HasField("locator")
    assert not engine.calls


async def test_a_release_that_names_none_has_that_of_the_index(workers: Workers) -> None:
    answer = await _located(_service(FakeEngine(), workers, MODEL), "without")
    assert answer.header.locator.name == "locator_test"


async def test_a_release_that_is_not_held_is_refused(workers: Workers) -> None:
    with pytest.raises(FailedPreconditionError):
        await _located(_service(FakeEngine(), workers), "another")


async def test_patches_know_the_cells_of_the_locator(workers: Workers) -> None:
    engine = FakeEngine()
    request = patching_pb2.CutPatchesRequest(
        image=encode_png(DRAWN), patch_side=128, overlap=0.5, nominal_red_cell_radius=15.0, side=64, release="with-own"
    )
    async with aclosing(cast(Any, _service(engine, workers).CutPatches(request, CONTEXT))) as answers:
        assert (await anext(answers)).patches
    assert len(engine.calls) == 1


def _twice() -> Generator[NDArray[np.uint8], NDArray[np.float32], tuple[int, ...]]:
    first = yield np.zeros((16, 24, 3), np.uint8)
    second = yield np.zeros((8, 8, 3), np.uint8)
    return (*first.shape, *second.shape)


async def test_every_question_has_the_time_that_is_left(workers: Workers) -> None:
    engine = FakeEngine()
    locator = Locator(MODEL, cast(Any, engine), workers)
    assert await locator.drive("locate", _twice(), Share(lambda: None), 5.0) == (CHANNELS, 8, 12, CHANNELS, 4, 4)
    times = [left for _, _, left in engine.calls]
    assert times[0] is not None
    assert times[1] is not None
    assert 0 < times[1] <= times[0] <= 5.0
    with pytest.raises(DeadlineError):
        await locator.drive("locate", _twice(), Share(lambda: None), 0.0)


async def test_long_work_asks_the_engine_of_the_loop(workers: Workers) -> None:
    locator = Locator(MODEL, cast(Any, FakeEngine()), workers)
    loop = asyncio.get_running_loop()
    assert await workers.run_long("locate", locator.drive_here, _twice(), loop, None) == (CHANNELS, 8, 12, CHANNELS, 4, 4)
    with pytest.raises(DeadlineError):
        await workers.run_long("locate", locator.drive_here, _twice(), loop, loop.time() - 1.0)


async def test_health_names_the_locators(workers: Workers) -> None:
    engine = FakeEngine()
    needs = Locators(cast(Any, Store(None)), cast(Any, engine), workers).needs()
    assert needs.releases == {"with-own": ["locator_test/3"], "without": []}
    assert needs.models == ("locator_test/3",)
    assert await needs.dependencies["locator_test/3"]()
    engine.ready = False
    assert not await needs.dependencies["locator_test/3"]()


def test_the_store_hands_out_locators_and_checks_their_files(tmp_path: Path) -> None:
    common = CommonSettings()
    store = ReleaseStore(common.releases, common.model_repository)
    own = store.held("plain-resnet-1").network
    releases = tmp_path / "releases"
    releases.mkdir()
    for folder in common.releases.iterdir():
        if folder.is_dir():
            (releases / folder.name).symlink_to(folder)
    index = json.loads((common.releases / "index.json").read_text(encoding="utf-8"))
    (releases / "index.json").write_text(json.dumps({**index, "locator": own.model_dump(mode="json")}), encoding="utf-8")
    found = ReleaseStore(releases, common.model_repository)
    assert found.locator("") == found.locator("plain-resnet-1") == own
    broken = own.model_dump(mode="json")
    broken["files"]["cpu"]["sha256"] = SHA
    (releases / "index.json").write_text(json.dumps({**index, "locator": broken}), encoding="utf-8")
    with pytest.raises(Exception, match="checksum"):
        ReleaseStore(releases, common.model_repository)
