"""A data set as training sees it: labelled images, and the group of each image, which a split keeps whole."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.common.image_files import IMAGE_SUFFIXES
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


def read_rows(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Rows of a CSV file with a header, gzipped or not.

    Raises:
        DatasetError: the file is missing, is no text, lacks a column or has a row of another length.
    """
    if not path.is_file():
        raise DatasetError(f"{path} is missing: is {path.parent} the folder of this data set?")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        rows = list(reader)
        missing = [c for c in columns if c not in (reader.fieldnames or [])]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is not a readable table: {error}") from error
    if missing:
        raise DatasetError(f"{path} lacks the columns {missing}.")
    broken = [number for number, row in enumerate(rows, start=2) if None in row or None in row.values()]
    if broken:
        raise DatasetError(f"{path}: rows {broken[:5]} do not have as many fields as the header.")
    return rows


def existing(path: Path, named_in: str = "the labels") -> Path:
    """The path, if there is such a file.

    Raises:
        DatasetError: there is not.
    """
    if not path.is_file():
        raise DatasetError(f"{path} is named in {named_in} but missing.")
    return path


def images_in(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Image files directly in a folder, by name.

    Raises:
        DatasetError: there are none.
    """
    found = sorted(p for p in folder.glob("*") if p.suffix.lower() in suffixes and p.is_file())
    if not found:
        raise DatasetError(f"{folder} holds no images: is its parent the folder of this data set?")
    return found
