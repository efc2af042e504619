"""Tests of packs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.small import cell_pack, tissue_pack
from training.crops.packs import Pack, read_pack, write_pack
from training.datasets.dataset import Subset
from training.errors import ArrayFileError, TrainingError
from training.files.array_file import write_arrays


def _same(a: Pack, b: Pack) -> None:
    for name in ("labels", "is_blast", "keys", "groups", "subsets", "folds", "sha256"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.measures.keys() == b.measures.keys()


@pytest.mark.parametrize("made", [cell_pack(), tissue_pack()])
def test_a_lossless_pack_comes_back_as_it_was(tmp_path: Path, made: Pack) -> None:
    write_pack(made, tmp_path / "a.pack")
    found = read_pack(tmp_path / "a.pack")
    _same(found, made)
    assert found.header == made.header
    np.testing.assert_array_equal(found.pixels, made.pixels)
    assert found.digest() == made.digest()


def test_a_jpeg_pack_is_smaller_and_nearly_the_same(tmp_path: Path) -> None:
    smooth = cell_pack(side=128)
    rows = np.linspace(60, 220, 128).astype(np.uint8)
    smooth = replace(smooth, pixels=np.broadcast_to(rows[:, None, None], smooth.pixels.shape).copy())
    write_pack(smooth, tmp_path / "lossless.pack")
    write_pack(smooth, tmp_path / "small.pack", jpeg_quality=90)
    found = read_pack(tmp_path / "small.pack")
    _same(found, smooth)
    assert found.header.jpeg_quality == 90
    assert np.abs(found.pixels.astype(int) - smooth.pixels).max() <= 4
    assert (tmp_path / "small.pack").stat().st_size * 10 < (tmp_path / "lossless.pack").stat().st_size


def test_a_name_that_is_no_text_is_kept(tmp_path: Path) -> None:
    made = cell_pack()
    made = replace(made, keys=np.array(["Gr\udcf6\udcdfe.png", *made.keys[1:]]))
    write_pack(made, tmp_path / "a.pack")
    found = read_pack(tmp_path / "a.pack")
    _same(found, made)
    assert found.digest() == made.digest()


@pytest.mark.parametrize("quality", [-1, 101])
def test_a_quality_out_of_range_writes_nothing(tmp_path: Path, quality: int) -> None:
    with pytest.raises(TrainingError, match="JPEG quality"):
        write_pack(cell_pack(), tmp_path / "a.pack", quality)
    assert not list(tmp_path.iterdir())


def test_another_file_of_arrays_is_no_pack(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.pack", {"x": np.zeros(1)}, {"file": "something"})
    with pytest.raises(ArrayFileError, match="dl4all data pack"):
        read_pack(tmp_path / "a.pack")


def test_selection_keeps_rows_together() -> None:
    made = cell_pack()
    chosen = np.array([7, 3, 50])
    part = made.select(chosen)
    assert len(part) == 3
    assert part.keys.tolist() == made.keys[chosen].tolist()
    np.testing.assert_array_equal(part.pixels, made.pixels[chosen])
    assert part.measures["radius"].shape == (3,)
    assert part.class_names.tolist() == ["blast_no_lineage_spec", "blast_no_lineage_spec", "lymphocyte"]


def test_subsets_are_found() -> None:
    made = cell_pack()
    assert set(made.subsets[made.in_subset(Subset.TEST, Subset.CALIBRATION)]) == {"test", "calibration"}


@pytest.mark.parametrize("column", ["pixels", "labels", "is_blast", "groups", "subsets"])
def test_the_digest_tells_whatever_training_could_learn_from(column: str) -> None:
    made = cell_pack()
    values = getattr(made, column).copy()
    values[0] = "P99" if values.dtype.kind == "U" else 1 - values[0]
    assert replace(made, **{column: values}).digest() != made.digest()
