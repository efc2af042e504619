"""Slides that lie about their pixels, and uploads that never end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import grpc
import imagecodecs
import numpy as np
import pytest
import tifffile
from pydicom.uid import JPEG2000

from dl4all.diagnosis.v1 import diagnosis_pb2, diagnosis_pb2_grpc
from dl4all.imaging.v1 import imaging_pb2
from dl4all_client import DiagnosisClient, ServiceError
from dl4all_client.channel import open_channel
from services.common.phantom import PhantomOptions, smear_field
from tests.hostile.victim import MIB, GoodClient, sized
from tests.services.patching.slides.dicom_files import write_dicom

Slides = Callable[[Path], Path]


def lying_tile(path: Path) -> Path:
    """A DICOM slide of tiles of 64 px, one of which unpacks to thousands of px."""
    large = bytes(imagecodecs.jpeg2k_encode(np.full((sized(4000, 8000),) * 2 + (3,), 90, np.uint8), level=40))

    def small(tile: np.ndarray) -> bytes:
        return cast(bytes, imagecodecs.jpeg2k_encode(np.ascontiguousarray(tile)))

    return write_dicom(path, np.full((150, 230, 3), 200, np.uint8), syntax=JPEG2000, encode=small, lying=large)


def forty_gigapixels(path: Path) -> Path:
    """A TIFF of some hundred kilobytes whose tiles all lie at one offset."""
    tiles = 48_000
    tifffile.imwrite(path, np.full((512, 512, 3), 240, np.uint8), tile=(1024, 1024), compression="deflate", photometric="rgb")
    with tifffile.TiffFile(path, mode="r+") as file:
        tags = cast(tifffile.TiffPage, file.pages[0]).tags
        tags[256].overwrite(200 * 1024)
        tags[257].overwrite(240 * 1024)
        for tag in (324, 325):
            tags[tag].overwrite([tags[tag].value[0]] * tiles)
    return path


def many_strips(path: Path) -> Path:
    """A TIFF of 200,000 strips, all at one offset."""
    tifffile.imwrite(path, np.full((1, 2000, 3), 240, np.uint8), rowsperstrip=1, compression="deflate", photometric="rgb")
    with tifffile.TiffFile(path, mode="r+") as file:
        tags = cast(tifffile.TiffPage, file.pages[0]).tags
        tags[257].overwrite(200_000)
        for tag in (273, 279):
            tags[tag].overwrite([tags[tag].value[0]] * 200_000)
    return path


@pytest.mark.parametrize("make", [lying_tile, forty_gigapixels, many_strips])
def test_a_slide_that_lies_is_refused(make: Slides, attacked: str, tmp_path: Path, good: GoodClient, growth: Callable[[], int]) -> None:
    slide = make(tmp_path / "slide")

    def attack(_: int) -> ServiceError:
        with DiagnosisClient(attacked) as client, pytest.raises(ServiceError) as caught:
            list(client.diagnose_slide(slide, timeout=60.0))
        return caught.value

    with good.at_work(), ThreadPoolExecutor(2) as threads:
        refusals = list(threads.map(attack, range(4)))
        grown = growth()
    assert slide.stat().st_size < 2 * MIB
    for refusal in refusals:
        assert refusal.code in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"), refusal
        assert refusal.reason.startswith("SLIDE")
    assert grown < 200 * MIB


def test_uploads_of_a_byte_now_and_then(attacked: str, tmp_path: Path, good: GoodClient) -> None:
    slide = tmp_path / "slide.tif"
    tifffile.imwrite(slide, smear_field(3, PhantomOptions(width=480, height=360, cells=4)).image, tile=(64, 64), photometric="rgb")
    with good.at_work(), ThreadPoolExecutor(2) as threads:
        attacks = [threads.submit(_drip, attacked) for _ in range(2)]
        time.sleep(sized(3, 20))
        with DiagnosisClient(good.address) as client:
            last = list(client.diagnose_slide(slide, timeout=60.0))[-1]
        assert [attack.result() for attack in attacks] == ["UPLOAD_TOO_SLOW"] * 2
    assert last.WhichOneof("part") == "slide"


def _drip(address: str) -> str:
    Request = diagnosis_pb2.DiagnoseSlideRequest  # noqa: N806 - a class

    def messages() -> Iterator[diagnosis_pb2.DiagnoseSlideRequest]:
        yield Request(start=diagnosis_pb2.DiagnoseSlideStart(source=imaging_pb2.SlideSource(upload_bytes=10 * MIB)))
        while True:
            yield Request(chunk=imaging_pb2.SlideChunk(data=b"x"))
            time.sleep(0.3)

    with open_channel(address) as channel:
        try:
            for _ in diagnosis_pb2_grpc.DiagnosisServiceStub(channel).DiagnoseSlide(messages(), timeout=sized(15, 60)):
                pass
        except grpc.RpcError as error:
            return ServiceError.from_rpc(error).reason
    return "answered"
