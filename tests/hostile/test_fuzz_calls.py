"""Mutated messages for every RPC that callers reach: each is answered or refused with a reason, and the server goes on."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from typing import Any

import cv2
import grpc
import pytest
import tifffile
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dl4all.diagnosis.v1 import diagnosis_pb2, library_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all_client import diagnose_request
from services.common.phantom import CellKind, single_cell
from tests.hostile.victim import GoodClient
from tests.properties import examples
from tests.running import SERVING, Running

CELL = cv2.imencode(".bmp", single_cell(5, CellKind.LYMPHOCYTE).image[..., ::-1])[1].tobytes()
"""A format without checksums: changed bytes reach the decoder and the science."""


def _slide() -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, single_cell(5, CellKind.LYMPHOCYTE).image, photometric="rgb", tile=(64, 64))
    return out.getvalue()


SLIDE = _slide()
SERVICES = (diagnosis_pb2.DESCRIPTOR.services_by_name["DiagnosisService"], library_pb2.DESCRIPTOR.services_by_name["LibraryService"])
METHODS = {f"/{service.full_name}/{method.name}": method for service in SERVICES for method in service.methods}
_DIAGNOSE = diagnose_request(CELL, request_id="r", explain=True)
_SOURCE = imaging_pb2.SlideSource(upload_bytes=len(SLIDE))
SEEDS: dict[str, list[Any]] = {
    "Diagnose": [_DIAGNOSE],
    "DiagnoseStream": [diagnosis_pb2.DiagnoseStreamRequest(request=_DIAGNOSE)] * 2,
    "DiagnoseSpecimen": [diagnosis_pb2.DiagnoseSpecimenRequest(request=_DIAGNOSE)] * 2,
    "DiagnoseSlide": [
        diagnosis_pb2.DiagnoseSlideRequest(start=diagnosis_pb2.DiagnoseSlideStart(source=_SOURCE)),
        diagnosis_pb2.DiagnoseSlideRequest(chunk=imaging_pb2.SlideChunk(data=SLIDE)),
    ],
    "LocateCells": [diagnosis_pb2.LocateCellsRequest(image=CELL)],
    "MeasureFocus": [diagnosis_pb2.MeasureFocusRequest(image=CELL)],
    "EnhanceCell": [diagnosis_pb2.EnhanceCellRequest(image=CELL, include_crop=True)],
    "ListReleases": [diagnosis_pb2.ListReleasesRequest()],
    "GetLibrary": [library_pb2.GetLibraryRequest(request_id="r")],
    "AddReferences": [
        library_pb2.AddReferencesRequest(start=library_pb2.AddReferencesStart(idempotency_key="k", confirmed_by="A", source="s")),
        library_pb2.AddReferencesRequest(reference=library_pb2.ReferenceImage(image=CELL, cell_class="c", patient="p")),
    ],
}
VALUES: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_ENUM: st.integers(-5, 50),
    FieldDescriptor.CPPTYPE_STRING: st.one_of(st.text(max_size=200), st.sampled_from(("dss", "plain-resnet-1", "../..", "a\nb"))),
}
REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}


@st.composite
def changed(draw: st.DrawFn, call: str, number: int) -> bytes:
    """A message of a call with some fields set to other values, and some bytes changed, cut out or added, most often none."""
    message = copy.deepcopy(SEEDS[call][number])
    for _ in range(draw(st.integers(0, 2))):
        _set_something(draw, message)
    data = bytearray(message.SerializeToString())
    for _ in range(draw(st.sampled_from((0, 0, 1, 1, 3)))):
        where = draw(st.one_of(st.integers(0, min(len(data), 200)), st.integers(0, len(data))))
        match draw(st.sampled_from(("change", "change", "change", "cut", "add"))):
            case "change" if where < len(data):
                data[where] = draw(st.integers(0, 255))
            case "cut":
                del data[where : where + draw(st.integers(1, 64))]
            case _:
                data[where:where] = draw(st.binary(max_size=16))
    return bytes(data)


def _set_something(draw: st.DrawFn, message: Message) -> None:
    fields = [f for f in message.DESCRIPTOR.fields if not f.is_repeated]
    if not fields:
        return
    field = draw(st.sampled_from(fields))
    if field.message_type is not None:
        _set_something(draw, getattr(message, field.name))
    else:
        values = st.binary(max_size=200) if field.type == FieldDescriptor.TYPE_BYTES else VALUES[field.cpp_type]
        setattr(message, field.name, draw(values))


@pytest.fixture(scope="module")
def channel(attacked: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(attacked) as opened:
        yield opened


def test_every_call_is_tried() -> None:
    assert {method.name for method in METHODS.values()} == set(SEEDS)


@pytest.mark.parametrize("path", METHODS)
def test_mutated_messages_are_answered_or_refused(path: str, channel: grpc.Channel, victim: Running, good: GoodClient) -> None:
    method = METHODS[path]

    @settings(max_examples=examples(25), deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.tuples(*(changed(method.name, number) for number in range(len(SEEDS[method.name])))))
    def attack(messages: tuple[bytes, ...]) -> None:
        code = _call(channel, path, messages)
        assert code is None or code in REFUSALS, code

    with good.at_work():
        attack()
    assert victim.health() == SERVING


def _call(channel: grpc.Channel, path: str, messages: tuple[bytes, ...]) -> grpc.StatusCode | None:
    many: Any = iter(messages)
    one: Any = messages[0]
    try:
        match METHODS[path].client_streaming, METHODS[path].server_streaming:
            case True, True:
                list(channel.stream_stream(path)(many, timeout=20.0))
            case True, False:
                channel.stream_unary(path)(many, timeout=20.0)
            case False, True:
                list(channel.unary_stream(path)(one, timeout=20.0))
            case _:
                channel.unary_unary(path)(one, timeout=20.0)
    except grpc.RpcError as error:
        return error.code()
    return None
