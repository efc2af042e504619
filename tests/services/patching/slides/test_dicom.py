"""Slides in DICOM: files of an independent writer, whole and damaged."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from wsidicom import WsiDicom
from wsidicom.instance import WsiDicomImageData

from services.common.errors import InvalidImageError
from services.patching.slides.dicom_structure import Syntax
from services.patching.slides.opening import open_slide
from tests.properties import examples
from tests.services.patching.slides.dicom_files import write_dicom
from tests.services.patching.slides.test_rle import encode_rle

PIXELS = np.asarray(Image.fromarray(np.random.default_rng(0).integers(0, 256, (15, 23, 3), np.uint8)).resize((230, 150), Image.Resampling.BICUBIC))


def test_windows_size_and_scale(tmp_path: Path) -> None:
    slide = open_slide(write_dicom(tmp_path / "slide.dcm", PIXELS))
    assert (slide.facts.width, slide.facts.height, slide.facts.format) == (230, 150, "DICOM")
    assert slide.facts.microns_per_pixel == pytest.approx(0.25)
    difference = np.abs(slide.read(10, 20, 200, 120).astype(int) - PIXELS[20:140, 10:210])
    assert difference.mean() < 4
    slide.close()


def test_a_folder_is_one_slide(tmp_path: Path) -> None:
    write_dicom(tmp_path / "slide.dcm", PIXELS)
    (tmp_path / "readme.txt").write_text("not DICOM")
    slide = open_slide(tmp_path)
    assert slide.facts.width == 230
    slide.close()


@pytest.mark.parametrize("side", [32, 100, 3000])
def test_a_tile_that_lies_about_its_size_is_refused(tmp_path: Path, side: int) -> None:
    slide = open_slide(write_dicom(tmp_path / "slide.dcm", PIXELS, lying_side=side))
    with pytest.raises(InvalidImageError) as caught:
        slide.read(0, 0, 230, 150)
    assert caught.value.reason == "SLIDE_DAMAGED"
    slide.close()


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, share: float) -> None:
    path = write_dicom(tmp_path / "slide.dcm", PIXELS)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InvalidImageError) as caught:
        open_slide(path).read(0, 0, 230, 150)
    assert caught.value.reason == "SLIDE_DAMAGED"


def _smooth(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels)


def _jpeg2000(form: str) -> Callable[[np.ndarray], bytes]:
    return lambda tile: bytes(imagecodecs.jpeg2k_encode(_smooth(tile), codecformat=form))


ENCODERS: dict[str, tuple[Syntax, Callable[[np.ndarray], bytes]]] = {
    "implicit": (Syntax.IMPLICIT, lambda tile: tile.tobytes()),
    "explicit": (Syntax.EXPLICIT, lambda tile: tile.tobytes()),
    "JPEG lossless": (
        Syntax.JPEG_LOSSLESS_FIRST,
        lambda tile: bytes(imagecodecs.jpeg8_encode(_smooth(tile), lossless=True, colorspace="RGB", outcolorspace="RGB")),
    ),
    "JPEG-LS": (Syntax.JPEG_LS_LOSSLESS, lambda tile: bytes(imagecodecs.jpegls_encode(_smooth(tile)))),
    "JPEG 2000": (Syntax.JPEG_2000_LOSSLESS, _jpeg2000("j2k")),
    "JPEG 2000 in a file format": (Syntax.JPEG_2000, _jpeg2000("jp2")),
    "RLE": (Syntax.RLE, encode_rle),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_every_transfer_syntax_gives_the_pixels(tmp_path: Path, name: str) -> None:
    syntax, encode = ENCODERS[name]
    slide = open_slide(write_dicom(tmp_path / "slide.dcm", PIXELS, syntax=syntax, encode=encode))
    assert np.array_equal(slide.read(10, 20, 200, 120), PIXELS[20:140, 10:210])
    slide.close()


@pytest.mark.parametrize("side", [32, 65, 700])
@pytest.mark.parametrize("name", [name for name, (syntax, _) in ENCODERS.items() if not syntax.is_native])
def test_in_every_packed_transfer_syntax_a_tile_of_another_size_is_refused_before_it_is_decoded(
    tmp_path: Path, name: str, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    syntax, encode = ENCODERS[name]
    lying = encode(np.full((side, side, 3), 90, np.uint8))
    slide = open_slide(write_dicom(tmp_path / "slide.dcm", PIXELS, syntax=syntax, encode=encode, lying=lying))
    called: list[object] = []
    real = WsiDicomImageData.get_decoded_tile

    def noted(*args: Any) -> np.ndarray:
        called.append(args[1])
        return real(*args)

    monkeypatch.setattr(WsiDicomImageData, "get_decoded_tile", noted)
    with pytest.raises(InvalidImageError) as caught:
        slide.read(0, 0, 230, 150)
    assert caught.value.reason == "SLIDE_DAMAGED"
    assert len(called) <= 1, "the first tile is sound, and the second is never decoded"
    slide.close()


def test_an_unpacked_tile_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "slide.dcm", PIXELS, syntax=Syntax.EXPLICIT, encode=lambda tile: tile.tobytes())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InvalidImageError) as caught:
        open_slide(path).read(0, 0, 230, 150)
    assert caught.value.reason == "SLIDE_DAMAGED"


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.100", "9.9"])
def test_another_transfer_syntax_is_refused(tmp_path: Path, syntax: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dicom(tmp_path / "slide.dcm", PIXELS)
    content = path.read_bytes()
    known = Syntax.JPEG.encode()
    path.write_bytes(content.replace(known + b"\0" * (len(known) % 2), syntax.encode().ljust(len(known) + len(known) % 2, b"\0"), 1))
    monkeypatch.setattr(WsiDicom, "open", lambda _: pytest.fail("a parser saw it"))
    with pytest.raises(InvalidImageError) as caught:
        open_slide(path)
    assert caught.value.reason == "SLIDE_UNSUPPORTED"


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """One file for all examples: every written file has identifiers of its own."""
    return write_dicom(tmp_path_factory.mktemp("whole") / "slide.dcm", PIXELS).read_bytes()


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_a_typed_error_or_harmless(whole_file: bytes, tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "slide.dcm"
    content = bytearray(whole_file)
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(132, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(132, len(content)))])
    with suppress(InvalidImageError):
        slide = open_slide(path)
        try:
            slide.read(0, 0, min(slide.facts.width, 400), min(slide.facts.height, 400))
        finally:
            slide.close()


def test_dicom_that_is_no_slide_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.dcm"
    path.write_bytes(bytes(128) + b"DICM" + bytes(400))
    with pytest.raises(InvalidImageError) as caught:
        open_slide(path)
    assert caught.value.reason == "SLIDE_DAMAGED"
