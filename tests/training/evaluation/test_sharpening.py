"""Tests of the comparison of sharpened and unsharpened crops."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from tests.training.small import cell_pack
from training.crops.packs import Pack
from training.errors import RecipeError
from training.evaluation.sharpening import by_focus, of_cells, table
from training.runs.arms import Arm

pytestmark = pytest.mark.slow


def _arm(keys: np.ndarray, quality: float, seed: int = 0) -> Arm:
    is_blast = np.arange(len(keys)) % 2
    margins = quality * (2.0 * is_blast - 1) + np.random.default_rng(seed).normal(size=len(keys))
    patients = np.array([f"p{i % 7}" for i in range(len(keys))])
    return Arm("any", seed, keys, margins, is_blast, patients, ())


def _measures(pack: Pack) -> dict[str, np.ndarray]:
    return cast(dict[str, np.ndarray], pack.measures)


def test_quarters_by_focus() -> None:
    pack = cell_pack()
    _measures(pack)["focus_before"] = np.arange(len(pack.keys), dtype=np.float32)
    found = by_focus(pack)
    assert len(found["all"]) == len(pack.keys)
    assert found["sharpest quarter"][0] == pack.keys[0]
    assert found["blurriest quarter"][-1] == pack.keys[-1]
    assert not set(found["sharpest quarter"]) & set(found["blurriest quarter"])


def test_unsharpened_packs_tell_no_focus() -> None:
    pack = cell_pack()
    _measures(pack)["focus_before"] = np.full(len(pack.keys), np.nan, np.float32)
    with pytest.raises(RecipeError, match="sharpened"):
        by_focus(pack)


def test_a_part_of_a_run() -> None:
    arm = _arm(np.array(list("abcdef")), 1.0)
    part = of_cells(arm, np.array(["b", "e"]))
    assert part.keys.tolist() == ["b", "e"]
    assert part.margins.tolist() == [arm.margins[1], arm.margins[4]]


def test_the_better_side_wins() -> None:
    pack = cell_pack()
    _measures(pack)["focus_before"] = np.arange(len(pack.keys), dtype=np.float32)
    keys = np.sort(pack.keys)
    lines = table([_arm(keys, 2.0)], [_arm(keys, 0.2)], pack).splitlines()
    assert len(lines) == 2 + 3 * 3
    assert float(lines[2].split("|")[5].split("[")[0]) > 0.1
