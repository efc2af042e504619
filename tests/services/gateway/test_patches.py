"""The patches of a field over fake services: judged piece by piece; patching gets the class activations."""

from __future__ import annotations

import math

import pytest

from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from services.common.errors import DependencyUnavailableError, FailedPreconditionError, InternalError
from services.gateway.patches import JudgedPatches, PatchJudge
from services.gateway.run_stats import RunStats
from tests.services.gateway.fakes import IMAGE, PATCH_RELEASE, Down, FakeServices, context, feature_map

assert PATCH_RELEASE.patches is not None
PATCHES = PATCH_RELEASE.patches
FIELD = imaging_pb2.ImageKind.IMAGE_KIND_FIELD


def _cut(*numbers: int, side: int = PATCHES.side) -> patching_pb2.CutPatchesResponse:
    piece = patching_pb2.CutPatchesResponse(kind=FIELD)
    for number in numbers:
        piece.patches.add(patch_id=number, pixels=bytes(3 * side * side), x=100 * number, y=7, side=300)
    return piece


def _services(*pieces: patching_pb2.CutPatchesResponse) -> FakeServices:
    services = FakeServices(release=PATCH_RELEASE, logits=lambda patch: (3.0 - patch, -3.0))
    services.patches = list(pieces)
    return services


async def _judge(services: FakeServices, stats: RunStats | None = None) -> JudgedPatches:
    return await PatchJudge(services.stubs).judge(IMAGE, PATCHES, context(PATCH_RELEASE), stats or RunStats())


async def test_every_patch_has_its_square_its_probabilities_and_its_labels() -> None:
    judged = await _judge(_services(_cut(0, 1), _cut(2)))
    assert judged.kind == FIELD
    assert [(p.x, p.y, p.side) for p in judged.patches] == [(0, 7, 300), (100, 7, 300), (200, 7, 300)]
    for number, patch in enumerate(judged.patches):
        blast = 1 / (1 + math.exp(number - 3.0))
        assert patch.blast_probability == pytest.approx(blast, abs=1e-6)
        assert patch.blast_present is (blast >= PATCHES.min_probability["blast"])
        assert patch.other_probability == pytest.approx(1 / (1 + math.exp(3.0)), abs=1e-6)
        assert patch.other_present is (1 / (1 + math.exp(3.0)) >= PATCHES.min_probability["other"])


async def test_activations_go_to_patching_with_the_limits_of_the_release() -> None:
    services = _services(_cut(0))
    services.changes["ClassifyPatches"] = lambda answer: answer.patches[0].activations.CopyFrom(feature_map(1.0, 2.0))
    judged = await _judge(services)
    assert judged.activations is not None
    (patch,) = judged.activations.patches
    assert (patch.x, patch.y, patch.side, patch.activations) == (0, 7, 300, feature_map(1.0, 2.0))
    assert judged.activations.min_activation == pytest.approx(PATCHES.min_activation)
    assert judged.activations.suppression_radius == pytest.approx(300 * PATCHES.suppression_radius)


async def test_the_grid_is_that_of_the_release() -> None:
    services = _services(_cut(0))
    await _judge(services)
    (grid,) = services.requests("CutPatches")
    assert (grid.patch_side, grid.side) == (PATCHES.patch_side, PATCHES.side)
    assert grid.nominal_red_cell_radius == pytest.approx(PATCHES.nominal_red_cell_radius)


async def test_a_single_cell_has_no_patches_and_runs_no_network() -> None:
    piece = patching_pb2.CutPatchesResponse(kind=imaging_pb2.ImageKind.IMAGE_KIND_CELL)
    services = _services(piece)
    judged = await _judge(services)
    assert (judged.kind, judged.patches, judged.activations, judged.model) == (imaging_pb2.ImageKind.IMAGE_KIND_CELL, (), None, None)
    assert services.requests("ClassifyPatches") == []


@pytest.mark.parametrize("pieces", [[_cut(1)], [_cut(0), _cut(0)], [_cut(0, side=8)]], ids=["not from 0", "twice", "another size"])
async def test_patches_that_cannot_be_meant_are_refused(pieces: list[patching_pb2.CutPatchesResponse]) -> None:
    with pytest.raises(InternalError):
        await _judge(_services(*pieces))


async def test_a_network_of_another_release_is_refused() -> None:
    services = _services(_cut(0))
    services.changes["ClassifyPatches"] = lambda answer: setattr(answer.model, "sha256", "f" * 64)
    with pytest.raises(FailedPreconditionError) as caught:
        await _judge(services)
    assert caught.value.reason == "RELEASE_DIFFERS"


@pytest.mark.parametrize("service", ["CutPatches", "ClassifyPatches"])
async def test_a_service_that_is_down_is_unavailable(service: str) -> None:
    services = _services(_cut(0))
    services.failures[service] = Down()
    with pytest.raises(DependencyUnavailableError):
        await _judge(services)


async def test_the_time_that_it_takes_is_a_stage_of_its_own() -> None:
    stats = RunStats()
    await _judge(_services(_cut(0)), stats)
    assert set(stats.milliseconds) == {"patches"}
