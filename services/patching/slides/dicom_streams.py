"""DICOM files as the parser is to see them: it finds tiles, and refuses labels of colours that do not concern it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from services.patching.slides.dicom_folder import DicomFile
from services.patching.slides.dicom_header import DicomHeader

_KNOWN: Final = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})


def streams_of(files: Sequence[DicomFile]) -> Iterator[Any]:
    """Open files for wsidicom. Where it would refuse how a header describes the colours, it is told of plain RGB."""
    # Imported here: the import takes half a second, and only DICOM needs it.
    from upath import UPath
    from wsidicom.file.io.wsidicom_io import WsiDicomReadIO

    for file in files:
        told = _told(file.header)
        stream = io.BufferedReader(_Overlaid(str(file.path), told)) if told else file.path.open("rb")
        try:
            yield WsiDicomReadIO(stream, filepath=UPath(file.path))
        except BaseException:
            stream.close()
            raise


def _told(header: DicomHeader) -> dict[int, bytes]:
    """What is read in place of the bytes in the file, by offset."""
    found: dict[int, bytes] = {}
    packed_with_colours = not (header.syntax.is_native or header.syntax.is_rle or header.syntax.is_jpeg_ls)
    at, length = header.places.get("colours", (0, 0))
    if length >= len("RGB") and header.colours != "RGB" and not (packed_with_colours and header.colours in _KNOWN):
        found[at] = b"RGB".ljust(length)
    at, length = header.places.get("planar", (0, 0))
    if length and header.number("planar") and not header.syntax.is_native:
        found[at] = bytes(length)
    return found


class _Overlaid(io.FileIO):
    """A file of which some bytes read otherwise."""

    def __init__(self, path: str, told: Mapping[int, bytes]) -> None:
        super().__init__(path, "rb")
        self._told = told

    def readinto(self, buffer: Any, /) -> int:
        """Read, and replace what is told."""
        start = self.tell()
        count = super().readinto(buffer)
        view = memoryview(buffer).cast("B")
        for at, value in self._told.items():
            first, last = max(start, at), min(start + count, at + len(value))
            if first < last:
                view[first - start : last - start] = value[first - at : last - at]
        return count
