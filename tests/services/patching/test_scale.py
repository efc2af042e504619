"""Tests of the scale among nucleated cells and specks."""

from __future__ import annotations

import numpy as np
import pytest

from services.patching import scale, stain
from services.patching.scale import red_cell_scale


def _disks(radius: float, step: int, side: int = 480, start: int = 30) -> np.ndarray:
    rows, columns = np.indices((side, side))
    mask = np.zeros((side, side), bool)
    for x in range(start, side - start, step):
        for y in range(start, side - start, step):
            mask |= np.hypot(columns - x, rows - y) <= radius
    return mask


def test_nucleated_cells_do_not_set_the_scale() -> None:
    red_cells = _disks(10, 60)
    nuclei = _disks(16, 60, start=60)
    seen = stain.red_cell_radius(*stain.distance_peaks(red_cells | nuclei))
    assert seen is not None
    assert seen > 12
    assert red_cell_scale(*stain.distance_peaks(red_cells | nuclei), nuclei, seen) == pytest.approx(10, rel=0.12)


@pytest.mark.slow
def test_specks_do_not_set_the_scale() -> None:
    image = _disks(12, 80) | _disks(3, 16, start=70)
    assert red_cell_scale(*stain.distance_peaks(image), np.zeros_like(image), 12.0) == pytest.approx(12, rel=0.12)


def test_what_is_seen_first_is_kept_without_enough_peaks() -> None:
    few = _disks(12, 240)
    assert red_cell_scale(*stain.distance_peaks(few), np.zeros_like(few), 12.0) == 12.0
    assert red_cell_scale(*stain.distance_peaks(few), np.zeros_like(few), None) is None


def test_very_many_peaks_are_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []
    monkeypatch.setattr(scale, "MAX_PEAKS", 50)

    def counted(radii: np.ndarray) -> float:
        measured.append(radii.size)
        return 9.0

    monkeypatch.setattr(scale, "_mode", counted)
    depth = np.full((200, 200), 10.0, np.float32)
    peaks = np.zeros((200, 200), bool)
    peaks[::10, ::10] = True
    assert scale.red_cell_scale(depth, peaks, np.zeros_like(peaks), 10.0) == 9.0
    assert 40 <= measured[0] <= 50
