"""A batch of cells over fake services: what each is asked, and what becomes of its answers."""

from __future__ import annotations

import math
from typing import Any

import pytest

from services.common.errors import DependencyUnavailableError, FailedPreconditionError, InternalError
from services.gateway.calling import Effort
from services.gateway.fusion import blast_probability
from services.gateway.judging import Asked, CellJudge, JudgedCell, cell_rule, image_rule
from tests.services.gateway.fakes import BLAST, NORMAL, RELEASE, STORE, Down, FakeServices, asked, located


async def _judge(services: FakeServices, wanted: Asked | None = None, effort: Effort | None = None, *cells: int) -> list[JudgedCell]:
    piece = located(*(cells or (0, 1)))
    return await CellJudge(services.stubs).judge(piece.cells, piece.crops, wanted or asked(), effort or Effort())


async def test_network_and_vote_are_fused_by_the_rule_of_the_release() -> None:
    services = FakeServices(logits=lambda cell: BLAST if cell else NORMAL, votes=lambda cell: 0.9 if cell else 0.1)
    normal, blast = await _judge(services)
    weight = cell_rule(RELEASE).network_weight
    for judged, logits, vote in ((normal, NORMAL, 0.1), (blast, BLAST, 0.9)):
        network = float(blast_probability(logits))
        assert judged.message.network_probability == pytest.approx(network, abs=1e-6)
        assert judged.message.neighbour_vote == pytest.approx(vote, abs=1e-6)
        assert judged.verdict.probability == pytest.approx(weight * network + (1 - weight) * vote)
        assert judged.message.blast_probability == pytest.approx(judged.verdict.probability, abs=1e-6)
    assert (normal.verdict.suspected, blast.verdict.suspected) == (False, True)
    assert not normal.message.HasField("nothing_probability"), "this release does not tell nothing"


async def test_every_service_is_asked_with_the_release_the_id_and_the_cells() -> None:
    services = FakeServices()
    await _judge(services, asked(neighbours=5))
    assert [name for name, _ in services.asked] == ["Enhance", "Classify", "Explain"]
    for _, request in services.asked:
        assert (request.request_id, request.release) == ("r", RELEASE.id)  # type: ignore[attr-defined]
    (explain,) = services.requests("Explain")
    assert explain.neighbours == 5
    assert [list(c.embedding) for c in explain.cells] == [[1.0, 0.0]] * 2


async def test_a_cell_that_cannot_be_registered_is_not_judged_and_asked_about_no_further() -> None:
    services = FakeServices()
    services.unusable = {1}
    good, bad = await _judge(services)
    assert [c.cell_id for c in services.requests("Classify")[0].cells] == [0]
    assert not good.verdict.indeterminate
    assert bad.verdict.indeterminate
    assert "NOT_REGISTERED" in bad.message.reasons
    assert math.isnan(bad.message.network_probability)
    assert math.isnan(bad.message.neighbour_vote)


async def test_where_no_cell_can_be_registered_no_model_is_run() -> None:
    services, effort = FakeServices(), Effort()
    services.unusable = {0, 1}
    assert all(c.verdict.indeterminate for c in await _judge(services, None, effort))
    assert [name for name, _ in services.asked] == ["Enhance"]
    assert effort.engine == ""


@pytest.mark.parametrize("shown", [True, False])
async def test_maps_and_pixels_come_only_where_they_are_asked_for(shown: bool) -> None:
    services = FakeServices()
    cells = await _judge(services, asked(include_maps=shown, include_crops=shown))
    assert services.requests("Classify")[0].include_patch_embeddings is shown
    assert services.requests("Explain")[0].include_maps is shown
    assert [bool(c.message.registered_pixels) for c in cells] == [shown, shown]


@pytest.mark.parametrize("service", ["Enhance", "Classify", "Explain"])
async def test_a_service_that_is_down_ends_the_batch_as_unavailable(service: str) -> None:
    services = FakeServices()
    services.failures[service] = Down()
    with pytest.raises(DependencyUnavailableError) as caught:
        await _judge(services)
    assert caught.value.reason == "DEPENDENCY_UNAVAILABLE"
    assert [name for name, _ in services.asked][-1] == service, "nobody is asked after it"


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
        ("Explain", lambda a: setattr(a.cells[1], "vote", 1.5)),
        ("Explain", lambda a: a.cells[0].ClearField("neighbours")),
    ],
)
async def test_nonsense_is_refused(service: str, change: Any) -> None:
    services = FakeServices()
    services.changes[service] = change
    with pytest.raises(InternalError):
        await _judge(services)


async def test_effort_names_the_engine_the_files_and_the_stages() -> None:
    effort = Effort()
    await _judge(FakeServices(), None, effort)
    assert effort.engine == "onnxruntime"
    assert [(m.name, m.version) for m in effort.models] == [(RELEASE.network.model, RELEASE.network.version)]
    assert set(effort.milliseconds) == {"enhance", "classify", "explain"}


async def test_the_latent_map_is_fetched_only_where_it_is_asked_for() -> None:
    services = FakeServices()
    assert await CellJudge(services.stubs).latent_map(asked()) == []
    assert services.asked == []
    (reference,) = await CellJudge(services.stubs).latent_map(asked(include_latent_map=True))
    assert reference.reference_id == "a/1"


def test_rules_are_the_numbers_of_the_release() -> None:
    assert cell_rule(RELEASE).max_disagreement == RELEASE.calibration.max_disagreement
    rule = image_rule(RELEASE)
    assert (rule.false_blasts, rule.min_cells_for_negative) == (RELEASE.decision.false_blasts, RELEASE.decision.min_cells_for_negative)
    assert not any(image_rule(release).trained_on_lymphoblasts for release in STORE.releases)
