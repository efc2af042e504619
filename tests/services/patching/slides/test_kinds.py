"""A file that is no slide is called what it is."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from services.common.errors import InvalidImageError
from services.patching.slides.opening import open_slide


def encoded(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(buffer, form)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (encoded("JPEG"), "a JPEG image"),
        (encoded("PNG"), "a PNG image"),
        (encoded("BMP"), "a BMP image"),
        (encoded("GIF"), "a GIF image"),
        (encoded("WEBP"), "a WebP image"),
        (encoded("JPEG2000"), "a JPEG 2000 image"),
        (b"ZISRAWFILE" + bytes(100), "a CZI file"),
        (b"PK\3\4" + bytes(100), "a ZIP archive"),
        (b'<?xml version="1.0"?>', "an XML file"),
        (b"\x02\0\0\0UL\4\0" + bytes(300), "DICOM data without the preamble"),
        (b"nothing", "in no format"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_it_is_and_what_is_read(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InvalidImageError) as caught:
        open_slide(tmp_path / "x")
    assert caught.value.reason == "SLIDE_UNKNOWN_FORMAT"
    assert words in caught.value.message
    assert "DICOM" in caught.value.message
