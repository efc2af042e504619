"""Fields with boxes and cells with masks, to measure location; fields with a label, for the stress test."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from services.common.image_files import is_left_over
from training.datasets.dataset import Dataset, GroupKind, ImageKind, LabelledImage, existing, images_in
from training.datasets.tables import read_rows
from training.errors import DatasetError

ARIA_FIELDS: Final = "aria_fields"
ARIA_BLOCK_SIZE: Final = 20
"""File numbers in a row that are kept together: no patient is published, neighbours are alike."""
BCCD_FIELDS: Final = "bccd_fields"
CHULA_FIELDS: Final = "chula_fields"
CHULA_CLASSES: Final = ("neutrophil", "eosinophil", "basophil", "lymphocyte", "monocyte")
WBC_MASKS: Final = "wbc_masks"
WBC_CLASSES: Final = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")


@dataclass(frozen=True)
class TruthBox:
    """Box of one white cell, px: left, top, right, bottom."""

    left: float
    top: float
    right: float
    bottom: float

    def contains(self, x: float, y: float) -> bool:
        """Whether a point lies inside."""
        return self.left <= x <= self.right and self.top <= y <= self.bottom


@dataclass(frozen=True)
class Field:
    """A field and its white cells."""

    path: Path
    boxes: tuple[TruthBox, ...]


def read_bccd_fields(root: Path) -> list[Field]:
    """Read ``bccd_fields``: ``JPEGImages/*.jpg`` with Pascal VOC boxes in ``Annotations/*.xml``; WBC only."""
    boxes = read_bccd_boxes(root, "WBC")
    return [Field(path, boxes[path.stem]) for path in images_in(root / "JPEGImages", (".jpg",))]


def read_bccd_boxes(root: Path, name: str) -> dict[str, tuple[TruthBox, ...]]:
    """Boxes of the objects of one name, ``WBC``, ``RBC`` or ``Platelets``, by the stem of the image."""
    found = {}
    for path in images_in(root / "JPEGImages", (".jpg",)):
        tree = ElementTree.parse(root / "Annotations" / f"{path.stem}.xml")
        boxes = [o.find("bndbox") for o in tree.iter("object") if o.findtext("name") == name]
        found[path.stem] = tuple(TruthBox(*(float(b.findtext(n) or 0) for n in ("xmin", "ymin", "xmax", "ymax"))) for b in boxes if b is not None)
    return found


def read_chula_fields(root: Path) -> list[Field]:
    """Read ``chula_fields``: ``images/*.jpg`` with YOLO boxes (class, centre and size as shares) in ``labels/*.txt``."""
    fields = []
    for path in images_in(root / "images", (".jpg",)):
        with Image.open(path) as image:
            width, height = image.size
        lines = (root / "labels" / f"{path.stem}.txt").read_text(encoding="utf-8").split("\n")
        rows = [[float(v) for v in line.split()] for line in lines if len(line.split()) == 5]
        boxes = [TruthBox((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height) for _, x, y, w, h in rows]
        fields.append(Field(path, tuple(boxes)))
    return fields


def read_wbc_masks(root: Path) -> Iterator[tuple[Path, NDArray[np.bool_]]]:
    """Read ``wbc_masks``: ``NNN_image.png`` with ``NNN_mask.png``; grey (cytoplasm) and white (nucleus) are the cell."""
    for path in sorted(p for p in root.glob("*_image.png") if not is_left_over(p.name)):
        mask = path.with_name(path.name.replace("_image", "_mask"))
        if not mask.is_file():
            raise DatasetError(f"{mask} is missing.")
        with Image.open(mask) as image:
            yield path, np.asarray(image.convert("L")) > 60


def read_aria_fields(root: Path) -> Dataset:
    """Read ``aria_fields``: ``labels.csv`` with path, subclass, label; grouped in runs of ``ARIA_BLOCK_SIZE`` file numbers.

    Raises:
        DatasetError: the labels or an image are missing, or a name has no number.
    """
    images = []
    for row in read_rows(root / "labels.csv", ("path", "subclass", "label")):
        number = re.search(r"(\d+)\.\w+$", row["path"])
        if number is None:
            raise DatasetError(f"{root}: {row['path']!r} has no number.")
        block = f"{row['subclass']}-{(int(number[1]) - 1) // ARIA_BLOCK_SIZE:02d}"
        images.append(LabelledImage(existing(root / row["path"]), ARIA_FIELDS, row["path"], (row["subclass"],), block))
    notes = ("no patients; the colours alone tell the classes apart: accuracy within this set is evidence of nothing",)
    return Dataset(ARIA_FIELDS, ImageKind.FIELD, ("Benign", "Early", "Pre", "Pro"), GroupKind.BLOCK, tuple(images), notes=notes)


def read_bccd_set(root: Path) -> Dataset:
    """Read ``bccd_fields`` as images of healthy fields, each a group of its own; boxes with ``read_bccd_fields``."""
    paths = images_in(root / "JPEGImages", (".jpg",))
    images = tuple(LabelledImage(p, BCCD_FIELDS, p.name, ("healthy",), p.stem) for p in paths)
    return Dataset(BCCD_FIELDS, ImageKind.FIELD, ("healthy",), GroupKind.FIELD, images)


def read_chula_set(root: Path) -> Dataset:
    """Read ``chula_fields`` as multi-label fields, grouped by slide (``B-30`` of ``B-30_1.jpg``); boxes with ``read_chula_fields``."""
    images = []
    for path in images_in(root / "images", (".jpg",)):
        label = existing(root / "labels" / f"{path.stem}.txt", "images/")
        ids = sorted({int(line.split()[0]) for line in label.read_text(encoding="utf-8").splitlines() if line.strip()})
        if any(i >= len(CHULA_CLASSES) for i in ids):
            raise DatasetError(f"{label}: class ids {ids} are not all below {len(CHULA_CLASSES)}.")
        images.append(LabelledImage(path, CHULA_FIELDS, path.name, tuple(CHULA_CLASSES[i] for i in ids), chula_slide(path.stem)))
    notes = ("the class is confounded with the slide",)
    return Dataset(CHULA_FIELDS, ImageKind.FIELD, CHULA_CLASSES, GroupKind.SLIDE, tuple(images), multi_label=True, notes=notes)


def chula_slide(stem: str) -> str:
    """Slide of a field: letter and number in front of its name.

    Raises:
        DatasetError: the name does not begin so.
    """
    found = re.match(r"[A-Z]-\d+", stem)
    if found is None:
        raise DatasetError(f"{stem!r} does not begin with a slide such as B-30.")
    return found[0]


def read_wbc_set(root: Path) -> Dataset:
    """Read ``wbc_masks`` as single normal cells: ``labels.csv`` with image ID and class label 1..5; masks with ``read_wbc_masks``."""
    images = []
    for row in read_rows(root / "labels.csv", ("image ID", "class label")):
        path = existing(root / f"{int(row['image ID']):03d}_image.png")
        images.append(LabelledImage(path, WBC_MASKS, path.name, (WBC_CLASSES[int(row["class label"]) - 1],), "", is_blast=0))
    return Dataset(WBC_MASKS, ImageKind.CELL, WBC_CLASSES, GroupKind.NONE, tuple(images))
