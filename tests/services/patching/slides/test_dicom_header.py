"""What a header says in a form that others can ask for."""

from __future__ import annotations

import pytest

from services.common.errors import InvalidImageError
from services.patching.slides.dicom_header import WHOLE_SLIDE, DicomHeader, Syntax


def header(texts: dict[str, str] | None = None, **numbers: int) -> DicomHeader:
    return DicomHeader(Syntax.EXPLICIT, texts or {}, numbers, 0, 0, {})


def test_tiles_are_counted_over_planes_and_paths() -> None:
    made = header({"frames": "24"}, width=230, height=150, columns=64, rows=64, planes=2)
    assert (made.grid, made.tiles, made.frames) == (12, 24, 24)
    assert header(width=230, height=150).tiles == 0


@pytest.mark.parametrize(("text", "frames"), [("7", 7), ("", 0), ("-1", 0), ("1e9", 0), ("9" * 13, 0), ("\u0663", 0)])
def test_frames_are_a_plain_number(text: str, frames: int) -> None:
    assert header({"frames": text}).frames == frames
    assert header().frames == 1


def test_only_a_volume_is_a_resolution() -> None:
    for flavour, is_resolution in (("VOLUME", True), ("volume ", True), ("LABEL", False), ("", False)):
        assert header({"sop_class": WHOLE_SLIDE, "image_type": f"DERIVED\\PRIMARY\\{flavour}\\NONE"}).is_resolution is is_resolution
    assert not header({"sop_class": "1.2.3", "image_type": "ORIGINAL\\PRIMARY\\VOLUME"}).is_resolution


@pytest.mark.parametrize(("uid", "words"), [("1.2.840.10008.1.2.4.110", "JPEG XL"), ("1.2.840.10008.1.2.2", "big endian"), ("9.9", "(9.9)")])
def test_a_transfer_syntax_that_is_not_read_is_called_by_its_name(uid: str, words: str) -> None:
    with pytest.raises(InvalidImageError) as caught:
        Syntax.named(uid)
    assert caught.value.reason == "SLIDE_UNSUPPORTED"
    assert words in caught.value.message
