"""What image files are called."""

from __future__ import annotations

from typing import Final

IMAGE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
"""Suffixes, in lower case, of files that are taken for images when a folder is looked through."""
