"""Decode images of callers. The header is checked before memory is allocated, and a refusal names its reason.

Accepted: JPEG, PNG, TIFF, BMP in RGB of 8 bit; opaque alpha (dropped); 16-bit RGB (scaled by the bits in use, noted);
EXIF orientation (applied); the first picture of a camera's JPEG with previews. Everything else is refused with a reason.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, JpegImagePlugin

from services.common.deep_pixels import FULL, MAX_DEEP_PIXELS, bits_in_use, read_deep, to_bytes, uses_few_bits
from services.common.errors import InvalidImageError
from services.common.image_header import ImageHeader
from services.common.image_kind import TiffFacts, refusal_of, tiff_facts
from services.common.image_pixels import buffered_bytes, turned, upright_pixels
from services.common.image_structure import check_pieces

Bytes = NDArray[np.uint8]

FORMATS: Final = ("JPEG", "PNG", "TIFF", "BMP")
MIN_SIDE: Final = 32
MAX_PIXELS: Final = 100_000_000
MAX_ASPECT: Final = 256
"""Longer side in shorter sides; a copy of 64 px that is this long has as many pixels as one of 1024 x 1024."""
PHANTOM_TEXT_KEY: Final = "dl4all-phantom"
_MIN_CONTRAST: Final = 8
_BITS_PER_SAMPLE: Final = 258
_JPEG: Final = b"\xff\xd8"
_BLANK_SAMPLE_SIDE: Final = 512
_DAMAGE: Final = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
)
"""Exceptions of Pillow on damaged files. Pillow also decodes to read a tag or the number of frames."""

Image.MAX_IMAGE_PIXELS = None  # the limit is MAX_PIXELS, checked on the header below


class ImageNote(StrEnum):
    """Notes on an accepted image."""

    SCALED_FROM_16_BIT = "SCALED_FROM_16_BIT"
    SCALED_FROM_14_BIT = "SCALED_FROM_14_BIT"
    SCALED_FROM_12_BIT = "SCALED_FROM_12_BIT"
    SCALED_FROM_10_BIT = "SCALED_FROM_10_BIT"
    SCALED_FROM_8_BIT = "SCALED_FROM_8_BIT"
    ORIENTATION_APPLIED = "ORIENTATION_APPLIED"
    ALPHA_DROPPED = "ALPHA_DROPPED"
    SCALE_DOUBTED = "SCALE_DOUBTED"
    PHANTOM = "PHANTOM"


@dataclass(frozen=True)
class DecodedImage:
    """An accepted image.

    Attributes:
        pixels: uint8 (H, W, 3) RGB, upright.
        format: one of ``FORMATS``.
        sha256: hex digest of the encoded bytes.
        notes: notes on the image.
    """

    pixels: Bytes
    format: str
    sha256: str
    notes: tuple[ImageNote, ...]


def read_header(encoded: bytes) -> ImageHeader:
    """Check the header of an image; nothing is decoded.

    Args:
        encoded: the bytes of an image file.

    Raises:
        InvalidImageError: as ``decode_image``, where the header alone shows it.
    """
    with _opened(encoded) as image:
        return _checked_header(image, encoded)


def decode_image(encoded: bytes) -> DecodedImage:
    """Decode and check an image.

    ``image_header.decode_bytes`` tells how much memory this takes.

    Args:
        encoded: the bytes of an image file.

    Raises:
        InvalidImageError: with reason IMAGE_EMPTY, IMAGE_UNKNOWN_FORMAT, IMAGE_TOO_SMALL, IMAGE_TOO_LARGE,
            IMAGE_ANIMATED, IMAGE_MULTI_PAGE, IMAGE_GREY, IMAGE_CMYK, IMAGE_PALETTE, IMAGE_TRANSPARENT,
            IMAGE_UNSUPPORTED_MODE, IMAGE_TRUNCATED or IMAGE_BLANK.
    """
    with _opened(encoded) as image:
        header = _checked_header(image, encoded)
        with _damage_is_refused():
            header = replace(header, orientation=_orientation(image))
            notes = _notes_of_header(image, header)
            pixels, is_transparent, bits = _pixels(image, header, encoded)
    if bits:
        notes.insert(0, ImageNote(f"SCALED_FROM_{bits}_BIT"))
    if is_transparent:
        raise InvalidImageError("IMAGE_TRANSPARENT", "The image is partly transparent; the background behind it is not known.")
    if header.mode != "RGB":
        notes.append(ImageNote.ALPHA_DROPPED)
    _check_content(pixels)
    return DecodedImage(pixels, header.format, hashlib.sha256(encoded).hexdigest(), tuple(notes))


def _pixels(image: Image.Image, header: ImageHeader, encoded: bytes) -> tuple[Bytes, bool, int]:
    """Upright pixels, whether one is not opaque, and the bits of a sample that are in use where a sample is stored in 16, else 0."""
    if header.bits != FULL:
        return *upright_pixels(image), 0
    facts = tiff_facts(encoded) if header.format == "TIFF" else None
    if facts is None and header.format == "TIFF":
        raise InvalidImageError("IMAGE_TRUNCATED", "The first directory of the TIFF is damaged.")
    if facts is None or not facts.is_planar:
        pixels, is_transparent = upright_pixels(image)
        if not uses_few_bits(pixels):
            return pixels, is_transparent, FULL
        del pixels
    if header.pixels > MAX_DEEP_PIXELS:
        most = MAX_DEEP_PIXELS // 10**6
        raise InvalidImageError(
            "IMAGE_TOO_LARGE", f"16-bit images in planes, or that use few of their bits, have at most {most} megapixels; save 8 bit."
        )
    deep = read_deep(encoded, header.format)
    bits = bits_in_use(deep, 0 if facts is None else facts.max_sample)
    pixels, is_transparent = to_bytes(deep, bits, has_alpha=header.mode == "RGBA")
    return turned(pixels, header.orientation), is_transparent, bits


@contextmanager
def _opened(encoded: bytes) -> Iterator[Image.Image]:
    if not encoded:
        raise InvalidImageError("IMAGE_EMPTY", "The image has no bytes.")
    check_pieces(encoded)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = _first_picture(encoded)
        except _DAMAGE as error:
            facts = tiff_facts(encoded)
            if facts is not None:
                raise InvalidImageError("IMAGE_UNSUPPORTED_MODE", facts.refusal or facts.unread) from error
            raise InvalidImageError("IMAGE_UNKNOWN_FORMAT", refusal_of(encoded)) from error
        with image:
            yield image


def _first_picture(encoded: bytes) -> Image.Image:
    """Cameras append previews to a JPEG (Multi-Picture Format); Pillow would take the file for an animation."""
    if encoded.startswith(_JPEG):
        return JpegImagePlugin.JpegImageFile(io.BytesIO(encoded))
    return Image.open(io.BytesIO(encoded), formats=FORMATS)


def _check_kind(facts: TiffFacts) -> None:
    if facts.refusal:
        raise InvalidImageError("IMAGE_UNSUPPORTED_MODE", facts.refusal)


@contextmanager
def _damage_is_refused() -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise InvalidImageError("IMAGE_TRUNCATED", "The image ends early or is damaged; it could not be decoded whole.") from error
    except MemoryError as error:
        raise InvalidImageError("IMAGE_TOO_LARGE", "The image does not fit in the memory of this service.") from error


def _checked_header(image: Image.Image, encoded: bytes) -> ImageHeader:
    with _damage_is_refused():
        facts = tiff_facts(encoded)
        if facts is not None:
            _check_kind(facts)
        _check_header(image)
        buffered = buffered_bytes(image, encoded)
        orientation = 1 if image.format == "PNG" else _orientation(image)
        return ImageHeader(*image.size, str(image.format), image.mode, _bits(image, encoded), orientation, buffered)


def _orientation(image: Image.Image) -> int:
    """Of EXIF; a PNG is decoded for it, because its EXIF data may follow its pixels."""
    return int(image.getexif().get(ExifTags.Base.Orientation, 1)) or 1


def _check_header(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InvalidImageError(
            "IMAGE_TOO_LARGE",
            f"The image has {width} x {height} pixels; at most {MAX_PIXELS // 10**6} megapixels are read. Larger ones are slides, see `dl4all slide`.",
        )
    if image.mode == "RGB" and "transparency" in image.info:
        raise InvalidImageError("IMAGE_TRANSPARENT", "One colour of the image is transparent; the background behind it is not known.")
    if max(width, height) > MAX_ASPECT * min(width, height) >= MAX_ASPECT * MIN_SIDE:
        raise InvalidImageError(
            "IMAGE_TOO_LARGE", f"The image has {width} x {height} px; one side may be at most {MAX_ASPECT} times as long as the other."
        )
    if min(width, height) < MIN_SIDE:
        raise InvalidImageError("IMAGE_TOO_SMALL", f"The image is {width} x {height} px; both sides must have at least {MIN_SIDE} px.")
    if _has_more_frames(image):
        if image.format == "TIFF":
            text = "The TIFF has several pages; a slide, pyramid or file with a thumbnail is read by DiagnoseSlide and `dl4all slide`, else save one page."
            raise InvalidImageError("IMAGE_MULTI_PAGE", text)
        raise InvalidImageError("IMAGE_ANIMATED", "The image has several frames; send one image at a time.")
    if image.mode in ("RGB", "RGBA", "RGBX"):
        return
    refused = {
        **dict.fromkeys(("1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B"), ("IMAGE_GREY", "grey")),
        **dict.fromkeys(("P", "PA"), ("IMAGE_PALETTE", "reduced to a palette")),
        "CMYK": ("IMAGE_CMYK", "in print colours (CMYK)"),
    }
    reason, what = refused.get(image.mode, ("IMAGE_UNSUPPORTED_MODE", f"in colour mode {image.mode}"))
    raise InvalidImageError(reason, f"The image is {what}; stains can only be told in RGB colour.")


def _has_more_frames(image: Image.Image) -> bool:
    """Whether there is a second frame; the pages of a TIFF are not counted, because a file can chain a hundred thousand of them."""
    if image.format != "TIFF":
        return getattr(image, "n_frames", 1) > 1
    try:
        image.seek(1)
    except EOFError:
        return False
    finally:
        image.seek(0)
    return True


def _notes_of_header(image: Image.Image, header: ImageHeader) -> list[ImageNote]:
    given = {
        ImageNote.PHANTOM: PHANTOM_TEXT_KEY in image.info,
        ImageNote.ORIENTATION_APPLIED: header.orientation != 1,
    }
    return [note for note, is_given in given.items() if is_given]


def _bits(image: Image.Image, encoded: bytes) -> int:
    if image.format == "PNG":
        return encoded[24]
    if image.format == "TIFF":
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, (8,))  # type: ignore[attr-defined]
        return max(bits) if isinstance(bits, tuple) else int(bits)
    return 8


def _check_content(array: Bytes) -> None:
    step = max(1, max(array.shape[:2]) // _BLANK_SAMPLE_SIDE)
    red, green, blue = (np.ascontiguousarray(array[::step, ::step, channel]) for channel in range(3))
    if max(int(plane.max()) - int(plane.min()) for plane in (red, green, blue)) < _MIN_CONTRAST:
        raise InvalidImageError("IMAGE_BLANK", "The image is one flat colour; there is nothing to see in it.")
    if np.array_equal(red, green) and np.array_equal(green, blue):
        raise InvalidImageError("IMAGE_GREY", "The image is grey: its three channels are equal; stains can only be told in RGB colour.")


def phantom_truth(encoded: bytes) -> dict[str, object] | None:
    """The seed, options and true cells that a phantom's file carries; None for any other image."""
    with Image.open(io.BytesIO(encoded), formats=("PNG",)) as image:
        text = image.info.get(PHANTOM_TEXT_KEY)
    return None if text is None else dict(json.loads(text))
