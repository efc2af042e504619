"""Slides in TIFF files, written by an independent writer, whole and damaged."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from services.common.errors import InvalidImageError
from services.patching.slides.opening import open_slide
from services.patching.slides.segments import Compression, SegmentForm, decode_segment, jpeg2000_size, jpeg_size
from services.patching.slides.slide import (
    FREE_PIXELS,
    MAX_READ_FACTOR,
    PIXELS_A_BYTE,
    Slide,
    SlideFacts,
    SlideNote,
    check_density,
    check_sizes,
)
from services.patching.slides.tiff_structure import check_directories
from tests.properties import examples

PIXELS = np.random.default_rng(0).integers(0, 256, (150, 230, 3), np.uint8)
SMOOTH = np.asarray(Image.fromarray(PIXELS[:15, :23]).resize((230, 150), Image.Resampling.BICUBIC))


def _whole() -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(PIXELS, tile=(64, 64), photometric="rgb", subifds=1)
        writer.write(np.ascontiguousarray(PIXELS[::2, ::2]), tile=(64, 64), photometric="rgb", subfiletype=1)
    return file.getvalue()


WHOLE = _whole()[:2000]


def write(path: Path, pixels: np.ndarray = PIXELS, **options: Any) -> Path:
    options.setdefault("photometric", "rgb")
    tifffile.imwrite(path, pixels, **options)
    return path


def reason_of(path: Path) -> str:
    with pytest.raises(InvalidImageError) as caught:
        read_whole(path)
    return caught.value.reason


def read_whole(path: Path) -> None:
    slide = open_slide(path)
    try:
        slide.read(0, 0, min(slide.facts.width, 400), min(slide.facts.height, 400))
    finally:
        slide.close()


@pytest.mark.parametrize("layout", [{"tile": (64, 48)}, {"rowsperstrip": 16}, {"rowsperstrip": 150}], ids=["tiles", "strips", "one strip"])
@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "packbits"])
@pytest.mark.parametrize("big", [False, True], ids=["classic", "big"])
def test_windows_are_the_pixels(tmp_path: Path, layout: dict, compression: str | None, big: bool) -> None:
    slide = open_slide(write(tmp_path / "slide.tif", compression=compression, bigtiff=big, **layout))
    assert (slide.facts.width, slide.facts.height) == (230, 150)
    for x, y, width, height in [(0, 0, 230, 150), (47, 63, 2, 2), (100, 20, 130, 130), (229, 149, 1, 1)]:
        assert np.array_equal(slide.read(x, y, width, height), PIXELS[y : y + height, x : x + width])


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("predictor", [False, True])
def test_sixteen_bit_is_scaled_in_either_byte_order(tmp_path: Path, big_endian: bool, predictor: bool) -> None:
    deep = PIXELS.astype(np.uint16) * 257
    path = write(tmp_path / "slide.tif", deep, tile=(64, 64), compression="lzw", predictor=predictor, byteorder=">" if big_endian else "<")
    slide = open_slide(path)
    assert np.array_equal(slide.read(0, 0, 230, 150), PIXELS)
    assert slide.facts.notes == (SlideNote.SCALED_FROM_16_BIT,)


@pytest.mark.parametrize(("compression", "mean", "largest"), [("jpeg", 3, 60), ("jpeg2000", 0, 0), ("aperio_jp2000_rgb", 0, 0)])
def test_photographic_compression(tmp_path: Path, compression: str, mean: float, largest: int) -> None:
    slide = open_slide(write(tmp_path / "slide.tif", SMOOTH, tile=(64, 64), compression=compression))
    difference = np.abs(slide.read(0, 0, 230, 150).astype(int) - SMOOTH)
    assert difference.mean() <= mean
    assert difference.max() <= largest


def _ycbcr(rgb: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2YCrCb)[..., (0, 2, 1)])


def _tiles(encode: Callable[[np.ndarray], bytes], pixels: np.ndarray = SMOOTH) -> Iterator[bytes]:
    padded = np.pad(pixels, ((0, -pixels.shape[0] % 64), (0, -pixels.shape[1] % 64), (0, 0)), mode="edge")
    for y in range(0, padded.shape[0], 64):
        for x in range(0, padded.shape[1], 64):
            yield encode(np.ascontiguousarray(padded[y : y + 64, x : x + 64]))


def write_tiles(path: Path, encode: Callable[[np.ndarray], bytes], compression: int, photometric: str) -> Path:
    """A TIFF whose tiles another encoder has made."""
    with tifffile.TiffWriter(path) as file:
        file.write(_tiles(encode), shape=SMOOTH.shape, dtype=np.uint8, tile=(64, 64), photometric=photometric, compression=compression)
    return path


def _without_transform(tile: np.ndarray) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(tile, reversible=True, mct=False, codecformat="j2k"))


def _jpeg(tile: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(tile).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("encode", "compression", "photometric"),
    [
        (_jpeg, 7, "rgb"),
        (lambda tile: _jpeg(tile, subsampling=0), 7, "rgb"),
        (lambda tile: _jpeg(tile, keep_rgb=True), 7, "rgb"),
        (lambda tile: _jpeg(tile, keep_rgb=True), 7, "ycbcr"),
        (_jpeg, 7, "ycbcr"),
        (lambda tile: _without_transform(_ycbcr(tile)), 33003, "rgb"),
        (lambda tile: _without_transform(_ycbcr(tile)), 34712, "ycbcr"),
        (_without_transform, 33005, "rgb"),
        (lambda tile: bytes(imagecodecs.jpeg2k_encode(tile, reversible=True, codecformat="j2k")), 34712, "ycbcr"),
    ],
    ids=["JFIF", "JFIF of full size", "Adobe RGB", "Adobe RGB called YCbCr", "YCbCr", "Aperio YCbCr", "JPEG 2000 YCbCr", "Aperio RGB", "transformed"],
)
def test_colours_are_those_of_the_stream(tmp_path: Path, encode: Callable[[np.ndarray], bytes], compression: int, photometric: str) -> None:
    slide = open_slide(write_tiles(tmp_path / "slide.tif", encode, compression, photometric))
    assert np.abs(slide.read(0, 0, 230, 150).astype(int) - SMOOTH).mean() < 4
    slide.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"compression": "webp"}, "WebP, 50001"),
        ({"compression": "jpegxl"}, "JPEG XL, 50002"),
        ({"compression": "zstd"}, "Zstandard, 50000"),
        ({"compression": "lerc"}, "LERC, 34887"),
        ({"compression": "png"}, "PNG, 34933"),
    ],
    ids=str,
)
def test_a_compression_that_is_not_read_is_called_by_its_name(tmp_path: Path, options: dict, words: str) -> None:
    with pytest.raises(InvalidImageError) as caught:
        open_slide(write(tmp_path / "slide.tif", SMOOTH, tile=(64, 64), **options))
    assert caught.value.reason == "SLIDE_UNSUPPORTED"
    assert words in caught.value.message


def test_numbers_that_are_not_read_are_called_what_they_are(tmp_path: Path) -> None:
    for pixels, words in ((SMOOTH / np.float32(255), "floating-point numbers of 32 bit"), (SMOOTH.astype(np.int16), "signed numbers of 16 bit")):
        with pytest.raises(InvalidImageError) as caught:
            open_slide(write(tmp_path / "slide.tif", pixels, tile=(64, 64)))
        assert caught.value.reason == "SLIDE_UNSUPPORTED"
        assert words in caught.value.message


def test_jpeg_strips_of_another_writer_with_shared_tables(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    Image.fromarray(SMOOTH).save(path, compression="jpeg", quality=90)
    with Image.open(path) as expected:
        assert np.array_equal(open_slide(path).read(0, 0, 230, 150), np.asarray(expected.convert("RGB")))


def test_the_full_resolution_of_a_pyramid_is_read_and_its_scale(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(PIXELS, tile=(64, 64), photometric="rgb", subifds=1, resolution=(40000, 40000), resolutionunit="CENTIMETER")
        file.write(np.ascontiguousarray(PIXELS[::2, ::2]), tile=(64, 64), photometric="rgb", subfiletype=1)
    slide = open_slide(path)
    assert slide.facts.levels == 2
    assert slide.facts.microns_per_pixel == pytest.approx(0.25)
    assert np.array_equal(slide.read(0, 0, 230, 150), PIXELS)


def test_svs_with_its_label_and_scale(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    with tifffile.TiffWriter(path) as file:
        file.write(
            PIXELS,
            tile=(64, 64),
            photometric="rgb",
            compression="lzw",
            metadata=None,
            description="Aperio Image Library v10\n|AppMag = 40|MPP = 0.2527",
        )
        file.write(np.ascontiguousarray(PIXELS[:50, :50]), photometric="rgb", metadata=None, description="Aperio label")
    facts = open_slide(path).facts
    assert (facts.format, facts.levels) == ("SVS", 1)
    assert facts.microns_per_pixel == pytest.approx(0.2527)


def test_a_label_that_comes_first_is_not_the_slide(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(np.ascontiguousarray(PIXELS[:60, :60]), photometric="rgb", metadata=None)
        file.write(PIXELS, tile=(64, 64), photometric="rgb", metadata=None)
    slide = open_slide(path)
    assert np.array_equal(slide.read(0, 0, 230, 150), PIXELS)
    slide.close()


def test_two_pictures_of_one_size_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as file:
        for pixels in (PIXELS, SMOOTH):
            file.write(pixels, tile=(64, 64), photometric="rgb", metadata=None)
    assert reason_of(path) == "SLIDE_SEVERAL"


def test_two_regions_of_a_leica_file_are_refused_and_its_overview_is_not_the_slide(tmp_path: Path) -> None:
    for regions, expected in (((PIXELS,), "none"), ((PIXELS, np.ascontiguousarray(PIXELS[:90])), "SLIDE_SEVERAL")):
        path = tmp_path / "slide.scn"
        with tifffile.TiffWriter(path, bigtiff=True) as file:
            file.write(np.ascontiguousarray(SMOOTH[:60, :20]), tile=(64, 64), photometric="rgb", metadata=None, description="<scn></scn>")
            for pixels in regions:
                file.write(pixels, tile=(64, 64), photometric="rgb", metadata=None)
                file.write(np.ascontiguousarray(pixels[::2, ::2]), tile=(64, 64), photometric="rgb", metadata=None)
        if expected == "none":
            assert open_slide(path).facts.width == 230
        else:
            assert reason_of(path) == expected


def test_tiles_that_overlap_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "slide.tif", tile=(64, 64), metadata=None, software="ScanOutputManager 1.1", extratags=[(700, 1, 8, b"<iScan/>", True)])
    with pytest.raises(InvalidImageError, match="Ventana") as caught:
        open_slide(path)
    assert caught.value.reason == "SLIDE_UNSUPPORTED"


@pytest.mark.parametrize("resolution", [(72, 72), (0, 0), (1, 1)])
def test_a_resolution_that_no_microscope_has_is_no_scale(tmp_path: Path, resolution: tuple[int, int]) -> None:
    assert open_slide(write(tmp_path / "slide.tif", resolution=resolution, resolutionunit="INCH")).facts.microns_per_pixel is None


def test_a_missing_tile_is_blank_and_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "slide.tif", tile=(64, 64))
    _patch_tag(path, 325, 1, 0)
    slide = open_slide(path)
    assert SlideNote.SPARSE_TILES in slide.facts.notes
    assert (slide.read(64, 0, 64, 64) == 255).all()


@pytest.mark.parametrize(
    ("pixels", "options", "reason"),
    [
        (PIXELS[..., 0], {"photometric": "minisblack"}, "SLIDE_NOT_RGB"),
        (PIXELS.astype(np.float32), {}, "SLIDE_UNSUPPORTED"),
        (np.moveaxis(PIXELS, 2, 0), {"planarconfig": "separate"}, "SLIDE_UNSUPPORTED"),
        (PIXELS, {"compression": "zstd"}, "SLIDE_UNSUPPORTED"),
        (PIXELS[:20], {}, "SLIDE_TOO_SMALL"),
        (np.dstack([PIXELS, PIXELS[..., 0]]), {"extrasamples": ["unassalpha"]}, "IMAGE_TRANSPARENT"),
        (np.zeros((5000, 5000, 3), np.uint8), {"compression": "deflate", "rowsperstrip": 5000}, "SLIDE_NOT_TILED"),
    ],
)
def test_refused_with_a_reason(tmp_path: Path, pixels: np.ndarray, options: dict, reason: str) -> None:
    assert reason_of(write(tmp_path / "slide.tif", pixels, **options)) == reason


@pytest.mark.parametrize("content", [b"", b"II*\0", b"II*\0\x08\0\0\0", b"GIF89a" + bytes(300), bytes(1000)])
def test_what_is_no_slide(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    assert reason_of(tmp_path / "x") in {"IMAGE_EMPTY", "SLIDE_DAMAGED", "SLIDE_UNKNOWN_FORMAT"}


def test_what_cannot_be_opened_is_a_typed_error(tmp_path: Path) -> None:
    assert reason_of(tmp_path / "missing.tif") == "SLIDE_UNREADABLE"


def test_a_chain_of_directories_that_loops_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "slide.tif")
    data = bytearray(path.read_bytes())
    (first,) = struct.unpack("<I", data[4:8])
    (tags,) = struct.unpack("<H", data[first : first + 2])
    struct.pack_into("<I", data, first + 2 + 12 * tags, first)
    path.write_bytes(data)
    assert reason_of(path) == "SLIDE_DAMAGED"


def test_a_pyramid_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(PIXELS, tile=(64, 64), photometric="rgb")
        file.write(np.ascontiguousarray(PIXELS[::2, ::2]), tile=(64, 64), photometric="rgb", subfiletype=1)
    whole = path.read_bytes()
    for share in (0.3, 0.6, 0.75, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        assert reason_of(path) == "SLIDE_DAMAGED"


@pytest.mark.parametrize("tag", [256, 257, 322, 323], ids=["width", "height", "tile width", "tile height"])
def test_a_size_of_zero_is_refused(tmp_path: Path, tag: int) -> None:
    path = write(tmp_path / "slide.tif", tile=(64, 64))
    _patch_tag(path, tag, 0, 0)
    assert reason_of(path) in {"SLIDE_TOO_SMALL", "SLIDE_DAMAGED"}


def test_a_level_of_zero_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(PIXELS, tile=(64, 64), photometric="rgb")
        file.write(np.ascontiguousarray(PIXELS[::2, ::2]), tile=(64, 64), photometric="rgb", subfiletype=1)
    _patch_tag(path, 256, 0, 0, page=1)
    assert reason_of(path) == "SLIDE_DAMAGED"


@pytest.mark.parametrize("side", [16, 63, 65, 4096])
def test_a_jpeg_tile_that_lies_about_its_size_is_never_decoded(tmp_path: Path, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "slide.tif", np.zeros((128, 128, 3), np.uint8) + 90, tile=(64, 64), compression="jpeg")
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (90, 90, 90)).save(buffer, "JPEG")
    _replace_tile(path, 1, buffer.getvalue())
    monkeypatch.setattr(imagecodecs, "jpeg_decode", _never_of(64, imagecodecs.jpeg_decode))
    assert reason_of(path) == "SLIDE_DAMAGED"


def _never_of(side: int, decode: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """A decoder that fails the test where another size is requested."""

    def checked(data: bytes, **options: object) -> np.ndarray:
        pixels = decode(data, **options)
        if pixels.shape[:2] != (side, side):
            pytest.fail(f"{pixels.shape} was decoded")
        return pixels

    return checked


def _sof(side: int) -> bytes:
    return b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, side, side, 3) + bytes(9)


@pytest.mark.parametrize("marker", [0x01, 0x00, 0xD0, 0xD7, 0xD8, 0xD9])
def test_a_size_hidden_behind_a_marker_without_length_is_refused(marker: int) -> None:
    """A reader that takes a length there loses step with the decoder, which reads the other size."""
    head = bytes([0xFF, marker]) + struct.pack(">H", 2 + len(_sof(64)))
    with pytest.raises(InvalidImageError):
        jpeg_size(b"\xff\xd8" + head + _sof(64) + _sof(3000))
    assert jpeg_size(b"\xff\xd8" + b"\xff\xfe" + struct.pack(">H", 2 + len(_sof(64))) + _sof(64) + _sof(3000)) == (3000, 3000), (
        "a comment has a length"
    )


def test_a_size_hidden_in_another_box_of_jpeg_2000_is_refused(tmp_path: Path) -> None:
    large, small = (cast(bytes, imagecodecs.jpeg2k_encode(np.zeros((side, side, 3), np.uint8), codecformat="jp2")) for side in (200, 64))
    assert (jpeg2000_size(large), jpeg2000_size(small)) == ((200, 200), (64, 64))
    signature, rest = large[:12], large[12:]
    lying = small[small.find(b"\xff\x4f\xff\x51") :]
    hidden = signature + struct.pack(">I4s", 8 + len(lying), b"free") + lying + rest
    assert jpeg2000_size(hidden) == (200, 200)
    with pytest.raises(InvalidImageError):
        jpeg2000_size(b"\0" * 100 + lying)


def test_a_tile_with_more_bytes_than_its_pixels_could_take_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "slide.tif", tile=(64, 64), compression="lzw")
    _replace_tile(path, 0, bytes(2 * 3 * 64 * 64 + 1024 * 1024 + 1))
    assert reason_of(path) == "SLIDE_DAMAGED"


@pytest.mark.parametrize(("tag", "count"), [(324, 4_000_001), (325, 2**31), (330, 65)])
def test_tables_that_would_fill_the_memory_are_refused_before_they_are_read(tag: int, count: int) -> None:
    directory = struct.pack("<HHHIII", 1, tag, 4, count, 0, 0)
    with pytest.raises(InvalidImageError):
        check_directories(io.BytesIO(b"II*\0" + struct.pack("<I", 8) + directory))


@pytest.mark.parametrize("tag", [258, 338, 339])
def test_a_number_for_every_sample_of_a_million_samples_is_refused(tag: int) -> None:
    with pytest.raises(InvalidImageError):
        check_directories(io.BytesIO(b"II*\0" + struct.pack("<IHHHIII", 8, 1, tag, 3, 1_000_000, 0, 0)))


@pytest.mark.parametrize("big", [False, True])
def test_directories_below_others_are_walked_too(tmp_path: Path, big: bool) -> None:
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path, bigtiff=big) as file:
        file.write(PIXELS, tile=(64, 64), photometric="rgb", subifds=2)
        for step in (2, 4):
            file.write(np.ascontiguousarray(PIXELS[::step, ::step]), tile=(64, 64), photometric="rgb", subfiletype=1)
    with path.open("rb") as file:
        assert check_directories(file) == 1
    slide = open_slide(path)
    assert slide.facts.levels == 3
    slide.close()
    with tifffile.TiffFile(path) as parsed:
        pages = parsed.pages.first.pages
        assert pages is not None
        below = [p.offset for p in pages]
    content = bytearray(path.read_bytes())
    entries, head = ("<Q", "<HHQ") if big else ("<H", "<HHI")
    entry = 20 if big else 12
    start = below[1] + struct.calcsize(entries)
    (count,) = struct.unpack_from(entries, content, below[1])
    (at,) = [start + i * entry for i in range(count) if struct.unpack_from("<H", content, start + i * entry)[0] == 324]
    struct.pack_into(head, content, at, 324, 4, 4_000_001)
    with pytest.raises(InvalidImageError, match="more tiles than a slide has"):
        check_directories(io.BytesIO(content))


def test_tables_of_all_directories_count_together() -> None:
    chain, at = b"", 8
    for left in (True, False):
        chain += struct.pack("<HHHIII", 1, 324, 4, 2_500_000, 0, at + 18 if left else 0)
        at += 18
    with pytest.raises(InvalidImageError):
        check_directories(io.BytesIO(b"II*\0" + struct.pack("<I", 8) + chain))


TILE_BYTES = 3 * 64 * 64
WRONG_SIZES = [(c, size) for c in ("lzw", "deflate", "packbits", None) for size in (10, TILE_BYTES - 1)]
WRONG_SIZES += [(c, TILE_BYTES + 1) for c in ("deflate", "packbits", None)]  # LZW is decoded up to the size of the tile and no further
WRONG_SIZES += [("deflate", 50_000_000)]


@pytest.mark.parametrize(("compression", "size"), WRONG_SIZES)
def test_a_tile_that_unpacks_to_another_size_is_refused(tmp_path: Path, compression: str | None, size: int) -> None:
    encoders: dict[str | None, Callable[[bytes], bytes | bytearray]] = {
        "lzw": imagecodecs.lzw_encode,
        "deflate": imagecodecs.zlib_encode,
        "packbits": imagecodecs.packbits_encode,
        None: bytes,
    }
    path = write(tmp_path / "slide.tif", np.zeros((128, 128, 3), np.uint8) + 90, tile=(64, 64), compression=compression)
    _replace_tile(path, 1, bytes(encoders[compression](bytes(size))))
    assert reason_of(path) == "SLIDE_DAMAGED"


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_a_typed_error_or_harmless(tmp_path: Path, data: st.DataObject) -> None:
    path = write(tmp_path / "slide.tif", tile=(64, 64), compression="lzw")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with suppress(InvalidImageError):
        read_whole(path)


def _share(path: Path, count: int, width: int, height: int) -> None:
    """Let the first ``count`` tiles be the first, and the slide claim another size."""
    with tifffile.TiffFile(path, mode="r+") as file:
        tags = cast(tifffile.TiffPage, file.pages[0]).tags
        for tag in (324, 325):
            values = list(tags[tag].value)
            tags[tag].overwrite([values[0]] * count + values[count:])
        tags[256].overwrite(width)
        tags[257].overwrite(height)


@pytest.mark.parametrize("compression", [None, "lzw", "jpeg"])
def test_writers_may_share_a_blank_tile_and_no_other(tmp_path: Path, compression: str | None) -> None:
    blank = np.full((128, 256, 3), 240, np.uint8)
    path = write(tmp_path / "blank.tif", blank, tile=(64, 64), compression=compression)
    _share(path, 8, 256, 128)
    assert np.abs(open_slide(path).read(0, 0, 256, 128).astype(int) - blank).max() <= 2
    blank[:40, :40] = 90
    path = write(tmp_path / "cells.tif", blank, tile=(64, 64), compression=compression)
    _share(path, 8, 256, 128)
    assert reason_of(path) == "SLIDE_DAMAGED"


def test_tiles_that_overlap_in_part_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "slide.tif", tile=(64, 64))
    with tifffile.TiffFile(path) as file:
        first = cast(tifffile.TiffPage, file.pages[0]).dataoffsets[0]
    _patch_tag(path, 324, 1, first + 1)
    assert reason_of(path) == "SLIDE_DAMAGED"


def test_a_slide_of_far_more_pixels_than_its_bytes_can_hold_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "slide.tif", np.full((1024, 1024, 3), 240, np.uint8), tile=(64, 64), compression="deflate")
    stored = path.stat().st_size
    most = FREE_PIXELS + PIXELS_A_BYTE * stored
    facts = open_slide(path).facts
    check_density(replace(facts, width=most, height=1), stored)
    with pytest.raises(InvalidImageError) as caught:
        check_density(replace(facts, width=most + 1, height=1), stored)
    assert caught.value.reason == "SLIDE_TOO_LARGE"
    monster = write(tmp_path / "monster.tif", np.full((32, 32, 3), 240, np.uint8), tile=(4096, 4096), compression="deflate")
    _patch_tag(monster, 256, 0, 200_000)
    _patch_tag(monster, 257, 0, 4096)
    with tifffile.TiffFile(monster, mode="r+") as file:
        tags = cast(tifffile.TiffPage, file.pages[0]).tags
        for tag in (324, 325):
            tags[tag].overwrite([tags[tag].value[0]] * 49)
    assert FREE_PIXELS + PIXELS_A_BYTE * monster.stat().st_size < 200_000 * 4096
    assert reason_of(monster) == "SLIDE_TOO_LARGE"


def test_a_slide_in_more_strips_than_any_is_tall_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "slide.tif", compression="lzw", rowsperstrip=1)
    monkeypatch.setattr("services.patching.slides.tiff.MAX_STRIPS", 149)
    assert reason_of(path) == "SLIDE_NOT_TILED"
    monkeypatch.setattr("services.patching.slides.tiff.MAX_STRIPS", 150)
    read_whole(path)


class Strips:
    """A source in long strips that counts how often it decodes."""

    def __init__(self, width: int, height: int) -> None:
        self.facts = SlideFacts(width, height, width, 1, "TIFF", 1, None, ())
        self.decoded = 0

    def tile(self, row: int, column: int) -> np.ndarray:
        self.decoded += 1
        return np.zeros((1, self.facts.width, 3), np.uint8)

    def close(self) -> None:
        """Nothing is open."""


def test_a_slide_is_not_decoded_over_and_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.patching.slides.slide.FREE_READ_PIXELS", 0)
    source = Strips(10_000, 64)
    slide = Slide(source, cache_bytes=10_000)
    with pytest.raises(InvalidImageError) as caught:
        [slide.read(x, 0, 1, 64) for x in range(10_000)]
    assert caught.value.reason == "SLIDE_NOT_TILED"
    assert source.decoded <= MAX_READ_FACTOR * 64


def test_the_memory_of_many_small_tiles_is_counted() -> None:
    slide = Slide(Strips(32, 4096), cache_bytes=100_000)
    slide.read(0, 0, 32, 4096)
    assert len(slide._cache) * 600 <= 110_000


def test_many_tiny_tiles_are_refused() -> None:
    check_sizes(SlideFacts(256, 256, 1, 1, "TIFF", 1, None, ()))
    with pytest.raises(InvalidImageError):
        check_sizes(SlideFacts(257, 256, 1, 1, "TIFF", 1, None, ()))


def test_tables_of_jpeg_that_hold_a_frame_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagecodecs, "jpeg_decode", lambda *_, **__: pytest.fail("a decoder saw it"))
    path = tmp_path / "slide.tif"
    Image.fromarray(SMOOTH).save(path, compression="jpeg", quality=90)
    with tifffile.TiffFile(path) as file:
        tag = cast(tifffile.TiffPage, file.pages[0]).tags[347]
        tables = bytes(tag.value)
    content = path.read_bytes()
    path.write_bytes(content.replace(tables, tables[:2] + b"\xff\xc0" + tables[4:], 1))
    assert reason_of(path) == "SLIDE_DAMAGED"


@pytest.mark.parametrize(("tag", "kind", "count"), [(256, 4, 300_000), (270, 2, 17_000_000), (320, 3, 300_000), (33628, 4, 300_000)])
def test_values_that_would_fill_the_memory_are_refused_before_they_are_read(tag: int, kind: int, count: int) -> None:
    with pytest.raises(InvalidImageError):
        check_directories(io.BytesIO(b"II*\0" + struct.pack("<IHHHIII", 8, 1, tag, kind, count, 0, 0)))


def test_tags_of_all_directories_count_together() -> None:
    chain, at = b"", 8
    for number in range(20):
        at += 2 + 4096 * 12 + 4
        chain += struct.pack("<H", 4096) + struct.pack("<HHII", 65000, 3, 1, 0) * 4096 + struct.pack("<I", at if number < 19 else 0)
    with pytest.raises(InvalidImageError, match="hold more"):
        check_directories(io.BytesIO(b"II*\0" + struct.pack("<I", 8) + chain))


@settings(max_examples=examples(300), deadline=None)
@given(data=st.data())
def test_check_directories_on_damage_raises_typed_errors_only(data: st.DataObject) -> None:
    content = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(InvalidImageError):
        check_directories(io.BytesIO(content[: data.draw(st.integers(0, len(content)))]))


@settings(max_examples=examples(300), deadline=None)
@given(content=st.binary(max_size=400), compression=st.sampled_from(Compression), samples=st.sampled_from([3, 4]), bits=st.sampled_from([8, 16]))
def test_decode_segment_gives_the_size_or_a_typed_error(content: bytes, compression: Compression, samples: int, bits: int) -> None:
    with suppress(InvalidImageError):
        assert decode_segment(content, 8, 4, SegmentForm(compression, samples, bits, 1, "<")).shape == (4, 8, 3)


def _patch_tag(path: Path, tag: int, index: int, value: int, page: int = 0) -> None:
    with tifffile.TiffFile(path, mode="r+") as file:
        found = cast(tifffile.TiffPage, file.pages[page]).tags[tag]
        if found.count == 1:
            found.overwrite(value)
        else:
            values = list(found.value)
            values[index] = value
            found.overwrite(values)


def _replace_tile(path: Path, index: int, encoded: bytes) -> None:
    end = path.stat().st_size
    with path.open("ab") as file:
        file.write(encoded)
    _patch_tag(path, 324, index, end)
    _patch_tag(path, 325, index, len(encoded))
