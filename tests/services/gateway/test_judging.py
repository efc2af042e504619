"""A batch of cells over fake services: the requests to each, and the use of its answers."""

from __future__ import annotations

import math
from typing import Any

import pytest

from services.common.errors import DependencyUnavailableError, FailedPreconditionError, InternalError
from services.gateway.cell_calls import CellCalls
from services.gateway.fusion import blast_probability
from services.gateway.judging import CellAnswer, CellJudge
from services.gateway.request_context import RequestContext
from services.gateway.rules import cell_rule
from services.gateway.run_stats import RunStats
from tests.services.gateway.fakes import BLAST, NORMAL, RELEASE, Down, FakeServices, context, feature_map, located


async def _judge(services: FakeServices, wanted: RequestContext | None = None, stats: RunStats | None = None) -> list[CellAnswer]:
    piece = located(0, 1)
    return await CellJudge(CellCalls(services.stubs)).judge(piece.cells, piece.crops, wanted or context(), stats or RunStats())


async def test_network_and_vote_are_fused_by_the_rule_of_the_release() -> None:
    services = FakeServices(logits=lambda cell: BLAST if cell else NORMAL, votes=lambda cell: 0.9 if cell else 0.1)
    normal, blast = (cell.judged for cell in await _judge(services))
    weight = cell_rule(RELEASE).network_weight
    for judged, logits, vote in ((normal, NORMAL, 0.1), (blast, BLAST, 0.9)):
        network = float(blast_probability(logits))
        assert judged.network_probability == pytest.approx(network, abs=1e-6)
        assert judged.neighbour_vote == pytest.approx(vote, abs=1e-6)
        assert judged.verdict.probability == pytest.approx(weight * network + (1 - weight) * vote)
    assert (normal.verdict.suspected, blast.verdict.suspected) == (False, True)
    assert math.isnan(normal.nothing_probability), "this release has no class nothing"


async def test_every_request_has_the_release_the_id_and_the_cells() -> None:
    services = FakeServices()
    await _judge(services, context(neighbours=5))
    assert [name for name, _ in services.called] == ["Enhance", "Classify", "Explain"]
    for _, request in services.called:
        assert (request.request_id, request.release) == ("r", RELEASE.id)  # type: ignore[attr-defined]
    (explain,) = services.requests("Explain")
    assert explain.neighbours == 5
    assert [list(c.embedding) for c in explain.cells] == [[1.0, 0.0]] * 2


async def test_a_cell_that_cannot_be_registered_is_not_judged_and_not_sent_on() -> None:
    services = FakeServices()
    services.unusable = {1}
    good, bad = (cell.judged for cell in await _judge(services))
    assert [c.cell_id for c in services.requests("Classify")[0].cells] == [0]
    assert not good.verdict.indeterminate
    assert bad.verdict.indeterminate
    assert "NOT_REGISTERED" in bad.verdict.reasons
    assert math.isnan(bad.network_probability)
    assert math.isnan(bad.neighbour_vote)


async def test_where_no_cell_can_be_registered_no_model_is_run() -> None:
    services, stats = FakeServices(), RunStats()
    services.unusable = {0, 1}
    assert all(c.judged.verdict.indeterminate for c in await _judge(services, None, stats))
    assert [name for name, _ in services.called] == ["Enhance"]
    assert stats.engine == ""


@pytest.mark.parametrize("shown", [True, False])
async def test_maps_are_asked_for_only_where_they_are_shown(shown: bool) -> None:
    services = FakeServices()
    await _judge(services, context(maps=shown))
    assert services.requests("Classify")[0].include_place_embeddings is shown
    assert services.requests("Explain")[0].include_maps is shown
    assert [c.HasField("place_embeddings") for c in services.requests("Explain")[0].cells] == [shown, shown]


@pytest.mark.parametrize("service", ["Enhance", "Classify", "Explain"])
async def test_a_service_that_is_down_ends_the_batch_as_unavailable(service: str) -> None:
    services = FakeServices()
    services.failures[service] = Down()
    with pytest.raises(DependencyUnavailableError) as caught:
        await _judge(services)
    assert caught.value.reason == "DEPENDENCY_UNAVAILABLE"
    assert [name for name, _ in services.called][-1] == service, "no service is called after it"


def _other_model(answer: Any) -> None:
    answer.models[0].sha256 = "f" * 64


def _other_library(answer: Any) -> None:
    answer.library_sha256 = "f" * 64


@pytest.mark.parametrize(("service", "change"), [("Classify", _other_model), ("Explain", _other_library)])
async def test_answers_of_another_release_are_refused(service: str, change: Any) -> None:
    services = FakeServices()
    services.changes[service] = change
    with pytest.raises(FailedPreconditionError) as caught:
        await _judge(services)
    assert caught.value.reason == "RELEASE_DIFFERS"


@pytest.mark.parametrize(
    ("service", "change"),
    [
        ("Enhance", lambda a: a.outcomes.pop()),
        ("Classify", lambda a: a.cells[0].logits.append(0.0)),
        ("Classify", lambda a: a.cells[0].embedding.__setitem__(0, math.inf)),
        ("Classify", lambda a: a.cells[0].class_activations.CopyFrom(feature_map(1.0, 2.0, 3.0))),
        ("Classify", lambda a: a.cells[0].class_activations.CopyFrom(feature_map(1.0, math.nan))),
        ("Explain", lambda a: setattr(a.outcomes[1].explained, "vote", 1.5)),
        ("Explain", lambda a: a.outcomes[0].explained.ClearField("neighbours")),
    ],
)
async def test_nonsense_is_refused(service: str, change: Any) -> None:
    services = FakeServices()
    services.changes[service] = change
    with pytest.raises(InternalError):
        await _judge(services)


async def test_stats_name_the_engine_the_files_and_the_stages() -> None:
    stats = RunStats()
    await _judge(FakeServices(), None, stats)
    assert stats.engine == "onnxruntime"
    assert [(m.name, m.version) for m in stats.models] == [(RELEASE.network.model, RELEASE.network.version)]
    assert set(stats.milliseconds) == {"enhance", "classify", "explain"}


async def test_class_activations_become_two_maps_of_one_scale() -> None:
    services = FakeServices()
    services.changes["Classify"] = lambda answer: answer.cells[0].class_activations.CopyFrom(feature_map(1.0, 3.0))
    first, second = (cell.evidence.activation for cell in await _judge(services, context(maps=True)))
    assert first is not None
    assert (first.for_blast.tolist(), first.for_normal.tolist(), first.scale) == ([[255]], [[0]], 2.0)
    assert second is None


@pytest.mark.parametrize("shown", [True, False])
async def test_a_judged_cell_keeps_neither_its_crop_nor_pixels_that_are_not_shown(shown: bool) -> None:
    piece = located(0, 1)
    services = FakeServices()
    judged = await CellJudge(CellCalls(services.stubs)).judge(piece.cells, piece.crops, context(crops=shown), RunStats())
    assert [bool(cell.evidence.pixels) for cell in judged] == [shown, shown]
    piece.cells[0].center_x = -1.0
    assert judged[0].evidence.located.center_x == 0.0, "a copy, because a part of a message keeps all of it in memory"


async def test_neighbours_of_cells_that_were_judged_are_found_again_by_their_pixels() -> None:
    services = FakeServices()
    pixels = {7: bytes(3 * RELEASE.input.side**2)}
    found = await CellJudge(CellCalls(services.stubs)).neighbours(pixels, context(maps=True), RunStats())
    assert {cell: [n.reference_id for n in neighbours] for cell, neighbours in found.items()} == {7: ["a/1"]}
    assert [name for name, _ in services.called] == ["Classify", "Explain"]
