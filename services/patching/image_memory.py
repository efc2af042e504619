"""How much memory an image takes on its whole way through this service, from its header."""

from __future__ import annotations

from typing import Final

from services.common.image_header import ImageHeader, decode_bytes
from services.patching.cells import working_pixels
from services.patching.locating import most_seen_pixels

WORKING_BYTES: Final = 110
"""Bytes for each pixel of the working copy: densities and maps of floats, masks of parts and of their unions."""
NETWORK_BYTES: Final = 115
"""Bytes that a locator in this process takes for each pixel that it sees; 94 to 111 were measured."""
OTHER_BYTES: Final = 32 << 20
"""Crops of one message, and what allocators and libraries keep."""
_EXPOSURE_SHARE: Final = 4
"""Exposure is measured on a quarter of the pixels, three bytes each at a time."""
_PATCH_BYTES: Final = 7
"""Bytes for each pixel of a patch: a copy, and that of Pillow."""


def location_bytes(header: ImageHeader) -> int:
    """Most memory in bytes of ``LocateCells`` at a time, the encoded image not included.

    The image is decoded first; then it is located and measured beside the decoded pixels. The peak of the resident memory of a process, in MiB
    above its start, and in brackets what this function predicts: 100 megapixels as JPEG, PNG or TIFF, with or without alpha, of 8 or 16 bits,
    upright or turned, 670 (716); as a progressive JPEG 955 (1004); as a turned TIFF 763 (811); as a TIFF of one strip 670
    (811, of JPEG data 1383); by the stain a field of 1280 x 960 px 36, the worst drawn field of 1000 x 1000 px 110. How large the image is
    that a locator sees follows from its red cells, which no header tells; so the largest counts, 172 MiB for a field of 1280 x 960 px.
    """
    working = max(WORKING_BYTES * working_pixels(header.height, header.width), NETWORK_BYTES * most_seen_pixels(header.height, header.width))
    located = header.decoded_bytes + max(working, 3 * header.pixels // _EXPOSURE_SHARE)
    return max(decode_bytes(header), located) + OTHER_BYTES


def patches_bytes(header: ImageHeader, largest_patch: int) -> int:
    """Most memory in bytes of ``CutPatches`` at a time.

    Args:
        header: of the image.
        largest_patch: longest side in px that a patch can have; it has no more than the shorter side of the image.
    """
    side = min(largest_patch, header.width, header.height)
    return max(location_bytes(header), header.decoded_bytes + _PATCH_BYTES * side**2 + OTHER_BYTES)
