"""Tests of the measured size of red cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from services.common.phantom import PhantomOptions, smear_field
from training.datasets.dataset import LabelledImage
from training.errors import DatasetError
from training.evaluation.red_cells import red_cell_radii

pytestmark = pytest.mark.slow


def _images(folder: Path, *names: str) -> list[LabelledImage]:
    return [LabelledImage(folder / name, "aml_cells", name, ("x",), "P") for name in names]


def test_red_cells_are_measured_where_they_are_seen(tmp_path: Path) -> None:
    drawn = smear_field(3, PhantomOptions(width=640, height=480, cells=4, cell_radius=30.0, label=False)).image
    Image.fromarray(drawn).save(tmp_path / "field.png")
    empty = (np.linspace(200, 240, 200)[None, :, None] * np.ones((200, 1, 1)) * (1.0, 0.97, 0.99)).astype(np.uint8)
    Image.fromarray(empty).save(tmp_path / "empty.png")
    (radius,) = red_cell_radii(_images(tmp_path, "field.png", "empty.png"))
    assert 15 < radius < 30


def test_an_image_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"broken\.png"):
        red_cell_radii(_images(tmp_path, "broken.png"))
