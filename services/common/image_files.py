"""Image files in folders: which are read, which a system has left there, and how names are shown to people."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

IMAGE_SUFFIXES: Final = (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".tif", ".tiff", ".bmp")
"""Suffixes, in lower case, of the files in a folder that are read as images."""
_LEFT_BY_SYSTEMS: Final = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini", "icon\r"}
    | {"__macosx", "$recycle.bin", "system volume information", "@eadir", "#recycle", "lost+found"}
)
"""Names, in lower case, of files and folders that Windows, macOS and network drives put beside images."""
_APPLE_DOUBLE, _HIDDEN, _HIDDEN_FOLDER, _LINK = "._*", ".*", ".*/", "->"
_WORDS: Final = {
    _APPLE_DOUBLE: ("1 hidden file (._*)", "{} hidden files (._*)"),
    _HIDDEN: ("1 hidden file", "{} hidden files"),
    _HIDDEN_FOLDER: ("1 hidden folder", "{} hidden folders"),
    _LINK: ("1 link to what is read already", "{} links to what is read already"),
    "": ("1 file without a suffix", "{} files without a suffix"),
}
_MOST_KINDS: Final = 12
_LONGEST_SUFFIX: Final = 12
_CONTROLS: Final = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
CONTROLS: Final = re.compile(rf"[{_CONTROLS}]")
"""Characters that steer a terminal or turn the direction of a text, without line end and tab."""
SURROGATES: Final = re.compile(r"[\ud800-\udfff]")
"""Bytes of a name that are no UTF-8, as Python holds them."""
_UNSHOWN_IN_NAMES: Final = re.compile(rf"[{_CONTROLS}\t\n\ud800-\udfff]")
_UNSHOWN_IN_TEXTS: Final = re.compile(rf"[{_CONTROLS}\ud800-\udfff]")
_REPLACEMENT: Final = "\ufffd"


def shown(name: object) -> str:
    """A name or path as people see it, on one line: what a terminal would obey, and what is no text, is replaced."""
    return _UNSHOWN_IN_NAMES.sub(_REPLACEMENT, str(name))


def shown_text(text: str) -> str:
    """A text as people see it; as ``shown``, but it keeps its lines."""
    return _UNSHOWN_IN_TEXTS.sub(_REPLACEMENT, text)


def is_left_over(name: str) -> bool:
    """Whether a file or folder of this name is hidden or was left by a system; it is no image, whatever its suffix."""
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS


def left_overs(folder: Path) -> Counter[str]:
    """What lies directly in a folder and was left by a system, by kind; see ``passed_over_words``."""
    return Counter(_kind(path.name, is_folder=False) for path in folder.glob("*") if is_left_over(path.name) and path.is_file())


def passed_over_words(kinds: Mapping[str, int]) -> str:
    """What was passed over, in words: ``3 hidden files (._*), Thumbs.db, 2 .webp``; empty where there is nothing."""
    ordered = Counter(kinds).most_common()
    words = [_words(kind, count) for kind, count in ordered[:_MOST_KINDS]]
    if others := sum(count for _, count in ordered[_MOST_KINDS:]):
        words.append(f"{others} of other kinds")
    return ", ".join(words)


class ImageSearch:
    """A search for images in folders and below. Links are followed; each file is found once, each folder is looked through once.

    Attributes:
        images: what was found, folder by folder, by name. What has the name of an image and cannot be read is among them, and so is a folder
            that cannot be read: the reader reports them.
        passed_over: how often what was passed over, by kind; see ``passed_over_words``.
    """

    def __init__(self) -> None:
        self.images: list[Path] = []
        self.passed_over: Counter[str] = Counter()
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def add_file(self, path: Path) -> None:
        """Take a file that a person named, whatever it is; it is not found again in a folder."""
        self.images.append(path)
        self._files.add(os.path.realpath(path))

    def look_through(self, folder: Path) -> bool:
        """Find the images in a folder and below.

        Returns:
            Whether there are any, those that were found before among them.
        """
        before, found, met_before = frozenset(self._folders), set[Path](), False
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            real = os.path.realpath(here)
            if real in self._folders:
                met_before |= real in before
                self.passed_over[_LINK] += here != folder
                continue
            self._folders.add(real)
            try:
                names = os.listdir(here)
            except OSError:
                found.add(here)
                continue
            for name in sorted(names):
                path = here / name
                if os.path.isdir(path) and not is_left_over(name):
                    waiting.append(path)
                elif not _is_image(name):
                    self.passed_over[_kind(name, is_folder=os.path.isdir(path))] += 1
                elif (file := os.path.realpath(path)) in self._files:
                    met_before = True
                    self.passed_over[_LINK] += 1
                else:
                    self._files.add(file)
                    found.add(path)
        self.images += sorted(found)
        return bool(found) or met_before


def _is_image(name: str) -> bool:
    return not is_left_over(name) and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _kind(name: str, *, is_folder: bool) -> str:
    if name.lower() in _LEFT_BY_SYSTEMS:
        return shown(name)
    if is_folder:
        return _HIDDEN_FOLDER
    if name.startswith("."):
        return _APPLE_DOUBLE if name.startswith("._") else _HIDDEN
    return shown(os.path.splitext(name)[1].lower())[:_LONGEST_SUFFIX]


def _words(kind: str, count: int) -> str:
    if kind in _WORDS:
        one, several = _WORDS[kind]
        return one if count == 1 else several.format(count)
    return kind if count == 1 and not kind.startswith(".") else f"{count} {kind}"
