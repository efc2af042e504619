"""Suffixes of image files."""

from __future__ import annotations

from typing import Final

IMAGE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
"""Suffixes, in lower case, of the files in a folder that are read as images."""
