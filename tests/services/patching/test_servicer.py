"""Tests of the patching service: patches stream, images share the memory, and a cancelled call holds its share until its thread ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any, cast

import numpy as np
import pytest

from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from services.common.checks import MAX_CELLS_PER_CALL
from services.common.engines.onnx_runtime import OnnxRuntimeEngine
from services.common.errors import InvalidImageError
from services.common.phantom import PhantomOptions, encode_png, smear_field
from services.common.releases import ReleaseStore
from services.common.settings import CommonSettings
from services.common.workers import Workers
from services.patching import patch_input, patches, servicer
from services.patching.crops import MAX_BATCH_BYTES
from services.patching.servicer import PatchingServicer
from services.patching.settings import PatchingSettings
from tests.services.patching.drawn_maps import CONTEXT

FIELD = imaging_pb2.ImageKind.IMAGE_KIND_FIELD
ENCODED = encode_png(smear_field(2, PhantomOptions(width=640, height=480, cells=5, cell_radius=24.0)))


@pytest.fixture
def workers() -> Iterator[Workers]:
    pool = Workers(1)
    yield pool
    pool.close()


def _service(workers: Workers, settings: PatchingSettings | None = None) -> PatchingServicer:
    common = CommonSettings()
    engine = OnnxRuntimeEngine(common.model_repository, workers)
    return PatchingServicer(settings or PatchingSettings(), ReleaseStore(common.releases, common.model_repository), engine, workers)


def _request(side: int, kind: imaging_pb2.ImageKind.ValueType = FIELD, overlap: float = 0.75) -> patching_pb2.CutPatchesRequest:
    return patching_pb2.CutPatchesRequest(
        image=ENCODED, kind=kind, patch_side=128, overlap=overlap, nominal_red_cell_radius=15.0, side=side, microns_per_pixel=0.25
    )


def _cut(service: PatchingServicer, request: patching_pb2.CutPatchesRequest) -> Any:
    return aclosing(cast(Any, service.CutPatches(request, CONTEXT)))


async def _all(messages: AsyncIterator[patching_pb2.CutPatchesResponse]) -> list[patching_pb2.CutPatchesResponse]:
    return [message async for message in messages]


@pytest.mark.parametrize("side", [64, 256, 1024])
async def test_patches_come_in_messages_of_bounded_size(side: int, workers: Workers) -> None:
    async with _cut(_service(workers), _request(side, overlap=0.5)) as messages:
        answer = await _all(messages)
    assert [p.patch_id for m in answer for p in m.patches] == list(range(sum(len(m.patches) for m in answer)))
    assert all(m.kind == FIELD and 1 <= len(m.patches) <= MAX_CELLS_PER_CALL for m in answer)
    assert all(m.ByteSize() <= MAX_BATCH_BYTES + 4096 for m in answer)
    assert len(answer) > 1


async def test_patches_are_cut_when_they_are_asked_for(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    cut: list[int] = []
    plain = patch_input.patch_input

    def counted(rgb: np.ndarray, patch: Any, side: int) -> np.ndarray:
        cut.append(patch.number)
        return plain(rgb, patch, side)

    monkeypatch.setattr(patches, "patch_input", counted)
    service = _service(workers)
    async with _cut(service, _request(64)) as messages:
        await anext(messages)
        assert len(cut) == MAX_CELLS_PER_CALL
        assert service._memory.taken_bytes > 0
    assert len(cut) == MAX_CELLS_PER_CALL
    assert service._memory.taken_bytes == 0


async def test_a_single_cell_has_one_empty_message(workers: Workers) -> None:
    async with _cut(_service(workers), _request(64, imaging_pb2.ImageKind.IMAGE_KIND_CELL)) as messages:
        (message,) = await _all(messages)
    assert (message.kind, len(message.patches)) == (imaging_pb2.ImageKind.IMAGE_KIND_CELL, 0)


async def test_a_full_last_message_is_the_last(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    service = _service(workers)
    async with _cut(service, _request(64)) as messages:
        count = sum(len(m.patches) for m in await _all(messages))
    monkeypatch.setattr(servicer, "patches_of_message", lambda side: count)
    async with _cut(service, _request(64)) as messages:
        assert [len(m.patches) for m in await _all(messages)] == [count]


async def test_an_image_that_exceeds_the_memory_is_refused_before_it_is_decoded(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    service = _service(workers, PatchingSettings(image_memory_bytes=64 << 20))
    decoded: list[bytes] = []
    monkeypatch.setattr(servicer, "decode_image", decoded.append)
    monkeypatch.setattr(servicer, "location_bytes", lambda header: 65 << 20)
    with pytest.raises(InvalidImageError) as caught:
        async for _ in service.LocateCells(patching_pb2.LocateCellsRequest(image=ENCODED), CONTEXT):
            pass
    assert caught.value.reason == "IMAGE_TOO_LARGE"
    assert not decoded


async def test_images_wait_for_memory(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    service = _service(workers, PatchingSettings(image_memory_bytes=64 << 20))
    monkeypatch.setattr(servicer, "location_bytes", lambda header: 40 << 20)
    first = cast(Any, service.LocateCells(patching_pb2.LocateCellsRequest(image=ENCODED), CONTEXT))
    await anext(first)
    second = asyncio.ensure_future(anext(cast(Any, service.LocateCells(patching_pb2.LocateCellsRequest(image=ENCODED), CONTEXT))))
    await asyncio.sleep(0.2)
    assert not second.done()
    await first.aclose()
    assert (await second).header.cell_count > 0
