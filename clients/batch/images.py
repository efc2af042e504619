"""The images that a manifest names: local paths, file URIs, and URIs of any file system that fsspec knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import fsspec

from clients.batch.errors import BatchError


def is_remote(location: str) -> bool:
    """Whether a location is a URI of a file system other than that of this machine."""
    return "://" in location and not location.startswith("file://")


def local_path(location: str) -> Path:
    """The path of a location on this machine: a path, or a file URI with percent-encoded bytes."""
    return Path(url2pathname(unquote(urlsplit(location).path, errors="surrogateescape"))) if location.startswith("file://") else Path(location)


def location_of(path: Path) -> str:
    """A local path as a manifest names it: as it is, or as a file URI where its bytes are no UTF-8."""
    text = str(path.absolute())
    return text if text.isprintable() and not any(0xD800 <= ord(c) <= 0xDFFF for c in text) else path.absolute().as_uri()


def file_system(location: str) -> tuple[Any, str]:
    """The file system of a URI, and the path there.

    Raises:
        BatchError: its package is not installed, or the URI is none.
    """
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(location)
    except (ImportError, ValueError) as error:
        raise BatchError(f"{location} cannot be opened: {error}") from error
    return found


def read_image(location: str) -> bytes:
    """The bytes of an image.

    Raises:
        OSError: it cannot be read.
        BatchError: see ``file_system``.
    """
    if not is_remote(location):
        return local_path(location).read_bytes()
    system, path = file_system(location)
    content: bytes = system.cat_file(path)
    return content
