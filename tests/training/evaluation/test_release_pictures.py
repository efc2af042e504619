"""Tests of the pictures of releases: bins by hand, every patient drawn with his numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from training.evaluation.release_pictures import MIN_CELLS, draw_reliability, draw_verdicts_by_patient, reliability


@pytest.fixture(autouse=True)
def _words_as_text() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        yield


def test_reliability_by_hand() -> None:
    """Ten cells at 0.3, two of them blasts, and twenty at 1.0, all blasts; nine at 0.6 are too few to be drawn."""
    probability = np.repeat([0.3, 0.6, 1.0], [MIN_CELLS, MIN_CELLS - 1, 20])
    is_blast = np.array([1, 1] + [0] * 8 + [1] * 9 + [1] * 20)
    patients = np.array([f"p{i % 3}" for i in range(len(probability))])
    bins = reliability(probability, is_blast, patients)
    np.testing.assert_allclose(bins[:, 0], [0.3, 1.0])
    np.testing.assert_allclose(bins[:, 1], [0.2, 1.0])
    assert 0.0 <= bins[0, 2] < 0.2 < bins[0, 3] <= 1.0
    np.testing.assert_array_equal(bins[1, 2:], [1.0, 1.0])


def test_without_enough_cells_there_is_no_bin() -> None:
    assert reliability(np.full(3, 0.4), np.zeros(3, np.int64), np.array(list("abc"))).shape == (0, 4)


def test_a_panel_per_release(tmp_path: Path) -> None:
    bins = np.array([[0.1, 0.2, 0.1, 0.3], [0.9, 0.8, 0.7, 0.95]])
    draw_reliability({f"r{i}": bins for i in range(5)}, tmp_path / "a" / "picture.svg")
    text = (tmp_path / "a" / "picture.svg").read_text(encoding="utf-8")
    assert all(f">r{i}<" in text for i in range(5))


def test_every_patient_is_drawn_with_the_number_of_cells(tmp_path: Path) -> None:
    patients = np.repeat(["P1", "P2"], [7, 13])
    is_blast = np.array([1] * 7 + [0] * 13)
    suspected = np.arange(20) < 5
    draw_verdicts_by_patient("r1", patients, is_blast, suspected, np.arange(20) > 17, tmp_path / "picture.svg")
    text = (tmp_path / "picture.svg").read_text(encoding="utf-8")
    assert all(f">{word}<" in text for word in ("P1", "P2", "7", "13", "0", "suspected", "indeterminate", "not suspected"))
