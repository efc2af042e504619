"""Explanations that the gateway refuses before it uses them."""

from __future__ import annotations

from typing import Any

import pytest

from dl4all.classification.v1 import classification_pb2
from dl4all.retrieval.v1 import neighbour_pb2, retrieval_pb2
from services.common.errors import FailedPreconditionError, InternalError, InvalidRequestError
from services.common.releases import ReleaseStore, Role
from services.common.status import status_of
from services.gateway.answer_checks import check_explained, check_library, check_models
from tests.paths import ROOT


def answer(*votes: float) -> retrieval_pb2.ExplainResponse:
    neighbours = [neighbour_pb2.Neighbour(reference_id="a/1")]
    explained = [retrieval_pb2.ExplainedCell(vote=vote, neighbours=neighbours) for vote in votes]
    return retrieval_pb2.ExplainResponse(outcomes=[retrieval_pb2.ExplainOutcome(cell_id=i, explained=cell) for i, cell in enumerate(explained)])


def test_a_sound_answer_passes() -> None:
    assert check_explained(answer(0.0, 0.4, 1.0), [0, 1, 2]) == answer(0.0, 0.4, 1.0)


def test_a_refused_cell_fails_its_image_and_the_log_can_say_why() -> None:
    refused = answer(0.2, 0.3)
    refused.outcomes[1].error.CopyFrom(status_of(InvalidRequestError("NOT_FINITE", "Embeddings must be finite numbers.")))
    with pytest.raises(InternalError) as caught:
        check_explained(refused, [0, 1])
    assert caught.value.metadata == {"dependency": "retrieval"}
    for word in ("cell 1", "NOT_FINITE", "finite numbers"):
        assert word in caught.value.message


@pytest.mark.parametrize("vote", [float("nan"), -0.1, 1.1])
def test_a_vote_that_is_none_is_refused(vote: float) -> None:
    with pytest.raises(InternalError):
        check_explained(answer(0.2, vote), [0, 1])


def test_no_neighbours_or_other_cells_are_no_explanation() -> None:
    for broken in (
        retrieval_pb2.ExplainResponse(outcomes=[retrieval_pb2.ExplainOutcome(cell_id=0, explained=retrieval_pb2.ExplainedCell(vote=0.5))]),
        answer(0.5, 0.5),
        None,
    ):
        with pytest.raises(InternalError):
            check_explained(broken, [0])


STORE = ReleaseStore(ROOT / "releases", ROOT / "model_repository")


@pytest.mark.parametrize("role", list(Role))
def test_the_files_of_the_release_pass_whichever_engine_runs_them(role: Role) -> None:
    for release in STORE.releases:
        models = [classification_pb2.ServedModel(name=m.model, version=m.version, sha256=m.files[role].sha256) for m in release.models]
        check_models(models, release)
        check_library(release.library.sha256, release)


@pytest.mark.parametrize("changed", [{"sha256": "0" * 64}, {"version": 2}, {"name": "other"}])
def test_other_files_under_the_same_id_are_told(changed: dict[str, Any]) -> None:
    release = STORE.held("dss-1")
    facts: dict[str, Any] = {"name": release.network.model, "version": release.network.version, "sha256": release.network.files[Role.CPU].sha256}
    with pytest.raises(FailedPreconditionError) as caught:
        check_models([classification_pb2.ServedModel(**(facts | changed))], release)
    assert (caught.value.reason, caught.value.metadata) == ("RELEASE_DIFFERS", {"dependency": "classification"})
    with pytest.raises(FailedPreconditionError, match="retrieval"):
        check_library("0" * 64, release)
