"""Explanations that the gateway refuses before it concludes anything from them."""

from __future__ import annotations

import pytest

from dl4all.retrieval.v1 import retrieval_pb2
from services.common.errors import InternalError, InvalidRequestError
from services.common.status import status_of
from services.gateway.answer_checks import check_explained


def answer(*votes: float) -> retrieval_pb2.ExplainResponse:
    neighbours = [retrieval_pb2.Neighbour(reference_id="a/1")]
    return retrieval_pb2.ExplainResponse(
        cells=[retrieval_pb2.ExplainedCell(cell_id=i, vote=vote, neighbours=neighbours) for i, vote in enumerate(votes)]
    )


def test_a_sound_answer_passes() -> None:
    assert check_explained(answer(0.0, 0.4, 1.0), [0, 1, 2]) == answer(0.0, 0.4, 1.0)


def test_a_refused_cell_fails_its_image_and_the_log_can_say_why() -> None:
    refused = answer(0.2, 0.3)
    refused.cells[1].error.CopyFrom(status_of(InvalidRequestError("NOT_FINITE", "Embeddings must be finite numbers.")))
    with pytest.raises(InternalError) as caught:
        check_explained(refused, [0, 1])
    assert caught.value.metadata == {"dependency": "retrieval"}
    for word in ("cell 1", "NOT_FINITE", "finite numbers"):
        assert word in caught.value.message


@pytest.mark.parametrize("vote", [float("nan"), -0.1, 1.1])
def test_whoever_does_not_know_of_refusals_takes_none_for_a_vote(vote: float) -> None:
    with pytest.raises(InternalError):
        check_explained(answer(0.2, vote), [0, 1])


def test_no_neighbours_or_other_cells_are_no_explanation() -> None:
    for broken in (retrieval_pb2.ExplainResponse(cells=[retrieval_pb2.ExplainedCell(cell_id=0, vote=0.5)]), answer(0.5, 0.5), None):
        with pytest.raises(InternalError):
            check_explained(broken, [0])
