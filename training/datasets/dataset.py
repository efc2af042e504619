"""A data set as training sees it: labelled images, and the group of each image, which a split keeps whole."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.common.image_files import IMAGE_SUFFIXES, is_left_over, left_overs, passed_over_words, shown
from training.errors import DatasetError

AMBIGUOUS: Final = None


class GroupKind(StrEnum):
    """What images of one group share. A split never divides a group."""

    PATIENT = "patient"
    SUBJECT = "subject"
    SLIDE = "slide"
    SOURCE_TILE = "source_tile"
    FIELD = "field"
    BLOCK = "block"
    """Runs of neighbouring file numbers, where nothing better is known."""
    NONE = "none"
    """Nothing is known of what images share: every split of them may leak."""


class ImageKind(StrEnum):
    """What an image shows."""

    CELL = "cell"
    FIELD = "field"
    PATCH = "patch"
    TISSUE = "tissue"


class Subset(StrEnum):
    """The part of the split of an image, by the committed list of patients or by the publisher."""

    TRAIN = "train"
    CALIBRATION = "calibration"
    TEST = "test"
    KEPT_BACK = "kept_back"
    """Of fields that are kept back: for the papers' own protocols alone, which split by image. No release, threshold or choice sees it."""
    UNASSIGNED = ""


@dataclass(frozen=True)
class LabelledImage:
    """One image of a data set.

    Attributes:
        path: the file.
        source: name of the data set.
        key: identifier within the data set, without a path of any machine.
        classes: names of the classes that it shows: one, or any number in a multi-label data set.
        group: patient, subject, slide, source tile, field or block, as the data set's ``grouped_by`` says; empty if unknown.
        subset: part that the image is given to; UNASSIGNED where nobody did.
        fold: name of the publisher's fold; empty if there is none.
        is_blast: 1 blast, 0 normal, None ambiguous or not a cell.
    """

    path: Path
    source: str
    key: str
    classes: tuple[str, ...]
    group: str
    subset: Subset = Subset.UNASSIGNED
    fold: str = ""
    is_blast: int | None = None


@dataclass(frozen=True)
class Dataset:
    """A data set that was read. Names and labels are loaded, images are not.

    Attributes:
        name: as ``LabelledImage.source``.
        kind: what its images show.
        classes: all class names, in the order of the label vector.
        grouped_by: what a group is.
        images: in a stable order.
        multi_label: whether an image may show any number of classes.
        notes: what a user must know of this copy.
    """

    name: str
    kind: ImageKind
    classes: tuple[str, ...]
    grouped_by: GroupKind
    images: tuple[LabelledImage, ...]
    multi_label: bool = False
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.images:
            raise DatasetError(f"{self.name}: no images; is this the folder of the data set, and is it complete?")
        unknown = {c for image in self.images for c in image.classes} - set(self.classes)
        if unknown:
            raise DatasetError(f"{self.name}: classes {sorted(unknown)} are not among {list(self.classes)}.")
        if not self.multi_label and any(len(image.classes) != 1 for image in self.images):
            raise DatasetError(f"{self.name}: every image needs exactly one class.")


def label_matrix(images: Sequence[LabelledImage], classes: Sequence[str]) -> NDArray[np.int8]:
    """Labels as 0 and 1, int8 (N, K)."""
    position = {name: i for i, name in enumerate(classes)}
    labels = np.zeros((len(images), len(classes)), np.int8)
    for row, image in enumerate(images):
        for name in image.classes:
            labels[row, position[name]] = 1
    return labels


def existing(path: Path, named_in: str = "the labels") -> Path:
    """The path, if there is such a file.

    Raises:
        DatasetError: there is not.
    """
    if not path.is_file():
        raise DatasetError(f"{shown(path)} is named in {named_in} but missing.")
    return path


def file_named(folder: Path, name: str, named_in: str) -> Path:
    """The file that a table names, as Windows writes its path or as this system does, and however its accents are written.

    Raises:
        DatasetError: the name is empty, or there is no such file.
    """
    if not name:
        raise DatasetError(f"A line of {named_in} names no file.")
    spellings = [unicodedata.normalize(form, plain) for plain in (name, name.replace("\\", "/")) for form in ("NFC", "NFD")]
    there = (folder / spelling for spelling in (name, *spellings) if (folder / spelling).is_file())
    return next(there, None) or existing(folder / name, named_in)


def images_in(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Image files directly in a folder, by name. Hidden files, and those that a system has left there, are passed over, which is said once.

    Raises:
        DatasetError: there are none.
    """
    found = sorted(p for p in folder.glob("*") if p.suffix.lower() in suffixes and not is_left_over(p.name) and p.is_file())
    if words := passed_over_words(left_overs(folder)):
        _say_once(f"{shown(folder)}: passed over: {words}")
    if not found:
        raise DatasetError(
            f"{shown(folder)} holds no images: is its parent the folder of this data set? Files that end in {', '.join(suffixes)} are read."
        )
    return found


@cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr)
