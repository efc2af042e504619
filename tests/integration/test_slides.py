"""Whole slides over the wire, through five processes and a Triton: uploaded, by path, cancelled, damaged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Unpack, cast

import grpc
import numpy as np
import pytest
import tifffile

from dl4all.diagnosis.v1 import diagnosis_pb2, diagnosis_pb2_grpc
from dl4all.imaging.v1 import imaging_pb2
from dl4all_client import DiagnosisClient, ServiceError
from dl4all_client.requests import SlideOptions as SlideAnswerOptions
from dl4all_client.requests import slide_requests, slide_start
from services.common.phantom import PhantomOptions
from services.common.phantom.slide import PhantomSlide, SlideOptions
from tests.running import Running, Stack, eventually, own_copy

SIDE = 4096


class SlideStack:
    """A patching of its own with a root of slides and a folder of uploads, and a gateway of its own that calls it."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.root, self.uploads = folder / "slides", folder / "uploads"
        self.root.mkdir()
        settings = {"DL4ALL_PATCHING_SLIDES_ROOT": str(self.root), "DL4ALL_PATCHING_SLIDE_UPLOADS": str(self.uploads)}
        self.patching = own_copy(stack["patching"], **settings, DL4ALL_PATCHING_SLIDES_AT_ONCE="1").start()
        self.gateway = own_copy(stack["gateway"], DL4ALL_GATEWAY_PATCHING_ADDRESS=f"dns:///{self.patching.address}").start()
        for running in (self.patching, self.gateway):
            running.wait_serving()

    def end(self) -> None:
        for running in (self.gateway, self.patching):
            running.end()

    def diagnose(self, slide: Path | str, **options: Unpack[SlideAnswerOptions]) -> list[diagnosis_pb2.DiagnoseSlideResponse]:
        with DiagnosisClient(self.gateway.address) as client:
            return list(client.diagnose_slide(slide, on_server=isinstance(slide, str), timeout=300, **options))

    def error(self, slide: Path | str) -> ServiceError:
        with pytest.raises(ServiceError) as caught:
            self.diagnose(slide)
        return caught.value

    def left_over(self) -> list[Path]:
        return list(self.uploads.glob("*")) if self.uploads.exists() else []


@pytest.fixture(scope="module")
def slides(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlideStack]:
    made = SlideStack(stack, tmp_path_factory.mktemp("slides"))
    try:
        yield made
    finally:
        made.end()


@pytest.fixture(scope="module")
def drawn(slides: SlideStack) -> tuple[Path, PhantomSlide]:
    phantom = PhantomSlide(7, SlideOptions(SIDE, SIDE, PhantomOptions(cells=8, cell_radius=40.0)))
    path = slides.root / "phantom.tif"
    phantom.write(path)
    return path, phantom


def parts_of(responses: list[diagnosis_pb2.DiagnoseSlideResponse]) -> tuple[list, list, diagnosis_pb2.SlideDiagnosis]:
    progress = [r.progress for r in responses if r.WhichOneof("part") == "progress"]
    cells = [c for r in responses if r.WhichOneof("part") == "cells" for c in r.cells.cells]
    assert responses[-1].WhichOneof("part") == "slide"
    return progress, cells, responses[-1].slide


def test_a_slide_is_read_judged_and_explained(slides: SlideStack, drawn: tuple[Path, PhantomSlide]) -> None:
    path, phantom = drawn
    progress, cells, slide = parts_of(slides.diagnose(path, explain=True, request_id="whole"))
    truth = phantom.cells()
    positions = np.array([(c.cell.center_x, c.cell.center_y) for c in cells])
    missed = [t for t in truth if np.hypot(*(positions - (t.center_x, t.center_y)).T).min() > t.radius]
    assert len(missed) <= 0.02 * len(truth)
    assert abs(len(cells) - len(truth)) <= 0.02 * len(truth)
    assert sorted(c.cell.cell_id for c in cells) == list(range(len(cells)))
    assert (slide.request_id, slide.facts.width, slide.facts.height) == ("whole", SIDE, SIDE)
    assert slide.provenance.image_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert slide.provenance.engine == "triton"
    assert slide.counts.total == len(cells) == progress[-1].cells_judged == progress[-1].cells_found
    assert slide.counts.suspected == sum(c.suspected for c in cells)
    assert progress[-1].windows_done == progress[-1].windows > 1
    assert progress[-1].bytes_received == path.stat().st_size
    assert "PHANTOM" in slide.reasons
    assert slide.requires_review
    assert not any(c.neighbours or c.registered_pixels for c in cells)
    assert slides.patching.peak_bytes() < 2**30


def test_the_most_suspicious_are_explained_on_what_was_judged(slides: SlideStack, drawn: tuple[Path, PhantomSlide]) -> None:
    _, cells, slide = parts_of(slides.diagnose("phantom.tif", explain=True))
    expected = sorted(cells, key=lambda c: (-c.blast_probability, c.cell.cell_id))[:50]
    assert [c.cell.cell_id for c in slide.explained] == [c.cell.cell_id for c in expected]
    for explained, judged in zip(slide.explained, expected, strict=True):
        assert explained.blast_probability == judged.blast_probability
        assert len(explained.neighbours) == 3
        assert explained.neighbours[0].query_map.values
        assert len(explained.registered_pixels) == 3 * explained.registered_side**2
    assert slide.latent_map


def test_by_path_the_answer_is_the_same(slides: SlideStack, drawn: tuple[Path, PhantomSlide]) -> None:
    answers = [parts_of(slides.diagnose(source, request_id="same", explained_cells=3)) for source in (drawn[0], "phantom.tif")]
    for _, _, slide in answers:
        slide.ClearField("timings")
    assert answers[0][2] == answers[1][2]
    by_id = [sorted(cells, key=lambda c: c.cell.cell_id) for _, cells, _ in answers]
    assert by_id[0] == by_id[1]
    assert len(answers[0][2].explained) == 3
    assert not answers[0][2].explained[0].registered_pixels


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [
        ("../phantom.tif", "INVALID_ARGUMENT", "SLIDE_PATH_INVALID"),
        ("/etc/passwd", "INVALID_ARGUMENT", "SLIDE_PATH_INVALID"),
        ("none.tif", "NOT_FOUND", "SLIDE_NOT_FOUND"),
    ],
)
def test_paths_that_are_refused(slides: SlideStack, path: str, code: str, reason: str) -> None:
    error = slides.error(path)
    assert (error.code, error.reason) == (code, reason)


def test_without_a_root_nothing_is_read_by_path(stack: Stack) -> None:
    with DiagnosisClient(stack["gateway"].address) as client, pytest.raises(ServiceError) as caught:
        list(client.diagnose_slide("phantom.tif", on_server=True))
    assert caught.value.reason == "SLIDES_ROOT_UNSET"


def test_damaged_slides_are_typed_errors_and_leave_nothing(slides: SlideStack, drawn: tuple[Path, PhantomSlide], tmp_path: Path) -> None:
    whole = drawn[0].read_bytes()
    cut = tmp_path / "cut.tif"
    cut.write_bytes(whole[: len(whole) // 2])
    lying = tmp_path / "lying.tif"
    lying.write_bytes(whole)
    with tifffile.TiffFile(lying, mode="r+") as file:
        tags = cast(tifffile.TiffPage, file.pages[0]).tags
        tags[322].overwrite(512)
        tags[323].overwrite(512)
    text = tmp_path / "text.tif"
    text.write_bytes(b"no slide at all")
    assert [slides.error(p).reason for p in (cut, lying, text)] == ["SLIDE_DAMAGED", "SLIDE_DAMAGED", "SLIDE_UNKNOWN_FORMAT"]
    assert slides.left_over() == []


def raw(gateway: Running, requests: Iterator[diagnosis_pb2.DiagnoseSlideRequest]) -> str:
    with gateway.channel() as channel, pytest.raises(grpc.RpcError) as caught:
        list(diagnosis_pb2_grpc.DiagnosisServiceStub(channel).DiagnoseSlide(requests, timeout=120))
    return ServiceError.from_rpc(caught.value).reason


def test_uploads_that_break_their_word(slides: SlideStack) -> None:
    chunk = diagnosis_pb2.DiagnoseSlideRequest(chunk=imaging_pb2.SlideChunk(data=bytes(1000)))
    announced = diagnosis_pb2.DiagnoseSlideRequest(start=slide_start(upload_bytes=2500))
    assert raw(slides.gateway, iter([])) == "SLIDE_START_MISSING"
    assert raw(slides.gateway, iter([chunk])) == "SLIDE_START_MISSING"
    assert raw(slides.gateway, iter([announced, chunk])) == "UPLOAD_INCOMPLETE"
    assert raw(slides.gateway, iter([announced, chunk, chunk, chunk])) == "UPLOAD_TOO_LONG"
    assert raw(slides.gateway, iter([announced, announced])) == "CHUNK_INVALID"
    assert raw(slides.gateway, iter([diagnosis_pb2.DiagnoseSlideRequest(start=diagnosis_pb2.DiagnoseSlideStart())])) == "SLIDE_SOURCE_MISSING"
    assert raw(slides.gateway, iter([diagnosis_pb2.DiagnoseSlideRequest(start=slide_start(upload_bytes=2**50))])) == "SLIDE_TOO_LARGE"
    start = slide_start(path="phantom.tif", explained_cells=51)
    assert raw(slides.gateway, iter([diagnosis_pb2.DiagnoseSlideRequest(start=start)])) == "EXPLAINED_CELLS_OUT_OF_RANGE"
    assert slides.left_over() == []


def test_cancelled_while_it_is_searched(slides: SlideStack, drawn: tuple[Path, PhantomSlide]) -> None:
    with slides.gateway.channel() as channel, drawn[0].open("rb") as file:
        start = slide_start(upload_bytes=drawn[0].stat().st_size)
        call = diagnosis_pb2_grpc.DiagnosisServiceStub(channel).DiagnoseSlide(slide_requests(start, file))
        for response in call:
            if response.WhichOneof("part") == "cells":
                assert slides.left_over()
                call.cancel()
                break
    _until_quiet(slides)


def test_a_caller_who_goes_away_in_the_middle_of_an_upload(slides: SlideStack) -> None:
    def endless() -> Iterator[diagnosis_pb2.DiagnoseSlideRequest]:
        yield diagnosis_pb2.DiagnoseSlideRequest(start=slide_start(upload_bytes=10**8))
        yield diagnosis_pb2.DiagnoseSlideRequest(chunk=imaging_pb2.SlideChunk(data=bytes(10**6)))
        eventually(lambda: len(slides.left_over()) == 1)
        call.cancel()

    channel = slides.gateway.channel()
    call = diagnosis_pb2_grpc.DiagnosisServiceStub(channel).DiagnoseSlide(endless())
    with pytest.raises(grpc.RpcError):
        list(call)
    channel.close()
    _until_quiet(slides)


def test_more_slides_than_are_read_at_once_are_refused(slides: SlideStack, drawn: tuple[Path, PhantomSlide]) -> None:
    with DiagnosisClient(slides.gateway.address) as client:
        first = client.diagnose_slide(drawn[0], timeout=300)
        next(first)
        reasons = (slides.error("phantom.tif").reason for _ in range(10))  # gRPC may lose a status that comes while it writes: grpc/grpc#36066
        assert next(r for r in reasons if r != "DEPENDENCY_UNAVAILABLE") == "SLIDES_BUSY"
        first.close()
    _until_quiet(slides)


def _is_idle(running: Running) -> bool:
    return running.metrics()("dl4all_requests_in_progress") == 0


def _until_quiet(slides: SlideStack) -> None:
    """The upload is removed, and no service works on a slide any more."""
    eventually(lambda: slides.left_over() == [], 30, "the upload is gone")
    for running in (slides.patching, slides.gateway):
        eventually(partial(_is_idle, running), 30, "nothing in progress")
