"""Data sets of whole fields with boxes, and of single cells with masks: what location is measured on."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.datasets.single_cells import DatasetError


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
    fields = []
    for path in _images(root / "JPEGImages"):
        tree = ElementTree.parse(root / "Annotations" / f"{path.stem}.xml")
        boxes = [o.find("bndbox") for o in tree.iter("object") if o.findtext("name") == "WBC"]
        fields.append(
            Field(path, tuple(TruthBox(*(float(b.findtext(n) or 0) for n in ("xmin", "ymin", "xmax", "ymax"))) for b in boxes if b is not None))
        )
    return fields


def read_chula_fields(root: Path) -> list[Field]:
    """Read ``chula_fields``: ``images/*.jpg`` with YOLO boxes (class, centre and size as shares) in ``labels/*.txt``."""
    fields = []
    for path in _images(root / "images"):
        with Image.open(path) as image:
            width, height = image.size
        lines = (root / "labels" / f"{path.stem}.txt").read_text(encoding="utf-8").split("\n")
        rows = [[float(v) for v in line.split()] for line in lines if len(line.split()) == 5]
        boxes = [TruthBox((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height) for _, x, y, w, h in rows]
        fields.append(Field(path, tuple(boxes)))
    return fields


def read_wbc_masks(root: Path) -> Iterator[tuple[Path, NDArray[np.bool_]]]:
    """Read ``wbc_masks``: ``NNN_image.png`` with ``NNN_mask.png``; grey (cytoplasm) and white (nucleus) are the cell."""
    for path in sorted(root.glob("*_image.png")):
        mask = path.with_name(path.name.replace("_image", "_mask"))
        if not mask.is_file():
            raise DatasetError(f"{mask} is missing.")
        with Image.open(mask) as image:
            yield path, np.asarray(image.convert("L")) > 60


def _images(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.jpg"))
    if not found:
        raise DatasetError(f"{folder} holds no images: is its parent the folder of this data set?")
    return found
