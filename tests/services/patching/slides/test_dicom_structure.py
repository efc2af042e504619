"""The elements of a DICOM file are counted before a parser reads them."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.errors import InvalidImageError
from services.patching.slides.dicom_header import WHOLE_SLIDE, Syntax
from services.patching.slides.dicom_structure import MAX_DEPTH, MAX_ELEMENTS, MAX_HELD_BYTES, check_dicom, read_meta
from tests.properties import examples
from tests.services.patching.slides.dicom_files import write_dicom

PIXELS = np.full((150, 230, 3), 200, np.uint8)


def element(tag: int, kind: bytes, value: bytes, length: int | None = None) -> bytes:
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + kind
    length = len(value) if length is None else length
    return head + (struct.pack("<HI", 0, length) if kind in (b"OB", b"SQ", b"UN") else struct.pack("<H", length)) + value


def item(content: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def whole(*elements: bytes, syntax: str = Syntax.EXPLICIT) -> io.BytesIO:
    named = syntax.encode() + b"\0" * (len(syntax) % 2)
    return io.BytesIO(bytes(128) + b"DICM" + element(0x00020010, b"UI", named) + b"".join(elements))


def numbers(columns: int, rows: int, width: int, height: int, frames: int = 1) -> tuple[bytes, ...]:
    return (
        element(0x00280008, b"IS", str(frames).encode().ljust(12)),
        element(0x00280010, b"US", struct.pack("<H", rows)),
        element(0x00280011, b"US", struct.pack("<H", columns)),
        element(0x00480006, b"UL", struct.pack("<I", width)),
        element(0x00480007, b"UL", struct.pack("<I", height)),
    )


def refused(file: io.BytesIO) -> InvalidImageError:
    with pytest.raises(InvalidImageError) as caught:
        check_dicom(file)
    return caught.value


@pytest.mark.parametrize("syntax", [Syntax.IMPLICIT, Syntax.EXPLICIT, Syntax.JPEG])
def test_a_slide_of_an_independent_writer_passes(tmp_path: Path, syntax: Syntax) -> None:
    encode = None if syntax is Syntax.JPEG else (lambda tile: tile.tobytes())
    with write_dicom(tmp_path / "slide.dcm", PIXELS, syntax=syntax, encode=encode).open("rb") as file:
        header = check_dicom(file)
    assert header.syntax is syntax
    assert (header.width, header.height, header.frames, header.flavour, header.is_resolution) == (230, 150, 12, "VOLUME", True)
    assert header.pixels_at > 0


@pytest.mark.parametrize("named", ["1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.1.99", "none"])
def test_another_transfer_syntax_is_refused(named: str) -> None:
    assert refused(whole(syntax=named)).reason == "SLIDE_UNSUPPORTED"


def test_what_the_file_holds_is_said_before_its_transfer_syntax_is_judged(tmp_path: Path) -> None:
    with write_dicom(tmp_path / "slide.dcm", PIXELS).open("rb") as file:
        meta = read_meta(file)
    assert (meta.sop_class, meta.syntax) == (WHOLE_SLIDE, Syntax.JPEG)
    assert read_meta(whole(syntax="9.9")).syntax == "9.9"


@pytest.mark.parametrize("undefined", [False, True])
def test_sequences_nested_too_deep_are_refused(undefined: bool) -> None:
    def nested(depth: int) -> bytes:
        content = b""
        for _ in range(depth):
            length = 0xFFFFFFFF if undefined else None
            content = element(0x00400560, b"SQ", item(content), length)
        return content

    check_dicom(whole(nested(MAX_DEPTH)))
    assert "nested deeper" in refused(whole(nested(MAX_DEPTH + 1))).message


def test_more_elements_than_a_slide_has_are_refused() -> None:
    short = element(0x00080060, b"CS", b"SM")
    assert "more elements" in refused(whole(short * (MAX_ELEMENTS + 1))).message


def test_values_that_would_fill_the_memory_are_refused_unread() -> None:
    class Sparse(io.BytesIO):
        """A file whose zeros after its content are not held."""

        def seek(self, offset: int, whence: int = 0) -> int:
            return 2**33 if whence == 2 else super().seek(offset, whence)

    assert "hold more" in refused(Sparse(whole(element(0x00282000, b"OB", b"", MAX_HELD_BYTES + 1)).getvalue())).message


@pytest.mark.parametrize(
    ("given_numbers", "reason"),
    [
        (numbers(64, 64, 2_000_000, 64), "SLIDE_TOO_LARGE"),
        (numbers(64, 64, 900_000, 900_000), "SLIDE_TOO_LARGE"),
        (numbers(1, 1, 100_000, 100_000), "SLIDE_DAMAGED"),
        (numbers(64, 64, 128, 64, frames=2_000_000_000), "SLIDE_DAMAGED"),
        (numbers(64, 64, 128, 64, frames=1000), "SLIDE_DAMAGED"),
    ],
    ids=["side", "area", "tiles", "frames", "frames that are not there"],
)
def test_counts_that_make_no_sense_are_refused(given_numbers: tuple[bytes, ...], reason: str) -> None:
    assert refused(whole(*given_numbers)).reason == reason


@pytest.mark.parametrize("content", [b"", bytes(200), whole().getvalue()[:140]])
def test_what_ends_early_is_refused(content: bytes) -> None:
    assert refused(io.BytesIO(content)).reason == "SLIDE_DAMAGED"


@settings(max_examples=examples(300), deadline=None)
@given(data=st.binary(max_size=200), at=st.integers(132, 400))
def test_whatever_the_bytes_are_only_typed_errors_come(data: bytes, at: int) -> None:
    valid = whole(*numbers(64, 64, 128, 64), element(0x00400560, b"SQ", item(element(0x00080100, b"SH", b"111744")))).getvalue()
    with suppress(InvalidImageError):
        check_dicom(io.BytesIO(valid[:at] + data + valid[at:]))
