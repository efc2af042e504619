"""What is known of an image before its pixels are decoded, and how much memory decoding it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.common.deep_pixels import DEEP_BYTES, FULL, MAX_DEEP_PIXELS

_STORED: Final = 4
"""Bytes of a pixel in Pillow, whatever the mode, the bits and the alpha."""
_PIXEL: Final = 3
_STRIP: Final = 16 << 20
"""Bytes of the strips in which pixels are copied, or of the second copy of a small image, and of the small buffers of decoders."""


@dataclass(frozen=True)
class ImageHeader:
    """Facts of an image, from its header.

    Attributes:
        width, height: in px, as stored.
        format: one of ``image_codec.FORMATS``.
        mode: Pillow's name of the colour mode: RGB, RGBA or RGBX.
        bits: of a sample, 8 or 16.
        orientation: of EXIF, 1..8; 1 for a PNG, whose EXIF data may follow its pixels.
        buffered: bytes that the decoder holds beside the pixels: coefficients of all scans of a JPEG, a strip or tile of a TIFF.
    """

    width: int
    height: int
    format: str
    mode: str
    bits: int
    orientation: int
    buffered: int

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.width * self.height

    @property
    def decoded_bytes(self) -> int:
        """Bytes of the decoded image."""
        return _PIXEL * self.pixels


def decode_bytes(header: ImageHeader) -> int:
    """Most memory in bytes that decoding takes at a time, the decoded image included and the encoded one not.

    Pillow holds four bytes a pixel while it decodes, and beside them what its decoder buffers. Then the pixels are copied, three bytes each. Pillow
    turns a TIFF itself and holds both copies for it; other formats are turned while they are copied. Alpha takes no more. An image that may be read in
    all its 16 bits is then held in them, with the decoded image and, where it is turned, a second one.
    """
    stored = _STORED * header.pixels
    turned = stored if header.format == "TIFF" and header.orientation != 1 else 0
    usual = stored + max(header.buffered, turned, header.decoded_bytes) + _STRIP
    if header.bits != FULL or header.pixels > MAX_DEEP_PIXELS:
        return usual
    return max(usual, header.pixels * DEEP_BYTES + header.buffered + 2 * header.decoded_bytes + _STRIP)
