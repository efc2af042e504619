"""Kinds of files by their first bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.file_kinds import BMP, JPEG, PNG, name_of


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\xff\xd8\xff\xe0", JPEG),
        (b"\x89PNG\r\n\x1a\n", PNG),
        (b"BM\0\0\0\0", BMP),
        (b"RIFF\0\0\0\0WEBPVP8 ", "a WebP image"),
        (b"\0\0\0\x1cftypavif", "an AVIF image"),
        (b"\0\0\0\x1cftypheic", "a HEIF image"),
        (b"\0\0\0\x1cftypmp42", "a film, or an image of a kind like HEIF"),
        (b"II*\0\x08\0\0\0", ""),
        (b"", ""),
    ],
)
def test_a_kind_has_its_name(head: bytes, name: str) -> None:
    assert name_of(head) == name


@given(st.binary(max_size=40))
def test_any_bytes_are_named_or_not(head: bytes) -> None:
    assert isinstance(name_of(head), str)
