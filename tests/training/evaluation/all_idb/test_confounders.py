"""Tests of what tells the classes of ALL-IDB apart without morphology."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.crops.packs import Pack
from training.datasets.splits import Split
from training.errors import DatasetError
from training.evaluation.all_idb.confounders import (
    CAMERA,
    COLOURS,
    SIZE,
    canon_crops,
    canon_windows,
    features_without_morphology,
    under_split,
)
from training.evaluation.all_idb.protocols import honest_protocols
from training.evaluation.confounders import colour_statistics
from training.metrics.by_patient import auc

_COLUMNS = "name,label,source_field,x0,y0,width,height,pixels_sha256,held_crop,crop_x0,crop_y0"


def _table(folder: Path, fields: list[str]) -> Path:
    rows = [f"cell-{i:03d},lymphoblast,{field},0,0,257,257,00,,," for i, field in enumerate(fields)]
    (folder / "all_idb2.csv").write_text("\n".join([_COLUMNS, *rows, ""]), encoding="utf-8")
    return folder


def test_the_camera_of_a_crop_is_that_of_its_source_field(cells: Pack, tmp_path: Path) -> None:
    crops = cells.select(np.array([2, 0, 1]))
    assert canon_crops(crops, _table(tmp_path, ["Im001_1", "Im033_1", "Im034_0"])).tolist() == [True, False, False]


def test_a_crop_that_the_table_lacks_is_refused(cells: Pack, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cell-002"):
        canon_crops(cells.select(np.arange(3)), _table(tmp_path, ["Im001_1", "Im034_0"]))


def test_the_camera_of_a_window_is_that_of_its_fold(windows: Pack) -> None:
    np.testing.assert_array_equal(canon_windows(windows), ["canon" in group for group in windows.groups])


def test_features_are_of_each_crop(cells: Pack) -> None:
    radii = np.arange(len(cells), dtype=np.float32)
    there = np.arange(len(cells)) != 5
    located = replace(cells, measures={**cells.measures, "radius": radii}).select(np.flatnonzero(there)[::-1])
    features = features_without_morphology(cells, located, canon_windows(cells))
    assert list(features) == [CAMERA, COLOURS, SIZE]
    assert all(f.dtype == np.float64 and len(f) == len(cells) for f in features.values())
    assert features[CAMERA].shape == (len(cells), 1)
    np.testing.assert_array_equal(features[CAMERA][:, 0] == 1, canon_windows(cells))
    np.testing.assert_array_equal(features[COLOURS], colour_statistics(cells.pixels))
    np.testing.assert_array_equal(features[SIZE][there, 0], radii[there])
    assert np.isnan(features[SIZE][5, 0])


def test_a_cell_that_was_not_located_has_the_mean_size_of_the_training_rows() -> None:
    size = np.array([10.0, 12.0, np.nan, 20.0, 22.0, np.nan, 16.0, 100.0])[:, None]
    labels = np.array([0, 0, 0, 1, 1, 0, 1, 0])
    margins = under_split(size, labels, Split(np.arange(5), np.zeros(0, np.int64), np.arange(5, 8)))
    assert np.isfinite(margins).all()
    assert margins[0] == pytest.approx(margins[1])  # 16 is the mean of 10, 12, 20 and 22
    assert margins[2] > margins[1]


def test_colours_are_learned_from_the_training_rows_alone(cells: Pack) -> None:
    labels = cells.is_blast.astype(np.int64)
    features = features_without_morphology(cells, cells, canon_windows(cells))[COLOURS]
    split = honest_protocols(cells)["olympus-to-canon"].parts["canon"]
    margins = under_split(features, labels, split)
    assert margins.shape == split.test.shape
    assert auc(margins, labels[split.test]) > 0.95
    unknown = labels.copy()
    unknown[split.test] = -1
    np.testing.assert_array_equal(under_split(features, unknown, split), margins)


def test_the_camera_tells_nothing_within_a_camera(cells: Pack) -> None:
    labels = cells.is_blast.astype(np.int64)
    features = features_without_morphology(cells, cells, canon_windows(cells))[CAMERA]
    for protocol in honest_protocols(cells).values():
        for split in protocol.parts.values():
            margins = under_split(features, labels, split)
            assert len(np.unique(margins)) == 1
            assert auc(margins, labels[split.test]) == 0.5


def test_a_size_that_is_never_known_tells_nothing() -> None:
    margins = under_split(np.full((6, 1), np.nan), np.arange(6) % 2, Split(np.arange(4), np.zeros(0, np.int64), np.arange(4, 6)))
    assert margins[0] == margins[1]
