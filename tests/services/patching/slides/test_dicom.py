"""Slides in DICOM: files of an independent writer, whole and damaged."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from wsidicom import WsiDicom
from wsidicom.instance import WsiDicomImageData

from services.common.errors import InvalidImageError
from services.patching.slides.dicom_header import Syntax
from services.patching.slides.opening import open_slide
from services.patching.slides.slide import SlideNote
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
    called: list[str] = []

    def noted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def decode(*args: Any, **options: Any) -> Any:
            called.append(name)
            return real(*args, **options)

        return decode

    for decoder in ("jpeg8_decode", "jpegls_decode", "jpeg2k_decode", "packbits_decode"):
        monkeypatch.setattr(imagecodecs, decoder, noted(decoder, getattr(imagecodecs, decoder)))
    monkeypatch.setattr(WsiDicomImageData, "get_decoded_tile", lambda *_: pytest.fail("its colours would come from the label alone"))
    with pytest.raises(InvalidImageError) as caught:
        slide.read(0, 0, 230, 150)
    assert caught.value.reason == "SLIDE_DAMAGED"
    assert len(called) == 1 or syntax is Syntax.RLE, "the first tile is sound, and the second is never decoded"
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
    monkeypatch.setattr(WsiDicom, "__init__", lambda *_: pytest.fail("a parser saw it"))
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


def _jpeg(tile: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(tile)).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def _no_transform(tile: np.ndarray) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(_smooth(tile), reversible=True, mct=False, codecformat="j2k"))


def _ycbcr(tile: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(cv2.cvtColor(_smooth(tile), cv2.COLOR_RGB2YCrCb)[..., (0, 2, 1)])


MISLABELLED: dict[str, tuple[Syntax, Callable[[np.ndarray], bytes], str]] = {
    "JFIF that is called RGB": (Syntax.JPEG, _jpeg, "RGB"),
    "JFIF of full size that is called RGB": (Syntax.JPEG, lambda tile: _jpeg(tile, subsampling=0), "RGB"),
    "JFIF": (Syntax.JPEG, _jpeg, "YBR_FULL_422"),
    "RGB of JPEG": (Syntax.JPEG, lambda tile: _jpeg(tile, keep_rgb=True), "RGB"),
    "RGB of JPEG that is called YCbCr": (Syntax.JPEG, lambda tile: _jpeg(tile, keep_rgb=True), "YBR_FULL_422"),
    "ICT without a transform": (Syntax.JPEG_2000, lambda tile: _no_transform(_ycbcr(tile)), "YBR_ICT"),
    "RCT without a transform": (Syntax.JPEG_2000, lambda tile: _no_transform(_ycbcr(tile)), "YBR_RCT"),
    "YCbCr in JPEG 2000": (Syntax.JPEG_2000, lambda tile: _no_transform(_ycbcr(tile)), "YBR_FULL_422"),
    "YCbCr of full size in JPEG 2000": (Syntax.JPEG_2000_LOSSLESS, lambda tile: _no_transform(_ycbcr(tile)), "YBR_FULL"),
    "ICT with its transform": (Syntax.JPEG_2000, _jpeg2000("j2k"), "YBR_ICT"),
    "transformed, and called YCbCr": (Syntax.JPEG_2000, _jpeg2000("j2k"), "YBR_FULL_422"),
    "transformed, and called RGB": (Syntax.JPEG_2000, _jpeg2000("jp2"), "RGB"),
    "RGB without a transform": (Syntax.JPEG_2000, _no_transform, "RGB"),
    "YCbCr unpacked": (Syntax.EXPLICIT, lambda tile: _ycbcr(tile).tobytes(), "YBR_FULL"),
    "YCbCr unpacked, in implicit form": (Syntax.IMPLICIT, lambda tile: _ycbcr(tile).tobytes(), "YBR_FULL"),
    "YCbCr in run lengths": (Syntax.RLE, lambda tile: encode_rle(_ycbcr(tile)), "YBR_FULL"),
    "YCbCr in JPEG-LS": (Syntax.JPEG_LS_LOSSLESS, lambda tile: bytes(imagecodecs.jpegls_encode(_ycbcr(tile))), "YBR_FULL"),
}


@pytest.mark.parametrize("name", MISLABELLED)
def test_colours_are_those_of_the_stream_whatever_its_label(tmp_path: Path, name: str) -> None:
    syntax, encode, label = MISLABELLED[name]
    slide = open_slide(write_dicom(tmp_path / "slide.dcm", PIXELS, syntax=syntax, encode=encode, PhotometricInterpretation=label))
    assert np.abs(slide.read(0, 0, 230, 150).astype(int) - PIXELS).mean() < 4
    slide.close()


@pytest.mark.parametrize(
    ("facts", "reason", "words"),
    [
        ({"PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 1}, "SLIDE_NOT_RGB", "MONOCHROME2"),
        ({"PhotometricInterpretation": "PALETTE COLOR", "SamplesPerPixel": 1}, "SLIDE_NOT_RGB", "PALETTE"),
        ({"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}, "SLIDE_NOT_RGB", "12 bit in 16"),
        ({"PixelRepresentation": 1}, "SLIDE_NOT_RGB", "signed"),
        ({"PlanarConfiguration": 1}, "SLIDE_UNSUPPORTED", "separate planes"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]}, "SLIDE_UNSUPPORTED", "the label of a slide"),
        ({"ImageType": ["ORIGINAL", "PRIMARY"]}, "SLIDE_UNSUPPORTED", "no volume"),
    ],
    ids=str,
)
def test_a_whole_file_that_is_not_read_is_called_what_it_is(tmp_path: Path, facts: dict[str, Any], reason: str, words: str) -> None:
    path = write_dicom(tmp_path / "slide.dcm", PIXELS, syntax=Syntax.EXPLICIT, encode=lambda tile: tile.tobytes(), **facts)
    with pytest.raises(InvalidImageError) as caught:
        open_slide(path)
    assert caught.value.reason == reason
    assert words in caught.value.message
    assert "damaged" not in caught.value.message


@pytest.mark.parametrize("name", ["RLE", "JPEG 2000", "JPEG-LS"])
def test_planes_that_a_packed_stream_has_anyway_change_nothing(tmp_path: Path, name: str) -> None:
    syntax, encode = ENCODERS[name]
    slide = open_slide(write_dicom(tmp_path / "slide.dcm", PIXELS, syntax=syntax, encode=encode, PlanarConfiguration=1))
    assert np.array_equal(slide.read(0, 0, 230, 150), PIXELS)
    slide.close()


def test_a_resolution_that_is_not_read_is_not_replaced_by_a_smaller_one(tmp_path: Path) -> None:
    same: dict[str, Any] = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4", "FrameOfReferenceUID": "1.2.5"}
    write_dicom(tmp_path / "full.dcm", PIXELS, syntax=Syntax.EXPLICIT, encode=lambda tile: tile.tobytes(), PlanarConfiguration=1, **same)
    write_dicom(tmp_path / "half.dcm", np.ascontiguousarray(PIXELS[::2, ::2]), **same)
    with pytest.raises(InvalidImageError) as caught:
        open_slide(tmp_path)
    assert caught.value.reason == "SLIDE_UNSUPPORTED"


def test_a_missing_tile_of_a_sparse_slide_is_blank_and_noted(tmp_path: Path) -> None:
    slide = open_slide(write_dicom(tmp_path / "slide.dcm", PIXELS, kept=range(1, 12)))
    assert slide.facts.notes == (SlideNote.SPARSE_TILES,)
    assert (slide.read(0, 0, 64, 64) == 255).all()
    assert np.abs(slide.read(64, 64, 100, 60).astype(int) - PIXELS[64:124, 64:164]).mean() < 4
    slide.close()
    assert open_slide(write_dicom(tmp_path / "slide.dcm", PIXELS, kept=range(12))).facts.notes == ()


def test_dicom_that_is_no_slide_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.dcm"
    path.write_bytes(bytes(128) + b"DICM" + bytes(400))
    with pytest.raises(InvalidImageError) as caught:
        open_slide(path)
    assert caught.value.reason == "SLIDE_DAMAGED"
