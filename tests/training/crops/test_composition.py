"""Tests of packs of composed patches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from services.common.cell_classes import PATCH_LABELS
from services.patching.patch_input import patch_input
from tests.training.composed import drawn_cells
from training.crops.composition import Composition, compose_fields, compose_pack
from training.crops.packs import Pack, read_pack, write_pack
from training.datasets.dataset import Dataset, GroupKind, ImageKind, LabelledImage, Subset
from training.errors import DatasetError

pytestmark = pytest.mark.slow

SIDE = 32
FEW = Composition(training=2, judged=1, training_scales=(0.5, 0.6), judged_scales=(0.5, 0.6))


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return drawn_cells(tmp_path_factory.mktemp("cells"), 5)


@pytest.fixture(scope="module")
def pack(cells: Dataset) -> Pack:
    return compose_pack(cells, FEW, SIDE)


def test_a_pack_of_patches_by_patient(pack: Pack, tmp_path: Path) -> None:
    assert (pack.header.kind, pack.header.grouped_by, pack.header.classes) == (ImageKind.PATCH, GroupKind.PATIENT, PATCH_LABELS)
    assert pack.header.multi_label
    assert pack.pixels.shape == ((2 * 2 + 1 + 1) * 9, SIDE, SIDE, 3)
    assert len(np.unique(pack.keys)) == len(pack)
    for subset, patients in ((Subset.TRAIN, ["P00", "P01"]), (Subset.CALIBRATION, ["P02"]), (Subset.TEST, ["P03"])):
        assert np.unique(pack.groups[pack.in_subset(subset)]).tolist() == patients
    write_pack(pack, tmp_path / "composed.pack")
    assert read_pack(tmp_path / "composed.pack").digest() == pack.digest()


def test_whole_fields_are_those_of_the_pack(cells: Dataset, pack: Pack) -> None:
    (field,) = compose_fields(cells, FEW, Subset.CALIBRATION)
    patches = pack.select(pack.in_subset(Subset.CALIBRATION))
    for i, patch in enumerate(field.patches):
        assert (patch_input(field.pixels, patch, SIDE) == patches.pixels[i]).all()
        assert tuple(patches.labels[i] > 0) == field.labels(patch)


def test_only_single_cells_by_patient_make_fields(cells: Dataset) -> None:
    image = LabelledImage(cells.images[0].path, "lc25000_tiles", "a", ("a",), "g")
    tissue = Dataset("lc25000_tiles", ImageKind.TISSUE, ("a",), GroupKind.SOURCE_TILE, (image,))
    with pytest.raises(DatasetError, match="composed of single cells"):
        compose_pack(tissue, FEW, SIDE)


def test_patients_who_give_no_background_are_told(cells: Dataset) -> None:
    one = Dataset(cells.name, cells.kind, cells.classes, cells.grouped_by, cells.images[:1])
    with pytest.raises(DatasetError, match="no patient has enough"):
        compose_pack(one, FEW, SIDE)
