"""Decode images of callers. The header is checked before memory is allocated, and a refusal names its reason.

Accepted: JPEG, PNG, TIFF, BMP in RGB of 8 bit; opaque alpha (dropped); 16-bit RGB (scaled, noted); EXIF orientation
(applied). Everything else is refused with a reason.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import warnings
import zlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from services.common.errors import InvalidImageError

Bytes = NDArray[np.uint8]

FORMATS: Final = ("JPEG", "PNG", "TIFF", "BMP")
MIN_SIDE: Final = 32
MAX_PIXELS: Final = 100_000_000
MAX_SCANS: Final = 256
"""Scans of a JPEG; cameras store 1, progressive files about 10."""
MAX_SCANNED_PIXELS: Final = 1_000_000_000
"""Scans times pixels of a progressive JPEG: 10 scans of the largest image."""
_USUAL_SCANS: Final = 12
_START_OF_SCAN: Final = b"\xff\xda"
PHANTOM_TEXT_KEY: Final = "dl4all-phantom"
_MIN_CONTRAST: Final = 8
_BITS_PER_SAMPLE: Final = 258
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
    ORIENTATION_APPLIED = "ORIENTATION_APPLIED"
    ALPHA_DROPPED = "ALPHA_DROPPED"
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


def decode_image(encoded: bytes) -> DecodedImage:
    """Decode and check an image.

    Args:
        encoded: the bytes of an image file.

    Raises:
        InvalidImageError: with reason IMAGE_EMPTY, IMAGE_UNKNOWN_FORMAT, IMAGE_TOO_SMALL, IMAGE_TOO_LARGE,
            IMAGE_ANIMATED, IMAGE_MULTI_PAGE, IMAGE_GREY, IMAGE_CMYK, IMAGE_PALETTE, IMAGE_TRANSPARENT,
            IMAGE_UNSUPPORTED_MODE, IMAGE_TRUNCATED or IMAGE_BLANK.
    """
    if not encoded:
        raise InvalidImageError("IMAGE_EMPTY", "The image has no bytes.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(encoded), formats=FORMATS)
        except _DAMAGE as error:
            raise InvalidImageError(
                "IMAGE_UNKNOWN_FORMAT", "The bytes are not an image in a format that is read here: JPEG, PNG, TIFF or BMP."
            ) from error
        with image:
            return _checked(image, encoded)


def _checked(image: Image.Image, encoded: bytes) -> DecodedImage:
    try:
        _check_header(image)
        _check_scans(image, encoded)
        notes = _notes_of_header(image, encoded)
        upright: Image.Image = image
        if image.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1):
            upright = ImageOps.exif_transpose(image)
            notes.append(ImageNote.ORIENTATION_APPLIED)
        array = np.asarray(upright, np.uint8)
    except _DAMAGE as error:
        raise InvalidImageError("IMAGE_TRUNCATED", "The image ends early or is damaged; it could not be decoded whole.") from error
    except MemoryError as error:
        raise InvalidImageError("IMAGE_TOO_LARGE", "The image does not fit in the memory of this service.") from error
    if array.shape[2] == 4:
        if upright.mode == "RGBA" and array[..., 3].min() < 255:
            raise InvalidImageError("IMAGE_TRANSPARENT", "The image is partly transparent; the background behind it is not known.")
        notes.append(ImageNote.ALPHA_DROPPED)
        array = array[..., :3]
    _check_content(array)
    sha256 = hashlib.sha256(encoded).hexdigest()
    return DecodedImage(np.ascontiguousarray(array), str(image.format), sha256, tuple(notes))


def _check_header(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InvalidImageError("IMAGE_TOO_LARGE", f"The image has {width} x {height} pixels; at most {MAX_PIXELS // 10**6} megapixels are read.")
    if image.mode == "RGB" and "transparency" in image.info:
        raise InvalidImageError("IMAGE_TRANSPARENT", "One colour of the image is transparent; the background behind it is not known.")
    if min(width, height) < MIN_SIDE:
        raise InvalidImageError("IMAGE_TOO_SMALL", f"The image is {width} x {height} px; both sides must have at least {MIN_SIDE} px.")
    if _has_more_frames(image):
        reason, what = ("IMAGE_MULTI_PAGE", "several pages") if image.format == "TIFF" else ("IMAGE_ANIMATED", "several frames")
        raise InvalidImageError(reason, f"The image has {what}; send one image at a time.")
    if image.mode in ("RGB", "RGBA", "RGBX"):
        return
    refused = {
        **dict.fromkeys(("1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B"), ("IMAGE_GREY", "grey")),
        **dict.fromkeys(("P", "PA"), ("IMAGE_PALETTE", "reduced to a palette")),
        "CMYK": ("IMAGE_CMYK", "in print colours (CMYK)"),
    }
    reason, what = refused.get(image.mode, ("IMAGE_UNSUPPORTED_MODE", f"in colour mode {image.mode}"))
    raise InvalidImageError(reason, f"The image is {what}; stains can only be told in RGB colour.")


def _check_scans(image: Image.Image, encoded: bytes) -> None:
    """Refuse a JPEG of so many scans that decoding it would take a worker for long: each scan touches all pixels."""
    if image.format != "JPEG":
        return
    scans, pixels = encoded.count(_START_OF_SCAN), image.width * image.height
    if scans > MAX_SCANS or (scans > _USUAL_SCANS and scans * pixels > MAX_SCANNED_PIXELS):
        raise InvalidImageError("IMAGE_TOO_LARGE", f"The JPEG stores its {pixels} pixels in {scans} scans, far more than any camera does; save it again.")


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


def _notes_of_header(image: Image.Image, encoded: bytes) -> list[ImageNote]:
    notes = []
    if _bits(image, encoded) == 16:
        notes.append(ImageNote.SCALED_FROM_16_BIT)
    if PHANTOM_TEXT_KEY in image.info:
        notes.append(ImageNote.PHANTOM)
    return notes


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
