"""What real parts emit is in the contract of telemetry, nothing that callers send is in it, and one trace leads through every hop into Triton.

Every text and every blob that a caller can fill carries a mark. No log, metric or span may hold it.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from PIL import Image, ImageFilter
from PIL.PngImagePlugin import PngInfo

from deploy.observability.telemetry import Telemetry, read_telemetry
from dl4all.diagnosis.v1 import diagnosis_pb2, diagnosis_pb2_grpc, library_pb2
from dl4all_client import DiagnosisClient, Reference, ServiceError, diagnose_request
from services.common.parts import SERVICES
from services.common.phantom import PhantomOptions, encode_png, smear_field
from tests.running import Stack, eventually
from tests.span_collector import Collector

MARK = "Canary7Zq"
ATTEMPTS = 3
"""Rounds of calls that are made at most: exporters drop spans that they cannot send in their time, as on a machine that is busy elsewhere."""
CALL = "the-identifier-of-a-call"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
EXPECTED = {
    ("caller", "dl4all-gateway"),
    ("dl4all-gateway", "dl4all-patching"),
    ("dl4all-patching", "dl4all-triton"),
    ("dl4all-gateway", "dl4all-preprocessing"),
    ("dl4all-gateway", "dl4all-classification"),
    ("dl4all-classification", "dl4all-triton"),
    ("dl4all-gateway", "dl4all-retrieval"),
}
"""Which part has spans below those of which."""
_OF_EVERY_LINE = {"event", "level", "timestamp", "service", "trace_id"}
_OF_THE_LIBRARY = re.compile(r"(python|process)_")
_SUFFIX = re.compile(r"_(bucket|sum|count|created)$")
_RARE = {
    "dl4all_work_dropped_total": "a caller is gone before its work begins",
    "dl4all_images_refused_total": "there is too much work",
    "dl4all_certificates_renewed_total": "certificates are replaced",
}
"""Metrics with labels that only show when something happens; other tests make it happen."""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture(scope="module")
def watched(triton_installed: None, collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Five services and a Triton that export spans, after calls of every kind with marks in all their fields."""
    settings = {"DL4ALL_TRACING": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    additions = tmp_path_factory.mktemp("additions") / "additions.sqlite"
    made = Stack.make(settings, {"retrieval": {"DL4ALL_RETRIEVAL_ADDITIONS": str(additions)}})
    try:
        made.start()
        send_marks_everywhere(made)
        for _ in range(ATTEMPTS):
            send_good_images(made)
            with suppress(AssertionError):
                eventually(lambda: not _missing_spans(collector))
                break
        yield made
    finally:
        made.end()


def _missing_spans(collector: Collector) -> set[str]:
    """Parts without spans, and spans of the contract that did not come."""
    services = {f"dl4all-{name}" for name in (*SERVICES, "triton")} - {service for service, _ in collector.spans}
    return services | ({span.name for span in read_telemetry().spans.values()} - {_kind_of(span.name) for _, span in collector.spans})


def _kind_of(name: str) -> str:
    """The name of a span in the contract."""
    return re.sub(r"^dl4all\..*/.*$", "dl4all.<service>/<method>", name)


@pytest.fixture(scope="module")
def contract() -> Telemetry:
    return read_telemetry()


def marked_png(seed: int, blur: float = 0.0) -> bytes:
    """A field whose file says the mark; blurred by so many pixels."""
    with Image.open(io.BytesIO(encode_png(smear_field(seed, PhantomOptions(width=640, height=480, cells=4))))) as image:
        info, out = PngInfo(), io.BytesIO()
        for key, value in {**getattr(image, "text", {}), "Patient": MARK}.items():
            info.add_text(key, value)
        (image.filter(ImageFilter.GaussianBlur(blur)) if blur else image).save(out, "PNG", pnginfo=info)
    return out.getvalue()


def filled(descriptor: Descriptor, depth: int = 0) -> Iterator[Message]:
    """Messages of a kind with the mark in every text and blob; one for each alternative of a oneof."""
    alternatives = [field for oneof in descriptor.oneofs for field in oneof.fields if len(oneof.fields) > 1]
    choices: list[FieldDescriptor | None] = [*alternatives] or [None]
    for chosen in choices:
        message = GetMessageClass(descriptor)()
        for field in descriptor.fields:
            if field in alternatives and field is not chosen:
                continue
            _fill(message, field, depth)
        yield message


def _fill(message: Any, field: FieldDescriptor, depth: int) -> None:
    if field.message_type is not None and depth < 4:
        inner = next(filled(field.message_type, depth + 1))
        if field.is_repeated:
            getattr(message, field.name).append(inner)
        else:
            getattr(message, field.name).CopyFrom(inner)
    elif field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
        mark = MARK if field.type == FieldDescriptor.TYPE_STRING else MARK.encode()
        if field.name == "request_id":
            mark = CALL
        if field.is_repeated:
            getattr(message, field.name).append(mark)
        else:
            setattr(message, field.name, mark)


def send_marks_everywhere(stack: Stack) -> None:
    """Call every RPC that faces callers with the mark in all fields; what comes of it does not matter."""
    with stack["gateway"].channel() as channel:
        for descriptor in (diagnosis_pb2.DESCRIPTOR, library_pb2.DESCRIPTOR):
            for service in descriptor.services_by_name.values():
                for method in service.methods:
                    for message in filled(method.input_type):
                        _send(channel, method, message)


def _send(channel: grpc.Channel, method: MethodDescriptor, message: Message) -> None:
    sides = ("stream" if streams else "unary" for streams in (method.client_streaming, method.server_streaming))
    call: Any = getattr(channel, "_".join(sides))(f"/{method.containing_service.full_name}/{method.name}")
    data = message.SerializeToString()
    try:
        answer = call(iter([data]) if method.client_streaming else data, timeout=30, metadata=(("x-note", MARK), ("user-agent", MARK)))
        if method.server_streaming:
            list(answer)
    except grpc.RpcError:
        pass


def send_good_images(stack: Stack) -> None:
    """Calls that reach every part, with the mark wherever it does not stop them; and some that are refused on the way."""
    images = [marked_png(seed) for seed in range(3)]
    with DiagnosisClient(stack["gateway"].address) as client:
        assert client.diagnose(images[0], request_id=CALL, specimen=MARK, explain=True).cells
        assert client.diagnose(images[0], specimen=MARK, release="all_idb_patches", kind="field").cells is not None
        assert (
            len(list(client.diagnose_stream(diagnose_request(image, request_id=f"{CALL}-{n}", specimen=MARK) for n, image in enumerate(images)))) == 3
        )
        assert client.diagnose_specimen(images, specimen=MARK).counts.total
        assert client.diagnose(marked_png(1, blur=4.0), specimen=MARK).counts.indeterminate, "too blurred to be judged"
        client.locate_cells(images[0])
        client.measure_focus(images[0])
        client.enhance_cell(images[0])
        client.get_library()
        for refused in (
            lambda: client.diagnose(images[0], request_id=MARK * 20),
            lambda: client.diagnose(images[0][:2000], specimen=MARK),
            lambda: client.diagnose(f"P6 {MARK}".encode(), specimen=MARK),
            lambda: client.diagnose(images[0], release=MARK),
            lambda: list(client.diagnose_slide(f"{MARK}/slide.tif", on_server=True, specimen=MARK)),
            lambda: client.add_references(
                [Reference(images[1], False, MARK, MARK)], source=MARK, confirmed_by=MARK, idempotency_key=MARK, release=MARK
            ),
        ):
            with pytest.raises(ServiceError):
                refused()


@pytest.mark.parametrize("name", [*SERVICES, "triton"])
def test_nothing_that_callers_send_is_in_logs_and_metrics(watched: Stack, name: str) -> None:
    log, page = watched[name].log.read_text(), _page(watched, name)
    assert log
    assert page
    assert MARK not in log
    assert MARK not in page
    assert (CALL in log) == (name != "triton")
    assert CALL not in page


def test_nothing_that_callers_send_is_in_spans(watched: Stack, collector: Collector) -> None:
    spans = [(service, str(span)) for service, span in collector.spans]
    assert not _missing_spans(collector)
    assert not [text for _, text in spans if MARK in text]
    assert any(CALL in text for _, text in spans)


def test_every_metric_is_in_the_contract_and_every_one_of_the_contract_comes(watched: Stack, contract: Telemetry) -> None:
    seen = set()
    for name in SERVICES:
        for sample, labels in _samples(_page(watched, name)):
            if _OF_THE_LIBRARY.match(sample) or sample.endswith("_created"):
                continue
            metric = sample if sample in contract.metrics else _SUFFIX.sub("", sample)
            assert metric in contract.metrics, f"{name}: {sample}"
            assert labels - {"le"} == set(contract.metrics[metric].labels), f"{name}: {sample}"
            seen.add(metric)
    assert set(contract.metrics) - seen <= set(_RARE)


def test_every_line_is_in_the_contract_with_its_fields(watched: Stack, contract: Telemetry) -> None:
    seen = set()
    for name in SERVICES:
        for text in watched[name].log.read_text().splitlines():
            line = json.loads(text)
            event = contract.events[line["event"]]
            assert line["level"] == event.kind
            assert set(line) - _OF_EVERY_LINE <= set(event.fields), text
            seen.add(event.name)
    assert {"call", "serving", "dependency failed"} <= seen


def test_every_span_is_in_the_contract_and_every_one_of_the_contract_comes(watched: Stack, contract: Telemetry, collector: Collector) -> None:
    named = {span.name: span for span in contract.spans.values()}
    seen = set()
    for service, span in collector.spans:
        if service == "dl4all-triton":
            continue
        known = named.get(_kind_of(span.name))
        assert known is not None, span.name
        assert {attribute.key for attribute in span.attributes} <= set(known.fields), span.name
        seen.add(known.name)
    assert seen == set(named)


def _page(stack: Stack, name: str) -> str:
    import urllib.request

    running = stack[name]
    with urllib.request.urlopen(f"http://{running.host}:{running.part.metrics_port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def _samples(page: str) -> Iterator[tuple[str, set[str]]]:
    for line in page.splitlines():
        if line and not line.startswith("#"):
            name, _, rest = line.partition("{") if "{" in line else line.partition(" ")
            yield name, set(re.findall(r"(\w+)=\"", rest)) if "{" in line else set()


def _diagnose(stack: Stack, image: bytes, request_id: str, trace: str = TRACE) -> None:
    with stack["gateway"].channel() as channel:
        request = diagnose_request(image, request_id=request_id)
        metadata = (("traceparent", f"00-{trace}-{PARENT}-01"),)
        assert diagnosis_pb2_grpc.DiagnosisServiceStub(channel).Diagnose(request, timeout=60, metadata=metadata).diagnosis.cells


def _missing(collector: Collector, trace: str) -> str:
    """Gaps of a trace: parts that sent no span below another one, and spans without their parent; empty where it is complete."""
    found = collector.of(trace)
    orphans = sorted(f"{service}: {span.name}" for service, span in found.values() if span.parent_span_id.hex() not in {*found, PARENT})
    parents = {identifier: service for identifier, (service, _) in found.items()} | {PARENT: "caller"}
    edges = {(parents.get(span.parent_span_id.hex(), ""), service) for service, span in found.values()}
    return ", ".join([*(f"no {below} below {above}" for above, below in sorted(EXPECTED - edges)), *(f"no parent of {orphan}" for orphan in orphans)])


def _is_complete(collector: Collector, trace: str) -> bool:
    return not _missing(collector, trace)


def _complete_trace(stack: Stack, collector: Collector, image: bytes) -> str:
    for attempt in range(ATTEMPTS):
        trace = f"{int(TRACE, 16) + attempt:032x}"
        _diagnose(stack, image, f"traced-{attempt}", trace)
        try:
            eventually(partial(_is_complete, collector, trace), 20)
        except AssertionError:
            continue
        return trace
    raise AssertionError(f"no trace is complete; the last has {_missing(collector, trace)}")


def test_spans_of_every_service_and_of_triton_form_one_tree(watched: Stack, collector: Collector, phantom_cell: bytes) -> None:
    spans = collector.of(_complete_trace(watched, collector, phantom_cell))
    roots = [span for _, span in spans.values() if span.parent_span_id.hex() == PARENT]
    assert [span.name for span in roots] == ["dl4all.diagnosis.v1.DiagnosisService/Diagnose"]


def test_without_tracing_the_callers_trace_id_is_in_every_log(stack: Stack, phantom_cell: bytes) -> None:
    _diagnose(stack, phantom_cell, "untraced")
    for name in SERVICES:
        calls = [json.loads(line) for line in stack[name].log.read_text().splitlines() if '"call"' in line]
        mine = [call for call in calls if call.get("trace_id") == TRACE]
        assert mine, name
        assert {call["request_id"] for call in mine} == {"untraced"}
        assert all(call["service"] == name and call["code"] == "OK" for call in mine)
