"""The speed of location is measured on the same images for both ways, and a set that is not there is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from services.common.phantom import PhantomOptions
from services.patching.locator_maps import CHANNELS
from training.evaluation import locator_speed
from training.evaluation.locator_speed import HEADS, images_of, row


def test_a_row_has_medians_of_both_and_their_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locator_speed, "ROUNDS", 1)
    asked = []

    def network(seen: np.ndarray) -> np.ndarray:
        asked.append(seen.shape)
        return np.zeros((CHANNELS, seen.shape[0] // 2, seen.shape[1] // 2), np.float32)

    encoded = locator_speed._drawn(PhantomOptions(width=320, height=240, cells=2, cell_radius=20.0))
    parts = row("drawn", [encoded], network).strip("| ").split("|")
    assert asked
    assert len(parts) == len(HEADS)
    assert parts[0].strip() == "drawn"
    _, stain, locator, survey, ratio, of_decoding = (float(part) for part in parts[1:])
    assert 0 < survey < locator
    assert ratio == pytest.approx(stain / locator, rel=0.05, abs=0.1)
    assert of_decoding > 0


def test_every_so_many_files_of_a_set_are_taken(tmp_path: Path) -> None:
    folder = tmp_path / "chula_fields" / "images"
    folder.mkdir(parents=True)
    for number in range(13):
        (folder / f"{number:02d}.jpg").write_bytes(bytes([number]))
    assert list(images_of(tmp_path)) == [("1440 x 900, `chula_fields`", [b"\x00", b"\x06", b"\x0c"])]
