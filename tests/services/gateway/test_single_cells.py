"""Cells that are located, enhanced or embedded and not judged, over fake services."""

from __future__ import annotations

import pytest

from dl4all.imaging.v1 import imaging_pb2
from services.common.errors import DependencyUnavailableError, InternalError, InvalidImageError, NotFoundError
from services.gateway.single_cells import SingleCells
from tests.services.gateway.fakes import IMAGE, RELEASE, Down, FakeServices, admission, context, located


def _single_cells(services: FakeServices) -> SingleCells:
    return SingleCells(services.stubs, admission(1))


async def test_cells_of_all_pieces_are_located_without_crops_and_no_model_runs() -> None:
    services = FakeServices([located(0, 1, total=3), located(2)])
    found = await _single_cells(services).locate(IMAGE, context())
    assert [c.cell_id for c in found.cells] == [0, 1, 2]
    (request,) = services.requests("LocateCells")
    assert (request.omit_crops, request.kind, request.request_id) == (True, imaging_pb2.IMAGE_KIND_AUTO, "r")
    assert [name for name, _ in services.called] == ["LocateCells"]


@pytest.mark.parametrize("pieces", [[], [located(0)], [located(0, total=2)]], ids=["nothing", "no header", "too few"])
async def test_what_patching_cannot_have_meant_is_refused(pieces: list[object]) -> None:
    with pytest.raises(InternalError):
        await _single_cells(FakeServices(pieces)).locate(IMAGE, context())  # type: ignore[arg-type]


async def test_the_focus_is_that_of_the_image_that_was_sent() -> None:
    services = FakeServices()
    assert await _single_cells(services).measure_focus(IMAGE, context()) == 6.5
    assert services.requests("MeasureFocus")[0].image == b"x"
    services.changes["MeasureFocus"] = lambda answer: setattr(answer, "score", float("nan"))
    with pytest.raises(InternalError):
        await _single_cells(services).measure_focus(IMAGE, context())


async def test_one_cell_is_meant_and_enhanced_by_the_release() -> None:
    services = FakeServices([located(0, total=1)])
    found = await _single_cells(services).enhance(IMAGE, context())
    assert services.requests("LocateCells")[0].kind == imaging_pb2.IMAGE_KIND_CELL
    assert services.requests("Enhance")[0].release == RELEASE.id
    assert (found.image_sha256, found.cell.cell_id, found.crop.width, found.enhanced.side) == ("0" * 64, 0, 4, RELEASE.input.side)


async def test_an_image_without_a_cell_has_nothing_to_enhance() -> None:
    with pytest.raises(NotFoundError) as caught:
        await _single_cells(FakeServices([located(total=0)])).enhance(IMAGE, context())
    assert caught.value.reason == "NO_CELLS"


async def test_a_cell_is_embedded_with_its_places() -> None:
    services = FakeServices([located(0, total=1)])
    found, classified = await _single_cells(services).embed(IMAGE, context())
    assert services.requests("Classify")[0].include_place_embeddings
    assert (found.cell.cell_id, list(classified.embedding), classified.place_embeddings.channels) == (0, [1.0, 0.0], 2)


async def test_a_cell_that_no_network_may_judge_is_no_reference() -> None:
    services = FakeServices([located(0, total=1)])

    def refuse(answer: object) -> None:
        answer.outcomes[0].enhanced.accepted = False  # type: ignore[attr-defined]
        answer.outcomes[0].enhanced.reasons.append("POOR_FOCUS")  # type: ignore[attr-defined]

    services.changes["Enhance"] = refuse
    with pytest.raises(InvalidImageError, match="POOR_FOCUS") as caught:
        await _single_cells(services).embed(IMAGE, context())
    assert caught.value.reason == "CELL_NOT_ACCEPTED"
    assert services.requests("Classify") == []


async def test_a_service_that_is_down_is_unavailable() -> None:
    services = FakeServices([located(0, total=1)])
    for service in ("Classify", "Enhance", "LocateCells"):
        services.failures[service] = Down()
        with pytest.raises(DependencyUnavailableError):
            await _single_cells(services).embed(IMAGE, context())
