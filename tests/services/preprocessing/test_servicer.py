"""Tests of Enhance: each crop its own outcome, the same bytes however crops are batched and threads are counted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, cast

import cv2
import numpy as np
import pytest

from dl4all.imaging.v1 import imaging_pb2
from dl4all.preprocessing.v1 import preprocessing_pb2
from services.common.errors import InvalidImageError
from services.common.phantom import CellKind, single_cell
from services.common.releases import ReleaseStore
from services.common.settings import CommonSettings
from services.common.workers import Workers
from services.preprocessing.servicer import PreprocessingServicer
from services.preprocessing.settings import PreprocessingSettings

RELEASE = "plain-resnet-1"


def _crop(seed: int) -> imaging_pb2.Crop:
    drawn = single_cell(seed, CellKind.BLAST, side=160, cell_radius=30)
    pixels = np.asarray(cv2.GaussianBlur(drawn.image, (0, 0), 0.3 + 0.4 * (seed % 6)), np.uint8)
    cell = drawn.cells[0]
    return imaging_pb2.Crop(
        cell_id=seed,
        height=160,
        width=160,
        pixels=pixels.tobytes(),
        center_x=cell.center_x,
        center_y=cell.center_y,
        radius_estimate=cell.radius,
    )


CROPS = [_crop(seed) for seed in range(12)]


def _enhanced(batches: Sequence[Sequence[imaging_pb2.Crop]], threads: int) -> list[preprocessing_pb2.EnhanceOutcome]:
    common = CommonSettings()
    workers = Workers(threads)
    servicer = PreprocessingServicer(PreprocessingSettings(), ReleaseStore(common.releases, common.model_repository), workers)

    async def all_of() -> list[preprocessing_pb2.EnhanceOutcome]:
        requests = [preprocessing_pb2.EnhanceRequest(release=RELEASE, crops=batch) for batch in batches]
        answers = await asyncio.gather(*(servicer.Enhance(request, cast(Any, None)) for request in requests))
        return [outcome for answer in answers for outcome in answer.outcomes]

    try:
        return asyncio.run(all_of())
    finally:
        workers.close()


@pytest.fixture(scope="module")
def one_by_one() -> list[preprocessing_pb2.EnhanceOutcome]:
    return _enhanced([[crop] for crop in CROPS], 1)


def test_crops_of_every_kind_are_among_them(one_by_one: list[preprocessing_pb2.EnhanceOutcome]) -> None:
    assert [o.cell_id for o in one_by_one] == list(range(12))
    radii = {o.enhanced.unsharp_radius for o in one_by_one}
    assert 0 in radii
    assert len(radii) > 1


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("size", [3, 5, 12])
def test_the_same_bytes_for_every_batch_size_and_thread_count(one_by_one: list[preprocessing_pb2.EnhanceOutcome], size: int, threads: int) -> None:
    outcomes = _enhanced([CROPS[i : i + size] for i in range(0, len(CROPS), size)], threads)
    assert [o.SerializeToString(deterministic=True) for o in outcomes] == [o.SerializeToString(deterministic=True) for o in one_by_one]


def test_a_bad_crop_fails_alone(one_by_one: list[preprocessing_pb2.EnhanceOutcome]) -> None:
    bad = imaging_pb2.Crop(cell_id=99, height=160, width=160, pixels=b"short", center_x=80, center_y=80, radius_estimate=30)
    outcomes = _enhanced([[CROPS[0], bad, CROPS[1]]], 2)
    assert [o.WhichOneof("result") for o in outcomes] == ["enhanced", "error", "enhanced"]
    assert outcomes[1].cell_id == 99
    assert outcomes[2].enhanced.pixels == one_by_one[1].enhanced.pixels


@pytest.fixture
def service() -> Iterator[PreprocessingServicer]:
    common, workers = CommonSettings(), Workers(1)
    yield PreprocessingServicer(PreprocessingSettings(max_focus_pixels=64 * 64), ReleaseStore(common.releases, common.model_repository), workers)
    workers.close()


def _measure(service: PreprocessingServicer, side: int) -> float:
    pixels = np.random.default_rng(1).integers(0, 256, (side, side, 3), np.uint8)
    request = preprocessing_pb2.MeasureFocusRequest(image=cv2.imencode(".png", pixels)[1].tobytes())
    answer = asyncio.run(cast(Any, service.MeasureFocus(request, cast(Any, None))))
    return float(answer.score)


def test_the_focus_of_an_image_is_scored(service: PreprocessingServicer) -> None:
    assert np.isfinite(_measure(service, 64))
    assert service._memory.taken_bytes == 0


def test_an_image_whose_focus_is_not_scored_is_refused_before_it_is_decoded(service: PreprocessingServicer, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []
    monkeypatch.setattr("services.preprocessing.servicer.decode_image", decoded.append)
    with pytest.raises(InvalidImageError) as caught:
        _measure(service, 65)
    assert caught.value.reason == "IMAGE_TOO_LARGE"
    assert not decoded
