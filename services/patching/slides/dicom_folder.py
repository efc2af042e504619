"""The DICOM files of one slide: a file, or those in a folder. What is no slide, and what belongs to another one, is told by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from services.common.errors import InvalidImageError, InvalidRequestError
from services.common.image_files import shown
from services.patching.slides.dicom_header import SINGLE_IMAGES, WHOLE_SLIDE, DicomHeader
from services.patching.slides.dicom_structure import check_dicom, read_meta
from services.patching.slides.slide import damaged
from services.patching.slides.tiff_structure import is_tiff

MAX_ENTRIES: Final = 10_000
"""Files and folders that a folder may hold, of any kind; each is looked at."""
MAX_FILES: Final = 256
"""Files of one slide: its resolutions, each in parts. All are open while it is read."""
_MAGIC_AT: Final = 128
_MICROSCOPIC: Final = ("1.2.840.10008.5.1.4.1.1.77.1.2", "1.2.840.10008.5.1.4.1.1.77.1.3")
_DIRECTORY: Final = "1.2.840.10008.1.3.10"
_SAME_STEP: Final = 0.1
"""How far the reductions of width and height of one resolution may differ: some writers fill up the last tiles."""
_READ: Final = "which is no slide; read are whole-slide images and single microscopic or photographic images"
_FLAVOURS: Final = {"LABEL": "the label of a slide", "OVERVIEW": "the overview of a slide", "THUMBNAIL": "the thumbnail of a slide"}
_NEEDED: Final = {
    "instance": "SOP Instance UID",
    "study": "Study Instance UID",
    "series": "Series Instance UID",
    "colours": "Photometric Interpretation",
}


@dataclass(frozen=True)
class DicomFile:
    """A file of a slide: its name in the folder, where it lies, and what its header says."""

    name: str
    path: Path
    header: DicomHeader


@dataclass(frozen=True)
class DicomFiles:
    """Files that are one slide: all with tiles of it, or one single image."""

    files: tuple[DicomFile, ...]

    @property
    def is_single_image(self) -> bool:
        """Whether it is a single image without tiles."""
        return self.files[0].header.sop_class != WHOLE_SLIDE

    @property
    def stored(self) -> int:
        """Bytes of the files together."""
        return sum(file.path.stat().st_size for file in self.files)


@dataclass
class _Seen:
    """What a folder holds."""

    slides: list[DicomFile] = field(default_factory=list)
    singles: list[DicomFile] = field(default_factory=list)
    others: list[tuple[str, str]] = field(default_factory=list)
    tiffs: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)


def has_dicom_magic(path: Path) -> bool:
    """Whether a file begins as DICOM does."""
    with path.open("rb") as file:
        file.seek(_MAGIC_AT)
        return file.read(4) == b"DICM"


def dicom_file(path: Path) -> DicomFiles:
    """The slide in one DICOM file.

    Raises:
        InvalidImageError: SLIDE_UNSUPPORTED: it holds something else; SLIDE_DAMAGED: it holds only a part of a slide.
    """
    seen = _Seen()
    _look_at(shown(path.name), path, seen)
    if seen.others:
        raise InvalidImageError("SLIDE_UNSUPPORTED", f"The file is a DICOM object of another kind ({_class_name(seen.others[0][1])}), {_READ}.")
    return _one_slide(seen)


def dicom_folder(folder: Path, root: Path | None) -> DicomFiles:
    """The slide whose DICOM files lie in a folder. Links are followed where they stay below the root.

    Args:
        folder: that holds the files.
        root: where slides may lie; None for the folder itself.

    Raises:
        InvalidImageError: SLIDE_SEVERAL: it holds more than one slide; SLIDE_UNKNOWN_FORMAT: it holds none; SLIDE_TOO_LARGE: more files than are
            looked at; SLIDE_UNREADABLE: a link leads nowhere; or another reason SLIDE_*.
        InvalidRequestError: SLIDE_PATH_INVALID: a link leaves the root.
    """
    entries = sorted(islice(folder.iterdir(), MAX_ENTRIES + 1))
    if len(entries) > MAX_ENTRIES:
        raise InvalidImageError(
            "SLIDE_TOO_LARGE", f"The folder holds more than {MAX_ENTRIES} files; put those of the slide into a folder of their own."
        )
    seen, within = _Seen(), (root or folder).resolve()
    for entry in entries:
        path = _followed(entry, within) if entry.is_symlink() else entry
        if path.is_dir():
            seen.folders.append(shown(entry.name))
        elif path.is_file():
            _look_at(shown(entry.name), path, seen)
    return _one_slide(seen)


def _followed(link: Path, within: Path) -> Path:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise InvalidImageError("SLIDE_UNREADABLE", f"In the folder of the slide, the link {shown(link.name)} leads to no file.") from error
    if not target.is_relative_to(within):
        raise InvalidRequestError(
            "SLIDE_PATH_INVALID",
            f"In the folder of the slide, the link {shown(link.name)} leads out of the root of the slides; put the file itself there.",
            field="source.path",
        )
    return target


def _look_at(name: str, path: Path, seen: _Seen) -> None:
    with path.open("rb") as file:
        head = file.read(_MAGIC_AT + 4)
        if head[_MAGIC_AT:] != b"DICM":
            if is_tiff(head):
                seen.tiffs.append(name)
            return
        sop_class = read_meta(file).sop_class
        if sop_class not in (WHOLE_SLIDE, "") and sop_class not in SINGLE_IMAGES:
            seen.others.append((name, sop_class))
            return
        header = check_dicom(file)
    found = DicomFile(name, path, header)
    if header.sop_class == WHOLE_SLIDE:
        seen.slides.append(found)
        if len(seen.slides) > MAX_FILES:
            raise InvalidImageError("SLIDE_TOO_LARGE", f"The folder holds more than {MAX_FILES} files of slides; a slide has at most as many.")
    elif header.sop_class in SINGLE_IMAGES:
        seen.singles.append(found)
    else:
        seen.others.append((name, header.sop_class))


def _one_slide(seen: _Seen) -> DicomFiles:
    resolutions = _without_copies([file for file in seen.slides if file.header.is_resolution])
    if not resolutions:
        return _single_image(seen)
    for file in resolutions:
        _check_complete(file.header)
    base = max(resolutions, key=lambda file: file.header.width * file.header.height)
    apart = [file.name for file in resolutions if not _belongs(file.header, base.header)]
    apart += [file.name for file in seen.singles if file.header.sop_class in _MICROSCOPIC]
    if apart or seen.tiffs:
        raise _several([base.name, *apart, *seen.tiffs])
    _check_parts(resolutions)
    return DicomFiles(tuple(resolutions))


def _single_image(seen: _Seen) -> DicomFiles:
    """The one single image where there are no tiles."""
    names = [file.name for file in seen.singles] + seen.tiffs
    if len(names) > 1 and seen.singles:
        raise _several(names)
    if seen.singles:
        return DicomFiles(tuple(seen.singles))
    if seen.slides:
        flavour = seen.slides[0].header.flavour
        raise InvalidImageError(
            "SLIDE_UNSUPPORTED", f"{seen.slides[0].name} is {_FLAVOURS.get(flavour, 'no volume of a slide')}; its tiles (VOLUME) are in another file."
        )
    raise InvalidImageError("SLIDE_UNKNOWN_FORMAT", f"The folder holds no DICOM slide{_instead(seen)}.")


def _instead(seen: _Seen) -> str:
    if seen.tiffs:
        return f", but {seen.tiffs[0]}, a TIFF; name that file itself"
    if seen.folders:
        return f" itself; folders below it, such as {seen.folders[0]}, are not looked into: name the one that holds the files"
    kinds = [_class_name(sop_class) for _, sop_class in seen.others if sop_class != _DIRECTORY]
    return f"; {seen.others[0][0]} is a DICOM object of another kind ({kinds[0]})" if kinds else ""


def _several(names: Sequence[str]) -> InvalidImageError:
    shown = " and ".join(names) if len(names) == 2 else f"{', '.join(names[:3])}{' and others' if len(names) > 3 else ''}"
    return InvalidImageError(
        "SLIDE_SEVERAL",
        f"The folder holds more than one slide: {shown}. Name one file, or give each slide a folder of its own.",
        metadata={"files": shown},
    )


def _without_copies(files: Sequence[DicomFile]) -> list[DicomFile]:
    """Drop files that are copies: the same object number and the same length."""
    kept: dict[str, DicomFile] = {}
    for file in files:
        first = kept.setdefault(file.header.text("instance") or file.name, file)
        if first is not file and first.path.stat().st_size != file.path.stat().st_size:
            raise _several([first.name, file.name])
    return list(kept.values())


def _belongs(header: DicomHeader, base: DicomHeader) -> bool:
    """Whether a file is a resolution, a plane or a part of the slide of another file."""
    names = ("study", "container", "pyramid", "frame_of_reference")
    if any(header.text(name) and base.text(name) and header.text(name) != base.text(name) for name in names):
        return False
    if header.text("series") != base.text("series") and not (header.text("frame_of_reference") and base.text("frame_of_reference")):
        return False
    across, down = base.width / header.width, base.height / header.height
    return abs(across / down - 1) <= _SAME_STEP or abs(header.height - base.height / across) <= 2 or abs(header.width - base.width / down) <= 2


def _check_complete(header: DicomHeader) -> None:
    """Refuse a slide that lacks what its reader needs: the reader would drop the file without a word."""
    missing = [words for name, words in _NEEDED.items() if not header.text(name)]
    if min(header.width, header.height, header.columns, header.rows) < 1:
        missing.append("size in tiles (Rows, Columns, Total Pixel Matrix)")
    if header.text("concatenation") and not header.text("concatenated"):
        missing.append("SOP Instance UID of Concatenation Source")
    if missing:
        raise InvalidImageError("SLIDE_UNSUPPORTED", f"The DICOM slide does not say its {', '.join(missing)}.")


def _check_parts(files: Sequence[DicomFile]) -> None:
    """Refuse a slide whose parts, or tiles, are not all there.

    Raises:
        InvalidImageError: SLIDE_DAMAGED.
    """
    together: dict[str, list[DicomHeader]] = {}
    for file in files:
        together.setdefault(file.header.text("concatenated") or file.header.text("instance"), []).append(file.header)
    for headers in together.values():
        parts = max(header.number("parts") for header in headers)
        if headers[0].text("concatenated") and parts > len(headers):
            raise damaged(f"only {len(headers)} of the {parts} files that one resolution is divided into are there")
        frames = sum(header.frames for header in headers)
        if headers[0].text("organization") == "TILED_FULL" and frames < headers[0].tiles:
            raise damaged(f"only {frames} of its {headers[0].tiles} tiles are there")


def _class_name(sop_class: str) -> str:
    from pydicom.uid import UID  # imported here: only a refusal needs it

    return str(UID(sop_class).name)[:80] if sop_class else "it does not say which"
