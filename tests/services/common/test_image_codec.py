"""Tests of the image codec: accepted images, and refusals with their reasons."""

from __future__ import annotations

import hashlib
import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from services.common.errors import InvalidImageError
from services.common.image_codec import MAX_ASPECT, MAX_PIXELS, DecodedImage, ImageNote, decode_image, phantom_truth, read_header
from services.common.image_pixels import MAX_SCANS
from services.common.phantom import PhantomOptions, encode_png, smear_field
from tests.properties import examples

Bytes = NDArray[np.uint8]


def _scene(height: int = 48, width: int = 64) -> Bytes:
    """A smooth colour scene that survives JPEG: channels differ everywhere."""
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [200 - rows, 60 + columns, 120 + (rows + columns) // 4]
    return np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8)


def _encode(image: Image.Image | Bytes, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, form, **options)
    return buffer.getvalue()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png_header(width: int, height: int, colour_type: int = 2) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(b"\0" * 64)) + _chunk(b"IEND", b"")


def _reason(encoded: bytes) -> str:
    with pytest.raises(InvalidImageError) as caught:
        decode_image(encoded)
    assert caught.value.field == "image"
    assert caught.value.message.endswith(".")
    return caught.value.reason


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP"])
def test_lossless_formats_are_decoded_exactly(form: str) -> None:
    scene = _scene()
    encoded = _encode(scene, form)
    decoded = decode_image(encoded)
    assert decoded.format == form
    assert decoded.sha256 == hashlib.sha256(encoded).hexdigest()
    assert decoded.notes == ()
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.flags.c_contiguous
    np.testing.assert_array_equal(decoded.pixels, scene)


def test_jpeg_is_decoded_in_rgb_order() -> None:
    scene = _scene()
    decoded = decode_image(_encode(scene, "JPEG", quality=95, subsampling=0))
    assert decoded.format == "JPEG"
    assert np.abs(decoded.pixels.astype(int) - scene).max() <= 8


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits", "jpeg"])
def test_compressed_tiff_is_read(compression: str) -> None:
    decoded = decode_image(_encode(_scene(), "TIFF", compression=compression))
    assert np.abs(decoded.pixels.astype(int) - _scene()).max() <= 16


def test_an_image_without_bytes_is_refused() -> None:
    assert _reason(b"") == "IMAGE_EMPTY"


@pytest.mark.parametrize(
    "encoded",
    [
        b"This is a letter, not an image.",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"II*\0",
        b"BM",
        _encode(_scene(), "GIF"),
        _encode(_scene(), "WEBP"),
        b"%PDF-1.7\n" + b"0" * 500,
        b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"/>',
    ],
    ids=["text", "png signature", "jpeg signature", "tiff signature", "bmp signature", "gif", "webp", "pdf", "svg"],
)
def test_what_is_not_one_of_the_four_formats_is_refused(encoded: bytes) -> None:
    assert _reason(encoded) == "IMAGE_UNKNOWN_FORMAT"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("kept", [0.6, 0.9])
def test_a_truncated_image_is_refused(form: str, kept: float) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (96, 96, 3), np.uint8)
    encoded = _encode(noise, form)
    assert _reason(encoded[: int(kept * len(encoded))]) == "IMAGE_TRUNCATED"


def test_a_tiff_whose_pixels_end_early_is_refused() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (96, 96, 3), np.uint8)
    encoded = bytearray(_encode(noise, "TIFF"))
    (directory,) = struct.unpack_from("<I", encoded, 4)
    (count,) = struct.unpack_from("<H", encoded, directory)
    entries = {struct.unpack_from("<H", encoded, directory + 2 + 12 * i)[0]: directory + 2 + 12 * i for i in range(count)}
    strip_offsets = 273
    struct.pack_into("<I", encoded, entries[strip_offsets] + 8, len(encoded) - 100)
    assert _reason(bytes(encoded)) == "IMAGE_TRUNCATED"


def test_a_damaged_png_is_refused() -> None:
    encoded = bytearray(_encode(_scene(), "PNG"))
    middle = encoded.index(b"IDAT") + 40
    encoded[middle : middle + 8] = bytes(b ^ 0xFF for b in encoded[middle : middle + 8])
    assert _reason(bytes(encoded)) == "IMAGE_TRUNCATED"


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (MAX_PIXELS // 32 + 1, 32), (2**31 - 1, 2**31 - 1)])
def test_an_image_bomb_is_refused_on_its_header(width: int, height: int) -> None:
    bomb = _png_header(width, height)
    tracemalloc.start()
    try:
        reason = _reason(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reason == "IMAGE_TOO_LARGE"
    assert peak < 2**20


def test_a_very_long_image_is_refused_on_its_header() -> None:
    assert _reason(_png_header(32 * MAX_ASPECT + 1, 32)) == "IMAGE_TOO_LARGE"
    assert _reason(_png_header(63, 600_000)) == "IMAGE_TOO_LARGE"
    assert read_header(_png_header(32 * MAX_ASPECT, 32)).width == 32 * MAX_ASPECT


def _with_scans(encoded: bytes, count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    last = encoded.rindex(b"\xff\xda")
    return encoded[:last] + encoded[last:-2] * count + encoded[-2:]


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:2:2", "4:4:4"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}])
def test_jpegs_of_usual_scans_are_read(subsampling: str, options: dict[str, Any]) -> None:
    assert decode_image(_encode(_scene(), "JPEG", subsampling=subsampling, **options)).format == "JPEG"


def test_a_jpeg_of_very_many_scans_is_refused_on_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    progressive = _encode(_scene(), "JPEG", progressive=True)
    assert decode_image(_with_scans(progressive, 100)).format == "JPEG"
    decoded: list[object] = []
    monkeypatch.setattr("services.common.image_codec.upright_pixels", decoded.append)
    assert _reason(_with_scans(progressive, MAX_SCANS)) == "IMAGE_TOO_LARGE"
    assert not decoded


def test_scans_of_a_large_jpeg_count_by_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = _with_scans(_encode(_scene(), "JPEG", progressive=True), 20)
    assert decode_image(encoded).format == "JPEG"
    monkeypatch.setattr("services.common.image_pixels.MAX_SCANNED_PIXELS", 20 * 48 * 64)
    assert _reason(encoded) == "IMAGE_TOO_LARGE"


@pytest.mark.parametrize("where", ["thumbnail", "profile", "comment", "behind"])
def test_what_looks_like_scans_outside_the_image_is_not_counted(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.common.image_pixels.MAX_SCANNED_PIXELS", 0)
    scans = b"\xff\xda" * (2 * MAX_SCANS)
    exif = Image.Exif()
    exif[0x010E] = (_with_scans(_encode(_scene(), "JPEG", progressive=True), 20) + scans).decode("latin-1")
    every: dict[str, dict[str, Any]] = {"thumbnail": {"exif": exif}, "profile": {"icc_profile": scans}, "comment": {"comment": scans}}
    options = every.get(where, {})
    encoded = _encode(_scene(), "JPEG", **options) + (scans if where == "behind" else b"")
    assert encoded.count(b"\xff\xda") > MAX_SCANS or where == "thumbnail"
    assert decode_image(encoded).format == "JPEG"


def _tiff_of_jpeg(strip: bytes, count: int, rows: int = 48) -> bytes:
    """A TIFF whose strips are all the same JPEG of 64 px by ``rows``."""
    entries = [(256, 3, 1, 64), (257, 3, 1, rows * count), (258, 3, 3, 0), (259, 3, 1, 7), (262, 3, 1, 6), (273, 4, count, 0)]
    entries += [(277, 3, 1, 3), (278, 3, 1, rows), (279, 4, count, 0)]
    end = 8 + 2 + 12 * len(entries) + 4
    bits, offsets, sizes = end, end + 6, end + 6 + 4 * count
    data = sizes + 4 * count
    values = {258: bits, 273: offsets if count > 1 else data, 279: sizes if count > 1 else len(strip)}
    directory = b"".join(struct.pack("<HHLL", t, f, n, values.get(t, v)) for t, f, n, v in entries)
    lists = struct.pack("<3H", 8, 8, 8) + struct.pack(f"<{count}L", *[data] * count) + struct.pack(f"<{count}L", *[len(strip)] * count)
    return b"II*\0" + struct.pack("<LH", 8, len(entries)) + directory + bytes(4) + lists + strip


@pytest.mark.parametrize("strips", [1, 3])
def test_scans_in_a_tiff_are_counted_for_every_strip(strips: int, monkeypatch: pytest.MonkeyPatch) -> None:
    progressive = _encode(_scene(), "JPEG", progressive=True, subsampling="4:2:0")
    assert read_header(_tiff_of_jpeg(progressive, strips)).format == "TIFF"
    many = _tiff_of_jpeg(_with_scans(progressive, 40), strips)
    assert read_header(many).format == "TIFF"
    monkeypatch.setattr("services.common.image_pixels.MAX_SCANNED_PIXELS", 20 * 48 * 64)
    assert _reason(many) == "IMAGE_TOO_LARGE"
    assert read_header(_tiff_of_jpeg(progressive, strips)).format == "TIFF"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "BMP"])
def test_a_header_is_read_without_decoding(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: loads.append(image))
    monkeypatch.setattr("PIL.TiffImagePlugin.TiffImageFile.load", lambda image: loads.append(image))
    header = read_header(_encode(_scene(), form))
    assert (header.width, header.height, header.format, header.mode, header.bits, header.orientation) == (64, 48, form, "RGB", 8, 1)
    assert not loads


def test_orientation_that_follows_the_pixels_of_a_png_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = _encode(_scene(), "PNG")
    late = encoded[:-12] + _chunk(b"eXIf", exif.tobytes()[6:]) + encoded[-12:]
    assert decode_image(late).notes == (ImageNote.ORIENTATION_APPLIED,)
    np.testing.assert_array_equal(decode_image(late).pixels, np.rot90(_scene(), -1))


def test_a_bmp_bomb_is_refused_on_its_header() -> None:
    encoded = bytearray(_encode(_scene(), "BMP"))
    struct.pack_into("<ii", encoded, 18, 60_000, 60_000)
    assert _reason(bytes(encoded)) == "IMAGE_TOO_LARGE"


@pytest.mark.parametrize(("width", "height"), [(1, 1), (200, 31), (31, 200)])
def test_small_images_are_refused(width: int, height: int) -> None:
    assert _reason(_encode(_scene(height, width), "PNG")) == "IMAGE_TOO_SMALL"


def test_the_smallest_side_is_accepted() -> None:
    assert decode_image(_encode(_scene(32, 32), "PNG")).pixels.shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("mode", "form", "reason"),
    [
        ("1", "PNG", "IMAGE_GREY"),
        ("L", "PNG", "IMAGE_GREY"),
        ("L", "JPEG", "IMAGE_GREY"),
        ("L", "TIFF", "IMAGE_GREY"),
        ("LA", "PNG", "IMAGE_GREY"),
        ("I;16", "PNG", "IMAGE_GREY"),
        ("I;16", "TIFF", "IMAGE_GREY"),
        ("F", "TIFF", "IMAGE_UNSUPPORTED_MODE"),
        ("P", "PNG", "IMAGE_PALETTE"),
        ("P", "BMP", "IMAGE_PALETTE"),
        ("P", "TIFF", "IMAGE_PALETTE"),
        ("CMYK", "JPEG", "IMAGE_CMYK"),
        ("CMYK", "TIFF", "IMAGE_CMYK"),
        ("LAB", "TIFF", "IMAGE_UNSUPPORTED_MODE"),
        ("YCbCr", "TIFF", "IMAGE_UNSUPPORTED_MODE"),
    ],
)
def test_other_colour_modes_are_refused(mode: str, form: str, reason: str) -> None:
    image = Image.fromarray(_scene())
    if mode == "LAB":
        image = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB")  # type: ignore[assignment]
    elif mode == "I;16":
        image = Image.fromarray(_scene()[..., 0].astype(np.uint16) * 200)
    else:
        image = image.convert(mode)
    assert _reason(_encode(image, form)) == reason


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_real_transparency_is_refused(form: str) -> None:
    alpha = np.full((48, 64, 1), 255, np.uint8)
    alpha[10, 10] = 254
    assert _reason(_encode(np.dstack([_scene(), alpha]), form)) == "IMAGE_TRANSPARENT"


def test_real_transparency_of_a_bitmap_is_refused() -> None:
    alpha = np.full((48, 64, 1), 255, np.uint8)
    alpha[10, 10] = 254
    assert _reason(cv2.imencode(".bmp", np.dstack([_scene()[..., ::-1], alpha]))[1].tobytes()) == "IMAGE_TRANSPARENT"


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_opaque_alpha_is_dropped_and_noted(form: str) -> None:
    decoded = decode_image(_encode(np.dstack([_scene(), np.full((48, 64, 1), 255, np.uint8)]), form))
    assert decoded.notes == (ImageNote.ALPHA_DROPPED,)
    assert decoded.pixels.flags.c_contiguous
    np.testing.assert_array_equal(decoded.pixels, _scene())


def test_a_bitmap_whose_alpha_is_not_used_is_opaque() -> None:
    bgra = np.dstack([_scene()[..., ::-1], np.zeros((48, 64), np.uint8)])
    decoded = decode_image(cv2.imencode(".bmp", bgra)[1].tobytes())
    np.testing.assert_array_equal(decoded.pixels, _scene())
    assert decoded.notes == (ImageNote.ALPHA_DROPPED,)


def test_the_first_picture_of_a_camera_jpeg_with_a_preview_is_the_image() -> None:
    buffer = io.BytesIO()
    scene = Image.fromarray(_scene())
    scene.save(buffer, "MPO", save_all=True, append_images=[scene.resize((32, 32))], quality=95, subsampling=0)
    with Image.open(io.BytesIO(buffer.getvalue())) as opened:
        assert (opened.format, getattr(opened, "n_frames", 1)) == ("MPO", 2)
    decoded = decode_image(buffer.getvalue())
    assert (decoded.format, decoded.pixels.shape) == ("JPEG", (48, 64, 3))
    assert np.abs(decoded.pixels.astype(int) - _scene()).max() <= 8


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_words_that_use_few_bits_are_scaled_by_them(bits: int, extension: str) -> None:
    deep = _scene().astype(np.uint16) << (bits - 8)
    deep[0, 0] = (1 << bits) - 1
    ok, encoded = cv2.imencode(extension, cv2.cvtColor(deep, cv2.COLOR_RGB2BGR))
    assert ok
    decoded = decode_image(encoded.tobytes())
    assert decoded.notes == (ImageNote(f"SCALED_FROM_{bits}_BIT"),)
    np.testing.assert_array_equal(decoded.pixels[1:], _scene()[1:])


@pytest.mark.parametrize("orientation", [1, 6])
def test_planes_of_16_bits_are_not_mixed(orientation: int) -> None:
    buffer = io.BytesIO()
    planes = np.ascontiguousarray(np.moveaxis(_scene().astype(np.uint16) * 257, -1, 0))
    tifffile.imwrite(buffer, planes, photometric="rgb", planarconfig="separate", extratags=[(274, "H", 1, orientation, True)])
    expected = _scene() if orientation == 1 else np.rot90(_scene(), -1)
    np.testing.assert_array_equal(decode_image(buffer.getvalue()).pixels, expected)


@pytest.mark.parametrize("odd", [(278, "I", 1, 2**32 - 1, True), (65_000, "I", 1, 2**31, True), (33_432, "s", 9, "somebody.", True)])
def test_planes_are_told_whatever_other_tags_hold(odd: tuple[int, str, int, object, bool]) -> None:
    buffer = io.BytesIO()
    planes = np.ascontiguousarray(np.moveaxis(_scene().astype(np.uint16) << 4, -1, 0))
    planes[0, 0, 0] = 4095
    tifffile.imwrite(buffer, planes, photometric="rgb", planarconfig="separate", extratags=[odd])
    encoded = bytearray(buffer.getvalue())
    if odd[0] == 33_432:
        entry = encoded.index(struct.pack("<HHI", 33_432, 2, 10))
        encoded[entry + 8 : entry + 12] = struct.pack("<I", 2**31)  # its text lies beyond the file
    decoded = decode_image(bytes(encoded))
    assert decoded.notes == (ImageNote.SCALED_FROM_12_BIT,)
    np.testing.assert_array_equal(decoded.pixels[1:], _scene()[1:])


def test_a_small_deep_tiff_of_huge_tiles_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    planes = np.zeros((3, 64, 64), np.uint16)
    tifffile.imwrite(buffer, planes, photometric="rgb", planarconfig="separate", tile=(64, 64))
    encoded = bytearray(buffer.getvalue())
    for tag in (322, 323):
        at = next(i for i in range(len(encoded) - 12) if struct.unpack_from("<HH", encoded, i) in ((tag, 3), (tag, 4)))
        encoded[at : at + 12] = struct.pack("<HHII", tag, 4, 1, 32_000)
    monkeypatch.setattr("services.common.image_codec.read_deep", lambda *_: pytest.fail("read"))
    assert _reason(bytes(encoded)) == "IMAGE_TOO_LARGE"


@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
@pytest.mark.parametrize("largest", [4095, 65_535])
def test_a_fourth_channel_of_a_deep_tiff_that_is_not_alpha_is_left_out(planarconfig: str, largest: int) -> None:
    buffer = io.BytesIO()
    deep = np.dstack([_scene().astype(np.uint16) * (largest // 255), np.zeros((48, 64), np.uint16)])
    stored = np.ascontiguousarray(np.moveaxis(deep, -1, 0)) if planarconfig == "separate" else deep
    tifffile.imwrite(buffer, stored, photometric="rgb", planarconfig=planarconfig, extrasamples=["unspecified"])
    assert decode_image(buffer.getvalue()).pixels.shape == (48, 64, 3)


@pytest.mark.parametrize("options", [{"compression": 34_676}, {"compression": 32_809}, {"photometric": 32_803}, {"sample": 2}])
def test_a_whole_tiff_of_an_unread_kind_is_called_so(options: dict[str, int]) -> None:
    buffer = io.BytesIO()
    scene = _scene().astype(np.int16) if "sample" in options else _scene()
    tifffile.imwrite(buffer, scene, photometric="rgb")
    encoded = bytearray(buffer.getvalue())
    for tag, value in ((259, options.get("compression")), (262, options.get("photometric"))):
        if value is not None:
            at = next(i for i in range(len(encoded) - 12) if struct.unpack_from("<HHI", encoded, i) == (tag, 3, 1))
            encoded[at + 8 : at + 10] = struct.pack("<H", value)
    assert _reason(bytes(encoded)) == "IMAGE_UNSUPPORTED_MODE"


@pytest.mark.parametrize(("compression", "words"), [("jpeg2000", "JPEG 2000"), ("webp", "WebP"), ("jpegxl", "JPEG XL")])
def test_a_whole_tiff_in_an_unread_compression_is_not_called_damaged(compression: str, words: str) -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, _scene(), photometric="rgb", compression=compression)
    with pytest.raises(InvalidImageError, match=words) as caught:
        decode_image(buffer.getvalue())
    assert caught.value.reason == "IMAGE_UNSUPPORTED_MODE"


def test_a_pyramid_is_sent_to_the_slides() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(_scene(), photometric="rgb")
        writer.write(np.ascontiguousarray(_scene()[::2, ::2]), photometric="rgb", subfiletype=1)
    with pytest.raises(InvalidImageError, match="dl4all slide") as caught:
        decode_image(buffer.getvalue())
    assert caught.value.reason == "IMAGE_MULTI_PAGE"


def test_animated_png_is_refused() -> None:
    frames = [Image.fromarray(_scene()), Image.fromarray(_scene()[::-1].copy())]
    assert _reason(_encode(frames[0], "PNG", save_all=True, append_images=frames[1:])) == "IMAGE_ANIMATED"


def test_multi_page_tiff_is_refused() -> None:
    pages = [Image.fromarray(_scene()), Image.fromarray(_scene()[::-1].copy())]
    assert _reason(_encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])) == "IMAGE_MULTI_PAGE"


@pytest.mark.parametrize("value", [0, 255, 128])
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_blank_images_are_refused(value: int, form: str) -> None:
    assert _reason(_encode(np.full((64, 64, 3), value, np.uint8), form)) == "IMAGE_BLANK"


def test_a_single_flat_colour_is_blank_too() -> None:
    pink = np.broadcast_to(np.array([230, 180, 200], np.uint8), (64, 64, 3)).copy()
    assert _reason(_encode(pink, "PNG")) == "IMAGE_BLANK"


def test_a_colour_image_with_equal_channels_is_grey() -> None:
    assert _reason(_encode(np.repeat(_scene()[..., :1], 3, axis=2), "PNG")) == "IMAGE_GREY"


def test_one_coloured_pixel_makes_an_image_colour() -> None:
    image = np.repeat(_scene()[..., :1], 3, axis=2)
    image[20, 20] = (10, 200, 10)
    assert decode_image(_encode(image, "PNG")).pixels.shape == image.shape


@pytest.mark.parametrize("extension", [".png", ".tiff"])
def test_16_bit_rgb_is_scaled_and_noted(extension: str) -> None:
    deep = _scene().astype(np.uint16) * 257
    written, encoded = cv2.imencode(extension, deep[..., ::-1])
    assert written
    decoded = decode_image(encoded.tobytes())
    assert decoded.notes == (ImageNote.SCALED_FROM_16_BIT,)
    np.testing.assert_array_equal(decoded.pixels, _scene())


def _oriented(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    marked = np.full((48, 64, 3), (90, 120, 150), np.uint8)
    marked[0:8, 0:8] = (250, 10, 10)
    return _encode(marked, "PNG", exif=exif)


@pytest.mark.parametrize(
    ("orientation", "shape", "corner"),
    [(2, (48, 64), (0, -1)), (3, (48, 64), (-1, -1)), (4, (48, 64), (-1, 0)), (5, (64, 48), (0, 0)), (6, (64, 48), (0, -1)), (7, (64, 48), (-1, -1)), (8, (64, 48), (-1, 0))],
)  # fmt: skip
def test_exif_orientation_is_applied(orientation: int, shape: tuple[int, int], corner: tuple[int, int]) -> None:
    decoded = decode_image(_oriented(orientation))
    assert decoded.notes == (ImageNote.ORIENTATION_APPLIED,)
    assert decoded.pixels.shape == (*shape, 3)
    corners = {c: tuple(decoded.pixels[c].tolist()) for c in ((0, 0), (0, -1), (-1, 0), (-1, -1))}
    assert [c for c, colour in corners.items() if colour == (250, 10, 10)] == [corner]


def test_upright_orientation_is_not_noted() -> None:
    assert decode_image(_oriented(1)).notes == ()


def test_jpeg_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode_image(_encode(_scene(48, 64), "JPEG", exif=exif))
    assert decoded.pixels.shape == (64, 48, 3)
    assert decoded.notes == (ImageNote.ORIENTATION_APPLIED,)


def test_a_phantom_is_noted_and_carries_its_truth() -> None:
    phantom = smear_field(3, PhantomOptions(width=128, height=96, cells=1, cell_radius=14.0, label=False))
    encoded = encode_png(phantom)
    assert decode_image(encoded).notes == (ImageNote.PHANTOM,)
    truth = phantom_truth(encoded)
    assert truth is not None
    assert truth["seed"] == 3
    assert phantom_truth(_encode(_scene(), "PNG")) is None


@pytest.mark.parametrize("exif", [b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 30, b"Exif\0\0"], ids=["nonsense", "empty"])
def test_a_png_with_broken_exif_is_read_or_called_damaged(exif: bytes) -> None:
    outcome = _outcome(_encode(_scene(), "PNG", exif=exif))
    assert isinstance(outcome, DecodedImage) or outcome == "IMAGE_TRUNCATED"


def test_pages_of_a_tiff_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = bytearray(_encode(_scene(), "TIFF"))
    (directory,) = struct.unpack_from("<I", encoded, 4)
    (count,) = struct.unpack_from("<H", encoded, directory)
    page = bytes(encoded[directory : directory + 2 + 12 * count])
    struct.pack_into("<I", encoded, directory + len(page), len(encoded))
    for _ in range(2000):
        encoded += page + struct.pack("<I", len(encoded) + len(page) + 4)
    encoded[-4:] = bytes(4)
    reads = 0

    class CountingBytes(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            nonlocal reads
            reads += 1
            return super().read(size)

    monkeypatch.setattr("services.common.image_codec.io.BytesIO", CountingBytes)
    assert _reason(bytes(encoded)) == "IMAGE_MULTI_PAGE"
    assert 0 < reads < 500


def test_a_tiff_whose_second_page_lies_beyond_its_end_is_refused() -> None:
    encoded = bytearray(_encode(_scene(), "TIFF"))
    (directory,) = struct.unpack_from("<I", encoded, 4)
    (count,) = struct.unpack_from("<H", encoded, directory)
    struct.pack_into("<I", encoded, directory + 2 + 12 * count, 2**31)
    assert _reason(bytes(encoded)) in ("IMAGE_TRUNCATED", "IMAGE_MULTI_PAGE")


def _outcome(encoded: bytes) -> DecodedImage | str:
    """The decoded image or the reason of the refusal; any other exception escapes."""
    try:
        decoded = decode_image(encoded)
    except InvalidImageError as error:
        return error.reason
    assert decoded.pixels.shape[2:] == (3,)
    assert decoded.pixels.dtype == np.uint8
    return decoded


def _samples() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 3
    exif[0x010F] = "maker"
    scene = _scene(33, 35)
    alpha = np.dstack([scene, np.full((33, 35, 1), 255, np.uint8)])
    tags = ImageFileDirectory_v2()
    tags[270] = "a description"
    deep = cv2.imencode(".png", scene.astype(np.uint16) * 257)[1].tobytes()
    frames = [Image.fromarray(scene), Image.fromarray(scene[::-1].copy())]
    return [
        _encode(scene, "PNG"),
        _encode(scene, "PNG", exif=exif),
        _encode(alpha, "PNG"),
        deep,
        _encode(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        _encode(scene, "JPEG", exif=exif),
        _encode(scene, "JPEG", progressive=True),
        _encode(scene, "TIFF", tiffinfo=tags),
        _encode(scene, "TIFF", compression="tiff_lzw", exif=exif),
        _encode(scene, "TIFF", compression="jpeg"),
        _encode(frames[0], "TIFF", save_all=True, append_images=frames[1:]),
        cv2.imencode(".tiff", scene.astype(np.uint16) * 257)[1].tobytes(),
        _encode(scene, "BMP"),
        _encode(alpha, "BMP"),
        encode_png(smear_field(1, PhantomOptions(width=64, height=64, cells=1, cell_radius=10.0, label=False))),
    ]


SAMPLES = _samples()
FUZZ = settings(deadline=None, max_examples=examples(400), suppress_health_check=[HealthCheck.too_slow])


@FUZZ
@given(
    st.binary(max_size=400),
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"II+\0\x08\0\0\0", b"BM"]),
)
def test_random_bytes_are_refused_in_order(data: bytes, magic: bytes) -> None:
    _outcome(magic + data)


@FUZZ
@given(st.sampled_from(range(len(SAMPLES))), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8))
def test_mutated_files_are_read_or_refused(sample: int, changes: list[tuple[float, int]]) -> None:
    encoded = bytearray(SAMPLES[sample])
    for share, value in changes:
        encoded[int(share * len(encoded))] = value
    _outcome(bytes(encoded))


@FUZZ
@given(st.sampled_from(range(len(SAMPLES))), st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), min_size=1, max_size=6))
def test_mutated_headers_are_read_or_refused(sample: int, changes: list[tuple[int, int]]) -> None:
    encoded = bytearray(SAMPLES[sample])
    for position, value in changes:
        encoded[position % len(encoded)] = value
    _outcome(bytes(encoded))


@FUZZ
@given(st.sampled_from(range(len(SAMPLES))), st.integers(0, 400), st.integers(0, 255))
def test_mutated_ends_are_read_or_refused(sample: int, back: int, value: int) -> None:
    encoded = bytearray(SAMPLES[sample])
    encoded[-1 - back % len(encoded)] = value
    _outcome(bytes(encoded))


@FUZZ
@given(st.sampled_from(range(len(SAMPLES))), st.floats(0, 1), st.binary(max_size=32))
def test_truncated_files_are_read_or_refused(sample: int, kept: float, tail: bytes) -> None:
    encoded = SAMPLES[sample]
    _outcome(encoded[: int(kept * len(encoded))] + tail)


@pytest.mark.parametrize("repair", [True, False])
def test_mutated_png_chunks_are_read_or_refused(repair: bool) -> None:
    """Chunks changed with their checksums made right again reach deeper into the decoder."""
    generator = np.random.default_rng(5)
    for sample in (s for s in SAMPLES if s.startswith(b"\x89PNG")):
        for _ in range(60):
            _outcome(_mutate_chunk(sample, generator.integers, repair))


def _mutate_chunk(encoded: bytes, draw: Callable[..., Any], repair: bool) -> bytes:
    chunks, at = [], 8
    while at < len(encoded):
        (length,) = struct.unpack_from(">I", encoded, at)
        chunks.append((encoded[at + 4 : at + 8], bytearray(encoded[at + 8 : at + 8 + length]), encoded[at + 8 + length : at + 12 + length]))
        at += 12 + length
    name, data, _ = chunks[int(draw(len(chunks)))]
    for _ in range(int(draw(1, 4))):
        if data:
            data[int(draw(len(data)))] = int(draw(256))
    if draw(3) == 0:
        del data[int(draw(len(data) + 1)) :]
    if draw(4) == 0:
        chunks.insert(int(draw(len(chunks) + 1)), (name, data, b"\0\0\0\0"))
    if draw(4) == 0:
        del chunks[int(draw(len(chunks)))]
    parts = [_chunk(n, bytes(d)) if repair else struct.pack(">I", len(d)) + n + bytes(d) + crc for n, d, crc in chunks]
    return encoded[:8] + b"".join(parts)
