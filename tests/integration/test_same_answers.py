"""Embedded with ONNX Runtime, embedded with Triton, five processes with Triton: the same diagnoses on the same 200 images."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all_client import AsyncDiagnosisClient, diagnose_request
from services.common.phantom import CellKind, PhantomOptions, encode_png, single_cell, smear_field
from services.common.releases import ReleaseStore
from services.common.settings import CommonSettings
from services.embedded import embedded_services
from tests.paths import DATA

COUNT = 200
TOLERANCE = 1e-4
MAP_TOLERANCE = 1
"""Levels of 255: two values 1e-5 apart may be rounded to two of them."""
QUANTILE_TOLERANCE = 1e-3
"""Between two known quantiles a distance of 1e-5 can be a quantile of 1e-4."""
REAL = {"aml_cells": 40, "pbc_cells": 20, "bccd_fields": 10, "chula_fields": 2, "aria_fields": 10}
IN_FLIGHT = 4


def images_for_comparison() -> list[bytes]:
    """Real images where the development data lies beside the project, phantoms for the rest."""
    real = _real_images(DATA)
    fields = [
        encode_png(smear_field(seed, PhantomOptions(width=640, height=480, cells=6 if seed else 40, cell_radius=42 if seed else 18)))
        for seed in range(20)
    ]
    kinds = list(CellKind)
    cells = [encode_png(single_cell(seed, kinds[seed % len(kinds)])) for seed in range(COUNT - len(real) - len(fields))]
    return [*real, *fields, *cells]


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    return images_for_comparison()


def _real_images(data: Path) -> list[bytes]:
    found = []
    for folder, count in REAL.items():
        files = sorted(p for p in (data / folder).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
        found += [path.read_bytes() for path in files[:: max(1, len(files) // count)][:count]]
    return found


async def _diagnose_all(
    images: Sequence[bytes], diagnose: Callable[[diagnosis_pb2.DiagnoseRequest], Awaitable[Any]], release: str = ""
) -> list[object]:
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one(number: int, image: bytes) -> object:
        async with slots:
            try:
                answer = await diagnose(diagnose_request(image, request_id=str(number), explain=True, release=release))
            except grpc.aio.AioRpcError as error:
                return error.code()
            return answer.diagnosis

    return await asyncio.gather(*(one(number, image) for number, image in enumerate(images)))


async def _embedded(images: Sequence[bytes]) -> list[object]:
    async with embedded_services(CommonSettings()) as services:
        return await _diagnose_all(images, services.stubs["gateway"].Diagnose)


def _assert_same(left: object, right: object, engine: str) -> None:
    assert type(left) is type(right)
    if not isinstance(left, diagnosis_pb2.Diagnosis) or not isinstance(right, diagnosis_pb2.Diagnosis):
        assert left == right
        return
    assert right.provenance.engine in (engine, "")
    for name in ("finding", "requires_review", "reasons", "counts", "blast_fraction", "quality", "kind", "rule"):
        assert getattr(left, name) == getattr(right, name), name
    assert left.provenance.image_sha256 == right.provenance.image_sha256
    assert left.provenance.served_files == right.provenance.served_files
    for a, b in zip(left.cells, right.cells, strict=True):
        assert (a.cell, a.prediction_set, a.suspected, a.indeterminate, a.reasons) == (
            b.cell,
            b.prediction_set,
            b.suspected,
            b.indeterminate,
            b.reasons,
        )
        assert a.registered_pixels == b.registered_pixels
        assert a.HasField("class_activation") == b.HasField("class_activation")
        assert a.HasField("nothing_probability") == b.HasField("nothing_probability")
        for shown in ("for_blast", "for_normal"):
            maps = [np.frombuffer(getattr(c.class_activation, shown).values, np.uint8).astype(int) for c in (a, b)]
            assert maps[0].shape == maps[1].shape
            assert np.abs(maps[0] - maps[1]).max(initial=0) <= MAP_TOLERANCE
        for name in ("blast_probability", "network_probability", "neighbour_vote", "nothing_probability", "focus_before", "distance_quantile"):
            x, y = getattr(a, name), getattr(b, name)
            tolerance = QUANTILE_TOLERANCE if name == "distance_quantile" else TOLERANCE
            assert (math.isnan(x) and math.isnan(y)) or abs(x - y) <= tolerance, name


async def test_two_hundred_images_three_ways(images, stack, monkeypatch):
    assert len(images) == COUNT
    plain = await _embedded(images)
    assert sum(isinstance(d, diagnosis_pb2.Diagnosis) and len(d.cells) > 0 for d in plain) > COUNT * 0.9
    monkeypatch.setenv("DL4ALL_CLASSIFICATION_ENGINE", "triton")
    monkeypatch.setenv("DL4ALL_CLASSIFICATION_TRITON_ADDRESS", stack["triton"].address)
    embedded = await _embedded(images)
    async with AsyncDiagnosisClient(stack["gateway"].address) as client:
        distributed = await _diagnose_all(images, client._diagnosis.Diagnose)
    for one, two, three in zip(plain, embedded, distributed, strict=True):
        _assert_same(one, two, "triton")
        _assert_same(one, three, "triton")


async def test_every_release_three_ways(images, stack, monkeypatch):
    """As above for every release, with a few images each."""
    few = images[::20]
    releases = [r.id for r in ReleaseStore(CommonSettings().releases, CommonSettings().model_repository).releases]
    async with embedded_services(CommonSettings()) as services:
        plain = {name: await _diagnose_all(few, services.stubs["gateway"].Diagnose, name) for name in releases}
    monkeypatch.setenv("DL4ALL_CLASSIFICATION_ENGINE", "triton")
    monkeypatch.setenv("DL4ALL_CLASSIFICATION_TRITON_ADDRESS", stack["triton"].address)
    async with embedded_services(CommonSettings()) as services, AsyncDiagnosisClient(stack["gateway"].address) as client:
        for name in releases:
            embedded = await _diagnose_all(few, services.stubs["gateway"].Diagnose, name)
            distributed = await _diagnose_all(few, client._diagnosis.Diagnose, name)
            assert sum(isinstance(d, diagnosis_pb2.Diagnosis) and len(d.cells) > 0 for d in plain[name]) > len(few) / 2
            for one, two, three in zip(plain[name], embedded, distributed, strict=True):
                assert not isinstance(one, diagnosis_pb2.Diagnosis) or one.provenance.release == name
                _assert_same(one, two, "triton")
                _assert_same(one, three, "triton")
