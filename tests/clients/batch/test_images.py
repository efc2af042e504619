"""Locations of images."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest

from clients.batch.errors import BatchError
from clients.batch.images import file_system, is_remote, local_path, location_of, read_image


@pytest.mark.parametrize("name", ["plain.png", "with space.png", "percent%20.png", "Blutausstrich-Ä.png"])
def test_a_local_path_comes_back(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"image")
    assert local_path(location_of(path)) == path
    assert read_image(location_of(path)) == b"image"


def test_a_name_that_is_no_text_becomes_a_uri(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    path.write_bytes(b"image")
    location = location_of(path)
    assert location.startswith("file:///")
    assert location.endswith("caf%E9.png")
    assert read_image(location) == b"image"


def test_an_object_store_is_read(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/images-of-a-test/one.png", b"remote")
    assert is_remote("memory://images-of-a-test/one.png")
    assert not is_remote(str(tmp_path))
    assert read_image("memory://images-of-a-test/one.png") == b"remote"


def test_an_unknown_file_system_is_said() -> None:
    with pytest.raises(BatchError, match="cannot be opened"):
        file_system("nothing-like-this://bucket/one.png")
