"""Tests of preparing crops: the functions that serve, torchvision's middle, unreadable images."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from clients.cli.main import app
from services.common.image_codec import decode_image
from services.common.phantom import CellKind, single_cell
from services.patching.cells import central_cell, locate_cells
from services.preprocessing.legacy import register_legacy, sharpen_legacy, short_axis
from services.preprocessing.registration import register
from services.preprocessing.unsharpening import FocusParameters, sharpen_adaptively
from training.crops.making import center_crop, prepare
from training.crops.packs import write_pack
from training.crops.sources import Sources
from training.datasets.dataset import Dataset, GroupKind, ImageKind, LabelledImage, Subset
from training.errors import DatasetError, RecipeError, SplitError
from training.recipes.config import Input, InputKind

pytestmark = pytest.mark.slow

FOCUS = FocusParameters((0.5, 1.0), (5.0, 5.5), (9.0, 9.5))


def _cells(folder: Path, count: int = 3) -> Dataset:
    images = []
    for i in range(count):
        path = folder / f"cell_{i}.png"
        Image.fromarray(single_cell(i, CellKind.LYMPHOCYTE).image).save(path)
        images.append(LabelledImage(path, "some", path.name, ("x",), f"g{i}", Subset.TRAIN, is_blast=i % 2))
    return Dataset("some", ImageKind.CELL, ("x",), GroupKind.PATIENT, tuple(images))


def test_crops_are_those_that_serving_makes(tmp_path: Path) -> None:
    dataset = _cells(tmp_path)
    pack = prepare(dataset, Input(kind=InputKind.REGISTERED_SHARPENED, side=64), FOCUS)
    assert len(pack) == 3
    for i, image in enumerate(dataset.images):
        rgb = decode_image(image.path.read_bytes()).pixels
        cell = central_cell(locate_cells(rgb).cells, *rgb.shape[:2])
        assert cell is not None
        registered = register(rgb, cell.center_x, cell.center_y, cell.radius, 64)
        served = sharpen_adaptively(registered.pixels, registered.upscale_factor, FOCUS)
        np.testing.assert_array_equal(pack.pixels[i], served.pixels)
        assert pack.measures["radius"][i] == pytest.approx(cell.radius)
        assert pack.measures["focus_before"][i] == pytest.approx(served.focus_before)
        assert bool(pack.measures["accepted"][i]) == served.accepted
    assert pack.header.focus == {"upscale_factors": (0.5, 1.0), "thresholds": (5.0, 5.5), "limits": (9.0, 9.5)}
    assert prepare(dataset, Input(kind=InputKind.REGISTERED, side=64)).header.focus is None


def test_legacy_crops_are_those_of_the_program(tmp_path: Path) -> None:
    dataset = _cells(tmp_path)
    pack = prepare(dataset, Input(kind=InputKind.LEGACY_SHARPENED, side=64), FocusParameters((1.0,), (5.0,), (120.0,)))
    first = decode_image(dataset.images[0].path.read_bytes()).pixels
    cell = central_cell(locate_cells(first).cells, *first.shape[:2])
    assert cell is not None
    assert cell.mask is not None
    registered = register_legacy(first, short_axis(cell.mask), 64)
    assert registered is not None
    np.testing.assert_array_equal(pack.pixels[0], sharpen_legacy(registered, 5.0).pixels)
    assert pack.header.input == "legacy_sharpened"


def test_an_image_without_a_cell_is_left_out_by_name(tmp_path: Path) -> None:
    dataset = _cells(tmp_path)
    noise = np.random.default_rng(0).integers(225, 245, (120, 120, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "cell_1.png")
    pack = prepare(dataset, Input(kind=InputKind.REGISTERED, side=64))
    assert pack.header.left_out == ("cell_1.png",)
    assert pack.keys.tolist() == ["cell_0.png", "cell_2.png"]


@pytest.mark.parametrize("content", [b"", b"no image", "truncated"])
def test_unreadable_images_are_listed_and_nothing_is_written(tmp_path: Path, content: bytes | str) -> None:
    dataset = _cells(tmp_path)
    path = dataset.images[1].path
    path.write_bytes(path.read_bytes()[:500] if isinstance(content, str) else content)
    with pytest.raises(DatasetError, match=r"(?s)some: 1 images cannot be used.*cell_1\.png"):
        prepare(dataset, Input(kind=InputKind.CENTER_CROP, side=64))


def test_the_middle_is_torchvisions() -> None:
    """CenterCrop then Resize (bilinear, antialiased) of torchvision 0.x on PIL images, re-stated."""
    rgb = np.random.default_rng(1).integers(0, 256, (257, 253, 3), np.uint8)
    middle = Image.fromarray(rgb).crop((-2, 0, 254, 256))
    expected = np.asarray(middle.resize((224, 224), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(center_crop(rgb, 256, 224), expected)
    assert center_crop(rgb, 0, 32).shape == (32, 32, 3)
    assert (center_crop(np.full((10, 10, 3), 255, np.uint8), 20, 20)[0] == 0).all()


def _idb2(folder: Path, blocks: int = 13) -> Path:
    (folder / "img").mkdir(parents=True)
    for i in range(2 * blocks):
        number = 1 + 10 * i if i < blocks else 131 + 10 * (i - blocks)
        Image.fromarray(single_cell(i, CellKind.LYMPHOCYTE).image).save(folder / "img" / f"Im{number:03d}_{int(number <= 130)}.tif")
    return folder


def test_a_data_set_is_prepared_once_and_again_when_it_changes(tmp_path: Path) -> None:
    folder = _idb2(tmp_path / "data")
    wanted = Input(kind=InputKind.CENTER_CROP, side=32)
    first = Sources.find([folder], tmp_path / "cache").pack("all_idb2", wanted)
    assert {s: int((first.subsets == s).sum()) for s in ("train", "calibration", "test")} == {"train": 14, "calibration": 8, "test": 4}
    (kept,) = (tmp_path / "cache").iterdir()
    written = kept.stat().st_mtime_ns
    copy = tmp_path / "copy" / "data"
    shutil.copytree(folder, copy, copy_function=shutil.copyfile)
    again = Sources.find([copy], tmp_path / "cache").pack("all_idb2", wanted)
    assert again.digest() == first.digest()
    assert kept.stat().st_mtime_ns == written
    image = copy / "img" / "Im001_1.tif"
    dated = image.stat()
    Image.fromarray(single_cell(99, CellKind.LYMPHOCYTE).image).save(image)
    os.utime(image, ns=(dated.st_atime_ns, dated.st_mtime_ns))
    changed = Sources.find([copy], tmp_path / "cache").pack("all_idb2", wanted)
    assert changed.digest() != first.digest()
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_too_few_groups_are_told_before_anything_is_written(tmp_path: Path) -> None:
    folder = _idb2(tmp_path / "data", blocks=3)
    with pytest.raises(SplitError, match="6 groups by block are too few"):
        Sources.find([folder], tmp_path / "cache").pack("all_idb2", Input(kind=InputKind.CENTER_CROP, side=32))
    assert not (tmp_path / "cache").exists()


def test_a_data_set_that_is_not_there_is_told(tmp_path: Path) -> None:
    sources = Sources.find([_idb2(tmp_path / "data", 6)], tmp_path)
    with pytest.raises(DatasetError, match="cnmc is not among all_idb2"):
        sources.dataset("cnmc")
    with pytest.raises(DatasetError, match="Name the data"):
        Sources.find([], tmp_path)


def test_sharpening_without_training_cells_is_refused(tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    Image.fromarray(single_cell(1, CellKind.LYMPHOCYTE).image).save(masks / "001_image.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(masks / "001_mask.png")
    (masks / "labels.csv").write_text("image ID,class label\n1,2\n", encoding="utf-8")
    sources = Sources.find([masks], tmp_path / "cache")
    with pytest.raises(RecipeError, match="no training cells to fit the focus parameters"):
        sources.pack("wbc_masks", Input(kind=InputKind.REGISTERED_SHARPENED, side=64))


def _contradicted(folder: Path, second: str, *, is_blast: int, group: str) -> Dataset:
    drawn = Image.fromarray(single_cell(3, CellKind.LYMPHOCYTE).image)
    drawn.save(folder / "first.png")
    drawn.save(folder / second)
    said = (("first.png", 1, "P1"), (second, is_blast, group))
    images = tuple(LabelledImage(folder / name, "own_cells", name, ("x",), of, Subset.TRAIN, is_blast=label) for name, label, of in said)
    return Dataset("own_cells", ImageKind.CELL, ("x",), GroupKind.PATIENT, images)


@pytest.mark.parametrize(
    ("second", "is_blast", "group", "words"),
    [("second.png", 0, "P1", "once a blast, once normal"), ("second.tif", 1, "P2", "of P1 and of P2"), ("second.bmp", 0, "P1", "once a blast")],
)
def test_one_picture_as_blast_and_normal_or_of_two_patients_is_refused(tmp_path: Path, second: str, is_blast: int, group: str, words: str) -> None:
    dataset = _contradicted(tmp_path, second, is_blast=is_blast, group=group)
    with pytest.raises(DatasetError, match=rf"first\.png and .*{second}: {words}"):
        prepare(dataset, Input(kind=InputKind.REGISTERED, side=64))


def test_a_copy_of_the_same_patient_and_label_is_taken(tmp_path: Path) -> None:
    assert len(prepare(_contradicted(tmp_path, "second.tif", is_blast=1, group="P1"), Input(kind=InputKind.REGISTERED, side=64))) == 2


@pytest.mark.parametrize(("second", "is_blast", "group"), [("second.png", 1, "P2"), ("second.tif", 0, "P1")])
def test_the_command_refuses_a_contradiction_and_writes_no_pack(tmp_path: Path, second: str, is_blast: int, group: str) -> None:
    _contradicted(tmp_path, second, is_blast=is_blast, group=group)
    rows = ["path,cell_class,patient_id,is_blast,subset", "first.png,a,P1,1,test", f"{second},a,{group},{is_blast},test"]
    (tmp_path / "cells.csv").write_text("\n".join(rows), encoding="utf-8")
    out = tmp_path / "own.pack"
    result = CliRunner().invoke(app, ["data", "pack", str(tmp_path), "--out", str(out), "--input", "registered", "--cache", str(tmp_path / "cache")])
    assert result.exit_code == 1
    assert "first.png" in result.output
    assert second in result.output
    assert not out.exists()


def test_a_pack_with_a_contradiction_is_refused(tmp_path: Path) -> None:
    pack = prepare(_cells(tmp_path), Input(kind=InputKind.REGISTERED, side=64))
    write_pack(replace(pack, sha256=np.array(["x", "x", "y"])), tmp_path / "a.pack")
    with pytest.raises(DatasetError, match=r"cell_0\.png and cell_1\.png"):
        Sources.find([tmp_path / "a.pack"], tmp_path).pack("some", Input(kind=InputKind.REGISTERED, side=64))
