"""A field in a release that judges patches, through five processes and a Triton."""

from __future__ import annotations

import numpy as np
import pytest

from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all_client import DiagnosisClient, ServiceError, diagnose_request
from services.common.phantom import PhantomOptions, encode_png, smear_field
from services.common.settings import CommonSettings
from services.embedded import embedded_services
from tests.running import Stack

SYSTEM = "all_idb_patches"
PHANTOM = smear_field(11, PhantomOptions(width=1000, height=700, cells=8))


@pytest.fixture(scope="module")
def diagnosis(stack: Stack) -> diagnosis_pb2.Diagnosis:
    with DiagnosisClient(stack["gateway"].address) as client:
        return client.diagnose(encode_png(PHANTOM), release=SYSTEM, request_id="patches")


def test_patches_cover_the_field_and_say_what_they_show(diagnosis: diagnosis_pb2.Diagnosis) -> None:
    covered = np.zeros((700, 1000), np.bool_)
    for patch in diagnosis.patches:
        assert 0.0 <= patch.blast_probability <= 1.0
        assert 0.0 <= patch.other_probability <= 1.0
        assert patch.box.width == patch.box.height
        covered[patch.box.y : patch.box.y + patch.box.height, patch.box.x : patch.box.x + patch.box.width] = True
    assert covered.all()
    truth = [(c.center_x, c.center_y) for c in PHANTOM.cells]
    shown = [p for p in diagnosis.patches if p.blast_present or p.other_present]
    inside = [any(p.box.x <= x < p.box.x + p.box.width and p.box.y <= y < p.box.y + p.box.height for p in shown) for x, y in truth]
    assert np.mean(inside) >= 0.7


def test_cells_lie_where_the_network_sees_some_and_take_the_ordinary_way(diagnosis: diagnosis_pb2.Diagnosis) -> None:
    assert len(diagnosis.cells) == diagnosis.counts.total >= 4
    truth = np.array([(c.center_x, c.center_y) for c in PHANTOM.cells])
    found = np.array([(c.cell.center_x, c.cell.center_y) for c in diagnosis.cells])
    assert (np.linalg.norm(found[:, None] - truth[None], axis=2).min(axis=1) < 40).mean() >= 0.8
    assert all(0.0 <= c.blast_probability <= 1.0 and c.neighbours for c in diagnosis.cells if "NOT_REGISTERED" not in c.reasons)
    assert {t.stage for t in diagnosis.timings} >= {"patches", "locate", "enhance", "classify", "explain", "total"}
    served = [f.name for f in diagnosis.provenance.served_files]
    assert "all_idb_patches_1" in served
    assert diagnosis.provenance.system == SYSTEM


async def test_the_same_answer_in_one_process(diagnosis: diagnosis_pb2.Diagnosis) -> None:
    async with embedded_services(CommonSettings()) as services:
        request = diagnose_request(encode_png(PHANTOM), release=SYSTEM, request_id="patches")
        alone = (await services.stubs["gateway"].Diagnose(request, timeout=60)).diagnosis
    assert [p.box for p in alone.patches] == [p.box for p in diagnosis.patches]
    for name in ("blast_probability", "other_probability"):
        assert np.allclose([getattr(p, name) for p in alone.patches], [getattr(p, name) for p in diagnosis.patches], atol=1e-4)
    assert [c.cell for c in alone.cells] == [c.cell for c in diagnosis.cells]


def test_a_single_cell_has_no_patches(stack: Stack, phantom_cell: bytes) -> None:
    with DiagnosisClient(stack["gateway"].address) as client:
        single = client.diagnose(phantom_cell, release=SYSTEM)
    assert single.kind == imaging_pb2.IMAGE_KIND_CELL
    assert not single.patches
    assert len(single.cells) == 1


def test_other_releases_judge_no_patches(stack: Stack, phantom_field: bytes) -> None:
    with DiagnosisClient(stack["gateway"].address) as client:
        assert not client.diagnose(phantom_field).patches


def test_slides_are_refused(stack: Stack) -> None:
    with DiagnosisClient(stack["gateway"].address) as client, pytest.raises(ServiceError) as caught:
        list(client.diagnose_slide("any.tif", on_server=True, release=SYSTEM))
    assert caught.value.reason == "RELEASE_TAKES_NO_SLIDES"
