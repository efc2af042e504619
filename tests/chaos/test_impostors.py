"""Parts that are slow, answer nonsense, or are no gRPC servers: the caller's error, and the recovery."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import pytest
from google.protobuf.message import Message
from tritonclient.grpc import service_pb2

from dl4all.classification.v1 import classification_pb2
from dl4all.patching.v1 import patching_pb2
from dl4all.preprocessing.v1 import preprocessing_pb2
from dl4all.retrieval.v1 import retrieval_pb2
from dl4all_client import DiagnosisClient, ServiceError
from services.common.parts import TRITON
from tests.impostor import Babbler
from tests.running import PATIENCE, Deceived, Stack, eventually, own_copy

Answer = TypeVar("Answer", bound=Message)
INNER = ("patching", "preprocessing", "classification", "retrieval")


@pytest.fixture(autouse=True)
def honest(deceived: Deceived, phantom_cell: bytes) -> Iterator[None]:
    """Before and after each test all parts work, and no process was restarted."""
    assert deceived.diagnose(phantom_cell) is None
    yield
    for impostor in deceived.impostors.values():
        impostor.honest()
    eventually(lambda: deceived.diagnose(phantom_cell) is None, 20, "it passes")
    deceived.gateway.wait_serving()


@pytest.mark.parametrize("name", [*INNER, TRITON])
def test_a_part_is_slow(deceived: Deceived, phantom_cell: bytes, name: str) -> None:
    deceived.impostors[name].delay = 30.0
    started = time.monotonic()
    error = deceived.diagnose(phantom_cell, timeout=1.5)
    assert error is not None
    assert error.code == "DEADLINE_EXCEEDED"
    assert time.monotonic() - started < PATIENCE, "the part itself would have taken 30 s"
    eventually(lambda: len(deceived.impostors[name].cancelled) > 0, 5, "the slow part hears that nobody waits any more")
    eventually(lambda: deceived.gateway.metrics()("dl4all_requests_in_progress") == 0, 5)
    assert deceived.gateway.metrics()("dl4all_requests_total", method="Diagnose", code="DEADLINE_EXCEEDED") >= 1


def _changed(kind: type[Answer], change: Callable[[Answer], None]) -> Callable[[str, bytes], bytes]:
    def spoil(_: str, answer: bytes) -> bytes:
        message = kind.FromString(answer)
        change(message)
        return message.SerializeToString()

    return spoil


def _noise(_: str, answer: bytes) -> bytes:
    return np.random.default_rng(3).bytes(max(64, len(answer) // 2))


def _nothing(_: str, answer: bytes) -> bytes:
    return b""


def _drop_last_crop(piece: patching_pb2.LocateCellsResponse) -> None:
    del piece.crops[-1]


def _announce_more(piece: patching_pb2.LocateCellsResponse) -> None:
    piece.header.cell_count += 1


def _lose_position(piece: patching_pb2.LocateCellsResponse) -> None:
    piece.cells[0].radius = float("nan")


def _drop_outcome(answer: preprocessing_pb2.EnhanceResponse) -> None:
    del answer.outcomes[-1]


def _shrink(answer: preprocessing_pb2.EnhanceResponse) -> None:
    answer.outcomes[0].enhanced.pixels = answer.outcomes[0].enhanced.pixels[:-3]


def _not_a_number(answer: classification_pb2.ClassifyResponse) -> None:
    answer.cells[0].logits[0] = float("nan")


def _other_cell(answer: classification_pb2.ClassifyResponse) -> None:
    answer.cells[0].cell_id += 7


def _absurd_vote(answer: retrieval_pb2.ExplainResponse) -> None:
    answer.outcomes[0].explained.vote = 7.0


def _no_neighbours(answer: retrieval_pb2.ExplainResponse) -> None:
    del answer.outcomes[0].explained.neighbours[:]


def _refused_cell(answer: retrieval_pb2.ExplainResponse) -> None:
    answer.outcomes[0].error.code = 3


def _triton_not_a_number(answer: service_pb2.ModelInferResponse) -> None:
    answer.raw_output_contents[0] = np.full(len(answer.raw_output_contents[0]) // 4, np.nan, np.float32).tobytes()


def _triton_other_shape(answer: service_pb2.ModelInferResponse) -> None:
    answer.outputs[0].shape[:] = [2, 1]


NONSENSE = {
    "patching: noise": ("patching", _noise),
    "patching: nothing": ("patching", _nothing),
    "patching: a crop is missing": ("patching", _changed(patching_pb2.LocateCellsResponse, _drop_last_crop)),
    "patching: a cell is missing": ("patching", _changed(patching_pb2.LocateCellsResponse, _announce_more)),
    "patching: a cell without a position": ("patching", _changed(patching_pb2.LocateCellsResponse, _lose_position)),
    "preprocessing: noise": ("preprocessing", _noise),
    "preprocessing: nothing": ("preprocessing", _nothing),
    "preprocessing: an outcome is missing": ("preprocessing", _changed(preprocessing_pb2.EnhanceResponse, _drop_outcome)),
    "preprocessing: a cell of another size": ("preprocessing", _changed(preprocessing_pb2.EnhanceResponse, _shrink)),
    "classification: noise": ("classification", _noise),
    "classification: nothing": ("classification", _nothing),
    "classification: not a number": ("classification", _changed(classification_pb2.ClassifyResponse, _not_a_number)),
    "classification: another cell": ("classification", _changed(classification_pb2.ClassifyResponse, _other_cell)),
    "retrieval: noise": ("retrieval", _noise),
    "retrieval: nothing": ("retrieval", _nothing),
    "retrieval: an absurd vote": ("retrieval", _changed(retrieval_pb2.ExplainResponse, _absurd_vote)),
    "retrieval: no neighbours": ("retrieval", _changed(retrieval_pb2.ExplainResponse, _no_neighbours)),
    "retrieval: a refused cell": ("retrieval", _changed(retrieval_pb2.ExplainResponse, _refused_cell)),
    "triton: noise": (TRITON, _noise),
    "triton: nothing": (TRITON, _nothing),
    "triton: not a number": (TRITON, _changed(service_pb2.ModelInferResponse, _triton_not_a_number)),
    "triton: another shape": (TRITON, _changed(service_pb2.ModelInferResponse, _triton_other_shape)),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_a_part_answers_nonsense(deceived: Deceived, phantom_cell: bytes, what: str) -> None:
    """No diagnosis rests on nonsense: the caller gets INTERNAL with the request id and nothing of the answer."""
    name, spoil = NONSENSE[what]
    before = deceived.gateway.metrics()("dl4all_requests_total", method="Diagnose", code="INTERNAL")
    deceived.impostors[name].spoil = _only("/ModelInfer" if name == TRITON else "/", spoil)
    error = deceived.diagnose(phantom_cell)
    assert error is not None
    assert (error.code, error.reason) == ("INTERNAL", "INTERNAL")
    identifier = error.message.rpartition("request id ")[2].rstrip(".")
    lines = [line for line in deceived.gateway.log.read_text().splitlines() if "call failed" in line and identifier in line]
    assert lines, "the log says what was wrong, under the request id that the caller was told"
    assert deceived.gateway.metrics()("dl4all_requests_total", method="Diagnose", code="INTERNAL") == before + 1


def _only(part_of_method: str, spoil: Callable[[str, bytes], bytes]) -> Callable[[str, bytes], bytes]:
    return lambda method, answer: spoil(method, answer) if part_of_method in method else answer


def test_a_part_is_no_grpc_server(stack: Stack, phantom_cell: bytes) -> None:
    babbler = Babbler()
    gateway = own_copy(stack["gateway"], DL4ALL_GATEWAY_PATCHING_ADDRESS=f"dns:///localhost:{babbler.port}").start()
    try:
        eventually(lambda: gateway.health("live") == 1, 30)
        assert gateway.health() == 2
        with DiagnosisClient(gateway.address, timeout=15) as client, pytest.raises(ServiceError) as caught:
            client.diagnose(phantom_cell)
        assert (caught.value.code, caught.value.reason) == ("UNAVAILABLE", "DEPENDENCY_UNAVAILABLE")
    finally:
        gateway.end()
        babbler.close()
