"""Bad input: a clear, typed error at the edge, and no other call is disturbed."""

from __future__ import annotations

import asyncio
import io
import struct
import zlib
from typing import Any, cast

import cv2
import grpc
import numpy as np
import pytest
from PIL import Image

from dl4all.diagnosis.v1 import diagnosis_pb2, diagnosis_pb2_grpc
from dl4all_client import DiagnosisClient, ServiceError, diagnose_request
from services.common.phantom import PhantomOptions, encode_png, smear_field

RANDOM = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)


def encoded(array, form, mode=None, **options):
    out = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(out, form, **options)
    return out.getvalue()


def png_header_only(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def frames(form):
    out = io.BytesIO()
    first, second = Image.fromarray(RANDOM), Image.fromarray(RANDOM[::-1].copy())
    first.save(out, form, save_all=True, append_images=[second])
    return out.getvalue()


def many_scans(times):
    """A progressive JPEG whose last scan is repeated: each repetition makes a decoder touch all pixels again."""
    content = encoded(RANDOM, "JPEG", progressive=True)
    start, end = content.rindex(b"\xff\xda"), content.rindex(b"\xff\xd9")
    return content[:start] + content[start:end] * times + content[end:]


REFUSED = {
    "empty": (b"", "IMAGE_EMPTY"),
    "text": (b"patient has blasts, please confirm", "IMAGE_UNKNOWN_FORMAT"),
    "pdf": (b"%PDF-1.7 nothing", "IMAGE_UNKNOWN_FORMAT"),
    "gif": (encoded(RANDOM, "GIF"), "IMAGE_UNKNOWN_FORMAT"),
    "jpeg of 300 scans": (many_scans(300), "IMAGE_TOO_LARGE"),
    "truncated jpeg": (encoded(RANDOM, "JPEG")[:700], "IMAGE_TRUNCATED"),
    "truncated png": (encoded(RANDOM, "PNG")[:3000], "IMAGE_TRUNCATED"),
    "truncated tiff": (encoded(RANDOM, "TIFF", compression="tiff_lzw")[:5000], None),
    "bomb": (png_header_only(60000, 60000), "IMAGE_TOO_LARGE"),
    "grey": (encoded(RANDOM, "PNG", "L"), "IMAGE_GREY"),
    "grey as rgb": (encoded(np.repeat(RANDOM[..., :1], 3, axis=2), "PNG"), "IMAGE_GREY"),
    "cmyk": (encoded(RANDOM, "JPEG", "CMYK"), "IMAGE_CMYK"),
    "palette": (encoded(RANDOM, "PNG", "P"), "IMAGE_PALETTE"),
    "transparent": (encoded(np.dstack([RANDOM, np.full((64, 64), 120, np.uint8)]), "PNG"), "IMAGE_TRANSPARENT"),
    "animated": (frames("PNG"), "IMAGE_ANIMATED"),
    "pages": (frames("TIFF"), "IMAGE_MULTI_PAGE"),
    "one pixel": (encoded(RANDOM[:1, :1].copy(), "PNG"), "IMAGE_TOO_SMALL"),
    "narrow": (encoded(RANDOM[:31].copy(), "PNG"), "IMAGE_TOO_SMALL"),
    "black": (encoded(np.zeros((64, 64, 3), np.uint8), "PNG"), "IMAGE_BLANK"),
    "white": (encoded(np.full((64, 64, 3), 255, np.uint8), "JPEG"), "IMAGE_BLANK"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_images(server, name):
    image, reason = REFUSED[name]
    with DiagnosisClient(server.address) as client, pytest.raises(ServiceError) as caught:
        client.diagnose(image)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert caught.value.field == "image"
    assert caught.value.reason == (reason or caught.value.reason)
    assert caught.value.reason.startswith("IMAGE_")
    assert len(caught.value.message) > 20


def accepted_images():
    sixteen = cv2.imencode(".png", np.asarray(smear_field(1, PhantomOptions(width=200, height=200, cells=1)).image, np.uint16) * 257)[1].tobytes()
    opaque = encoded(np.dstack([RANDOM, np.full((64, 64), 255, np.uint8)]), "PNG")
    return {
        "16 bit": (sixteen, "SCALED_FROM_16_BIT"),
        "opaque alpha": (opaque, "ALPHA_DROPPED"),
        "bmp": (encoded(RANDOM, "BMP"), None),
        "tiff": (encoded(RANDOM, "TIFF"), None),
    }


@pytest.mark.parametrize("name", ["16 bit", "opaque alpha", "bmp", "tiff"])
def test_accepted_images(server, name):
    image, note = accepted_images()[name]
    with DiagnosisClient(server.address) as client:
        quality = client.diagnose(image).quality
    assert note is None or note in quality.notes


@pytest.mark.parametrize(
    ("change", "reason", "code"),
    [
        ({"microns_per_pixel": float("nan")}, "MICRONS_PER_PIXEL_OUT_OF_RANGE", "INVALID_ARGUMENT"),
        ({"microns_per_pixel": -1.0}, "MICRONS_PER_PIXEL_OUT_OF_RANGE", "INVALID_ARGUMENT"),
        ({"microns_per_pixel": 1e9}, "MICRONS_PER_PIXEL_OUT_OF_RANGE", "INVALID_ARGUMENT"),
        ({"neighbours": 21}, "NEIGHBOURS_OUT_OF_RANGE", "INVALID_ARGUMENT"),
        ({"neighbours": -1}, "NEIGHBOURS_OUT_OF_RANGE", "INVALID_ARGUMENT"),
        ({"request_id": "x" * 129}, "IDENTIFIER_INVALID", "INVALID_ARGUMENT"),
        ({"request_id": "a\nb"}, "IDENTIFIER_INVALID", "INVALID_ARGUMENT"),
        ({"specimen": "ä"}, "IDENTIFIER_INVALID", "INVALID_ARGUMENT"),
        ({"release": "no-such-release"}, "RELEASE_UNKNOWN", "NOT_FOUND"),
        ({"release": "../../etc/passwd"}, "RELEASE_UNKNOWN", "NOT_FOUND"),
    ],
)
def test_absurd_options(server, phantom_cell, change, reason, code):
    with DiagnosisClient(server.address) as client, pytest.raises(ServiceError) as caught:
        client.diagnose(phantom_cell, **change)
    assert (caught.value.reason, caught.value.code) == (reason, code)
    assert caught.value.field


def test_unknown_kind(server, phantom_cell):
    request = diagnose_request(phantom_cell)
    request.kind = cast(Any, 77)
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        diagnosis_pb2_grpc.DiagnosisServiceStub(channel).Diagnose(request)
    assert ServiceError.from_rpc(caught.value).reason == "KIND_UNKNOWN"


def test_encoded_image_over_the_limit(server):
    with DiagnosisClient(server.address) as client, pytest.raises(ServiceError) as caught:
        client.diagnose(b"\xff\xd8" + bytes(17 * 1024 * 1024))
    assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", "IMAGE_TOO_LARGE")


def test_message_over_the_transport_limit(server, phantom_cell):
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.address, options=options) as channel, pytest.raises(grpc.RpcError) as caught:
        diagnosis_pb2_grpc.DiagnosisServiceStub(channel).Diagnose(diagnose_request(bytes(30 * 1024 * 1024)))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    with DiagnosisClient(server.address) as client:
        assert client.diagnose(phantom_cell).counts.total == 1


def test_a_compressed_message_is_refused_and_plain_callers_are_served(server, phantom_cell):
    bomb = diagnosis_pb2.DiagnoseRequest(image=bytes(8 * 1024 * 1024))
    with grpc.insecure_channel(server.address, compression=grpc.Compression.Gzip) as channel, pytest.raises(grpc.RpcError) as caught:
        diagnosis_pb2_grpc.DiagnosisServiceStub(channel).Diagnose(bomb, timeout=20)
    assert cast(Any, caught.value).code() is grpc.StatusCode.UNIMPLEMENTED
    with DiagnosisClient(server.address) as client:
        assert client.diagnose(phantom_cell).cells


@pytest.mark.parametrize(("rpc", "streams"), [("Diagnose", False), ("DiagnoseStream", True), ("DiagnoseSpecimen", True), ("DiagnoseSlide", True)])
def test_a_message_that_protobuf_cannot_read_is_an_invalid_argument(server, rpc, streams):
    unreadable = b"\x0a\xff\xff\xff\xff\x0f"
    with grpc.insecure_channel(server.address) as channel:
        kind: Any = channel.stream_stream if streams else channel.unary_unary
        call = kind(f"/dl4all.diagnosis.v1.DiagnosisService/{rpc}")
        with pytest.raises(grpc.RpcError) as caught:
            next(call(iter([unreadable]) if streams else unreadable, timeout=20))
    error = ServiceError.from_rpc(caught.value)
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "MESSAGE_UNREADABLE")


def test_deadline_of_a_millisecond(server, phantom_field):
    with DiagnosisClient(server.address, timeout=0.001) as client, pytest.raises(ServiceError) as caught:
        client.diagnose(phantom_field)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    with DiagnosisClient(server.address) as client:
        assert client.diagnose(phantom_field).counts.total > 0


async def test_a_cancelled_call_frees_its_slot(server, phantom_field, phantom_cell):
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = diagnosis_pb2_grpc.DiagnosisServiceStub(channel)
        calls = [stub.Diagnose(diagnose_request(phantom_field)) for _ in range(80)]
        await asyncio.sleep(0.05)
        for call in calls:
            call.cancel()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert any(isinstance(o, asyncio.CancelledError) for o in outcomes)
        answer = await stub.Diagnose(diagnose_request(phantom_cell), timeout=30)
    assert answer.diagnosis.counts.total == 1


async def test_overload_is_refused_fast_and_accepted_calls_are_finished(patient_server, phantom_field):
    async with grpc.aio.insecure_channel(patient_server.address) as channel:
        stub = diagnosis_pb2_grpc.DiagnosisServiceStub(channel)
        outcomes = await asyncio.gather(*(stub.Diagnose(diagnose_request(phantom_field), timeout=120) for _ in range(90)), return_exceptions=True)
    answered = [o for o in outcomes if isinstance(o, diagnosis_pb2.DiagnoseResponse)]
    refused = [ServiceError.from_rpc(o) for o in outcomes if isinstance(o, grpc.aio.AioRpcError)]
    assert len(answered) + len(refused) == 90
    assert len(answered) >= 64, "all slots but the reserve: this server takes as long as it needs"
    assert {(e.code, e.reason) for e in refused} <= {("RESOURCE_EXHAUSTED", "OVERLOADED")}


async def test_sigterm_under_load_loses_no_accepted_call(fresh_server):
    image = encode_png(smear_field(9, PhantomOptions(width=900, height=700, cells=10)))
    async with grpc.aio.insecure_channel(fresh_server.address) as channel:
        stub = diagnosis_pb2_grpc.DiagnosisServiceStub(channel)
        await stub.Diagnose(diagnose_request(image), timeout=60)
        calls = [asyncio.ensure_future(stub.Diagnose(diagnose_request(image), timeout=60)) for _ in range(20)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        fresh_server.terminate()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(o, diagnosis_pb2.DiagnoseResponse) for o in outcomes), [str(o) for o in outcomes if isinstance(o, Exception)][:2]
    assert fresh_server.wait() == 0
