"""Tests of cutting ALL-IDB1 into ALL-IDB Patches, on tiny fields in its layout and on the published centroids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from services.patching.grid import lay_grid
from training.datasets.all_idb import PATCHES_TABLE, Centroids, read_all_centroids, read_all_idb_patches
from training.datasets.all_idb_patches import COLUMNS, patch_row, write_patches
from training.errors import DatasetError


def _fields(root: Path) -> Path:
    """Two fields of 2 x 2 patches: one leukaemic with two blasts and two others, one healthy with one cell."""
    for folder in ("im", "xyc", "other"):
        (root / folder).mkdir(parents=True)
    for name in ("Im001_1", "Im034_0"):
        pixels = np.random.default_rng(len(name)).integers(0, 256, (460, 450, 3), np.uint8)
        Image.fromarray(pixels).save(root / "im" / f"{name}.jpg", quality=95)
    (root / "xyc" / "Im001_1.xyc").write_text("30\t40\n220\t220\n", encoding="ascii")
    (root / "other" / "Im001_1.xyc").write_text("35 45\n400 30\n", encoding="ascii")
    (root / "xyc" / "Im034_0.xyc").write_text("", encoding="ascii")
    (root / "other" / "Im034_0.xyc").write_text("400 400\r\n", encoding="ascii")
    return root


def test_what_is_written_is_read_as_the_published_data_set(tmp_path: Path) -> None:
    written = write_patches(_fields(tmp_path / "idb1"), tmp_path / "patches")
    assert (written.patches, written.lymphoblasts, written.others, written.both, written.neither) == (8, 4, 3, 2, 3)
    dataset = read_all_idb_patches(tmp_path / "patches")
    shown = {image.key: image.classes for image in dataset.images}
    assert shown["Im001_1_patch_1.tif"] == ("lymphoblast", "normal")
    assert shown["Im001_1_patch_3.tif"] == ("lymphoblast",)
    assert shown["Im034_0_patch_1.tif"] == ()
    assert {image.group for image in dataset.images} == {"Im001_1", "Im034_0"}


def test_table_and_pixels(tmp_path: Path) -> None:
    root = _fields(tmp_path / "idb1")
    write_patches(root, tmp_path / "patches")
    lines = (tmp_path / "patches" / PATCHES_TABLE).read_text(encoding="utf-8").splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert lines[1] == "Im001_1_patch_1.tif,1,1,30 40 220 220,35 45"
    assert lines[5] == "Im034_0_patch_1.tif,0,0,N/A,N/A"
    field = np.asarray(Image.open(root / "im" / "Im001_1.jpg"))
    patch = np.asarray(Image.open(tmp_path / "patches" / "patches" / "Im001_1_patch_4.tif"))
    np.testing.assert_array_equal(patch, field[192:448, 192:448])


def test_legacy_loses_the_first_other_cell_of_every_field(tmp_path: Path) -> None:
    written = write_patches(_fields(tmp_path / "idb1"), tmp_path / "patches", legacy_drop_first=True)
    assert written.others == 1


def test_flush_patches_cover_the_border(tmp_path: Path) -> None:
    assert write_patches(_fields(tmp_path / "idb1"), tmp_path / "patches", flush=True).patches == 18


def test_merged_files_are_read(tmp_path: Path) -> None:
    root = _fields(tmp_path / "idb1")
    (root / "merged").mkdir()
    for name in ("Im001_1", "Im034_0"):
        (root / "merged" / f"{name}.xyc").write_text("blasts\n10 10\nnormal\n", encoding="ascii")
    written = write_patches(root, tmp_path / "patches")
    assert (written.lymphoblasts, written.others) == (2, 0)


@pytest.mark.parametrize("broken", ["other/Im034_0.xyc", "im/Im034_0.jpg"])
def test_nothing_is_left_behind(tmp_path: Path, broken: str) -> None:
    root = _fields(tmp_path / "idb1")
    (root / broken).write_bytes(b"12 abc\n")
    with pytest.raises(DatasetError, match="Im034_0"):
        write_patches(root, tmp_path / "patches")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["idb1"]


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    root = _fields(tmp_path / "idb1")
    with pytest.raises(DatasetError, match="already there"):
        write_patches(root, root / "im")
    assert len(list((root / "im").iterdir())) == 2


@pytest.mark.shared_data
def test_every_published_point_is_in_a_patch_unless_the_grid_leaves_it_out(shared_data: Path) -> None:
    points = read_all_centroids(shared_data / "all_idb1_annotations")
    assert sum(map(len, points.values())) == 1430
    covered = 0
    for name, others in points.items():
        patches = lay_grid(*((1712, 1368) if int(name[2:5]) <= 33 else (2592, 1944)), flush=True)
        rows = [patch_row(patch, name, Centroids((), others)) for patch in patches]
        assert all(row[1] == "0" for row in rows)
        covered += sum(any(patch.holds(p) for patch in patches) for p in others)
    assert covered == 1430
