"""Checks of request fields that several services share."""

from __future__ import annotations

import math
import re
from collections.abc import Sized
from typing import Final

from services.common.errors import InvalidRequestError

MAX_CELLS_PER_CALL: Final = 32
"""Cells, or patches, of one call between services, and so of one batch of inference."""
MAX_REFERENCES: Final = 256
"""Confirmed cells of one call."""
MAX_TEXT: Final = 128
"""Characters of an identifier, and of most texts."""

MAX_NAME: Final = 256
"""Characters of a name in a certificate."""

_SOURCE: Final = re.compile("[!-.0-~][ -.0-~]*")

_LEAST_SCALE: Final = 0.01 * (1.0 - 2.0**-23)
"""0.01 as a message holds it: in 32 bits it is a little less."""


def check_identifier(value: str, field: str) -> None:
    """Refuse identifiers that are long or hold anything but printable ASCII.

    Raises:
        InvalidRequestError: with reason IDENTIFIER_INVALID.
    """
    if len(value) > MAX_TEXT or not all(" " <= c <= "~" for c in value):
        raise InvalidRequestError("IDENTIFIER_INVALID", f"{field} takes up to {MAX_TEXT} printable ASCII characters.", field=field)


def check_text(text: str, field: str, longest: int = MAX_TEXT) -> None:
    """Refuse a text that is empty, too long, or not printable.

    Raises:
        InvalidRequestError: with reason TEXT_INVALID.
    """
    if not 1 <= len(text) <= longest or not text.isprintable() or not text.strip():
        raise InvalidRequestError("TEXT_INVALID", f"{field} takes 1..{longest} printable characters.", field=field)


def check_source(source: str) -> None:
    """Refuse a source of references that is empty, too long, or has a slash, which separates it from the rest of a reference's identifier.

    Raises:
        InvalidRequestError: with reason TEXT_INVALID.
    """
    check_text(source, "source")
    if _SOURCE.fullmatch(source) is None:
        raise InvalidRequestError("TEXT_INVALID", "source takes printable ASCII characters without a slash.", field="source")


def check_microns_per_pixel(value: float) -> float | None:
    """The scale, or None where it is not given (0).

    Raises:
        InvalidRequestError: with reason MICRONS_PER_PIXEL_OUT_OF_RANGE.
    """
    if value == 0:
        return None
    if not math.isfinite(value) or not _LEAST_SCALE <= value <= 10:
        raise InvalidRequestError(
            "MICRONS_PER_PIXEL_OUT_OF_RANGE", "microns_per_pixel must lie in 0.01..10, or be 0 where unknown.", field="microns_per_pixel"
        )
    return value


def check_count(items: Sized, field: str) -> None:
    """Refuse batches that are empty or too large.

    Raises:
        InvalidRequestError: with reason BATCH_SIZE_OUT_OF_RANGE.
    """
    if not 1 <= len(items) <= MAX_CELLS_PER_CALL:
        raise InvalidRequestError("BATCH_SIZE_OUT_OF_RANGE", f"{field} takes 1..{MAX_CELLS_PER_CALL} entries, got {len(items)}.", field=field)
