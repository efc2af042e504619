"""Tests of the splits of ALL-IDB that keep sessions and blocks whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.crops.packs import Pack
from training.errors import SplitError
from training.evaluation.all_idb.protocols import CANON, FIGURES, OLYMPUS, Figure, camera_cells, honest_protocols, scored_cells


def test_folds_are_whole_and_of_one_camera(cells: Pack) -> None:
    protocols = honest_protocols(cells)
    assert list(protocols["olympus"].parts) == ["olympus-1", "olympus-2", "olympus-3"]
    assert list(protocols["canon"].parts) == [f"canon-{n}" for n in range(1, 6)]
    for camera in (OLYMPUS, CANON):
        every = set(np.flatnonzero(camera_cells(cells, camera)).tolist())
        for fold, split in protocols[camera].parts.items():
            assert set(split.test.tolist()) == set(np.flatnonzero(cells.folds == fold).tolist())
            assert set(split.train.tolist()) == every - set(split.test.tolist())
            assert len(split.validation) == 0


def test_a_healthy_block_is_tested_with_the_leukaemic_one_of_its_fold(cells: Pack) -> None:
    split = honest_protocols(cells)["canon"].parts["canon-2"]
    assert set(cells.groups[split.test]) == {"canon-2", "canon-2-healthy"}
    assert not {"canon-2", "canon-2-healthy"} & set(cells.groups[split.train])


@pytest.mark.parametrize("name", ["olympus", "canon", "olympus-to-canon", "canon-to-olympus"])
def test_each_cell_is_tested_at_most_once_and_never_learned(cells: Pack, name: str) -> None:
    protocol = honest_protocols(cells)[name]
    assert protocol.name == name
    tested = np.concatenate([split.test for split in protocol.parts.values()])
    assert len(tested) == len(set(tested.tolist()))
    for split in protocol.parts.values():
        assert not set(split.train.tolist()) & set(split.test.tolist())


def test_across_cameras_one_is_learned_whole_and_the_other_tested_whole(cells: Pack) -> None:
    protocols = honest_protocols(cells)
    for learned, judged in ((OLYMPUS, CANON), (CANON, OLYMPUS)):
        (split,) = protocols[f"{learned}-to-{judged}"].parts.values()
        assert split.train.tolist() == np.flatnonzero(camera_cells(cells, learned)).tolist()
        assert split.test.tolist() == np.flatnonzero(camera_cells(cells, judged)).tolist()


def test_one_block_in_two_folds_leaks(cells: Pack) -> None:
    folds = cells.folds.copy()
    folds[np.flatnonzero(cells.groups == "canon-1")[0]] = "canon-2"
    with pytest.raises(SplitError, match="leaks"):
        honest_protocols(replace(cells, folds=folds))


def test_one_image_in_two_folds_leaks(cells: Pack) -> None:
    sha256 = cells.sha256.copy()
    sha256[np.flatnonzero(cells.folds == "olympus-1")[0]] = sha256[np.flatnonzero(cells.folds == "olympus-3")[0]]
    with pytest.raises(SplitError, match="same content"):
        honest_protocols(replace(cells, sha256=sha256))


def test_a_camera_with_one_fold_is_refused(cells: Pack) -> None:
    with pytest.raises(SplitError, match="cannot be cross-validated"):
        honest_protocols(cells.select(camera_cells(cells, CANON) | (cells.folds == "olympus-1")))


def test_healthy_fields_are_left_out_of_figures_of_leukaemic_fields(cells: Pack) -> None:
    healthy = np.char.endswith(cells.groups, "-healthy")
    assert healthy.sum() == 15
    np.testing.assert_array_equal(scored_cells(cells, Figure("canon", "", leukaemic_fields=True)), ~healthy)
    assert scored_cells(cells, Figure("canon", "", leukaemic_fields=False)).all()


def test_every_figure_is_of_a_protocol_and_has_both_classes(cells: Pack) -> None:
    protocols = honest_protocols(cells)
    assert len({f.title for f in FIGURES}) == len(FIGURES)
    assert {f.protocol for f in FIGURES} == set(protocols)
    for figure in FIGURES:
        tested = np.concatenate([split.test for split in protocols[figure.protocol].parts.values()])
        assert set(cells.is_blast[tested][scored_cells(cells, figure)[tested]]) == {0, 1}
