"""What margins, ink and text do to the cells that are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from services.common.phantom import PhantomOptions, smear_field
from services.patching.cells import LocatedCell
from training.errors import DatasetError
from training.evaluation.obstructions import Tally, _fields, changes, compare, margins_found


def _cell(x: int, y: int) -> LocatedCell:
    return LocatedCell(x + 10.0, y + 10.0, 10.0, x, y, 20, 20, 1.0)


def test_lost_extra_and_covered_cells() -> None:
    covered = np.zeros((100, 200), bool)
    covered[:, 150:] = True
    alone = [_cell(10, 10), _cell(60, 10), _cell(160, 10)]
    assert compare(alone, [_cell(12, 11), _cell(100, 50)], covered) == Tally(2, 1, 1)


def test_every_change_draws_where_it_says() -> None:
    field = smear_field(1, PhantomOptions(width=320, height=240, cells=2, label=False)).image
    names = []
    for name, change in changes():
        image, covered = change(field)
        assert (image != field).any()
        assert not (image != field)[~covered].any(), name
        names.append(name)
    assert len(set(names)) == len(names) == 22


@pytest.mark.parametrize("quality", [None, 85])
def test_margins_are_found(quality: int | None) -> None:
    field = smear_field(1, PhantomOptions(width=320, height=240, cells=2, light=0.4, label=False)).image
    assert margins_found(field, 0.1, 255, (1, 1, 1, 1), quality) <= (0 if quality is None else 8)


def test_an_unknown_folder_is_refused() -> None:
    with pytest.raises(DatasetError, match="none of"):
        _fields([Path("cells")], 1)
