"""Tests of kept runs: they say what the run says, hold no name or label, and need the very data."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.paths import ROOT
from tests.training.small import small_network
from training.crops.sources import Sources
from training.errors import ArrayFileError, RecipeError
from training.evaluation.keep_run import keep
from training.files.array_file import read_arrays
from training.learning.checkpoints import save_network
from training.recipes.config import Recipe
from training.runs.arms import read_arm
from training.runs.folder import NETWORK_FILE, PREDICTIONS_FILE, Predictions

CELLS = 24


def _own_cells(folder: Path, first_label: int = 0, cells: int = CELLS) -> Sources:
    folder.mkdir(exist_ok=True)
    with (folder / "cells.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "cell_class", "patient_id", "is_blast"])
        for i in range(cells):
            (folder / f"secret-{i}.png").touch()
            label = first_label if i == 0 else i % 2
            writer.writerow([f"secret-{i}.png", "ambiguous" if i == 7 else "any", f"secretive{i // 2}", "" if i == 7 else label])
    return Sources.find([folder], folder / "packs")


def _run(folder: Path, sources: Sources, left_out: int = 3) -> Path:
    cells = [i for i in sources.dataset("own_cells").images if i.is_blast is not None]
    cells = [c for n, c in enumerate(cells) if n != left_out]
    for k in range(2):
        own = cells[k::2]
        logits = np.random.default_rng(k).normal(0, 3, (len(own), 2)).astype(np.float32)
        words = (np.array([c.key for c in own]), np.array([c.group for c in own]), np.array([c.is_blast for c in own], np.int8))
        Predictions(*words, logits, np.full(len(own), "validation")).save(folder / f"fold-{k}" / PREDICTIONS_FILE)
        history = [{"epoch": 1, "loss": 0.5, "rate": 0.1}, {"epoch": 2, "loss": 0.25, "rate": 0.1}]
        save_network(folder / f"fold-{k}" / NETWORK_FILE, small_network(), {"history": history})
    about = {"recipe": {"system": "dss"}, "target": "own_cells", "seed": 4, "folds": 2}
    (folder / "run.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


def test_what_is_kept_says_what_the_run_says(tmp_path: Path) -> None:
    sources = _own_cells(tmp_path / "cells")
    run = _run(tmp_path / "some-run", sources)
    path = keep(run, sources, tmp_path / "kept")
    assert path == tmp_path / "kept" / "some-run.safetensors"
    whole, kept = read_arm(run), read_arm(path, sources)
    assert (kept.system, kept.seed) == ("dss", 4)
    assert len(kept.keys) == CELLS - 2
    np.testing.assert_array_equal(kept.keys, whole.keys)
    np.testing.assert_array_equal(kept.patients, whole.patients)
    np.testing.assert_array_equal(kept.is_blast, whole.is_blast)
    np.testing.assert_allclose(kept.margins, whole.margins, rtol=1e-3)
    assert kept.histories == (({"epoch": 1.0, "loss": 0.5}, {"epoch": 2.0, "loss": 0.25}),) * 2
    assert b"secret" not in path.read_bytes()


def test_votes_are_kept_beside_the_margins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = _own_cells(tmp_path / "cells")
    run = _run(tmp_path / "run", sources)
    keys = read_arm(run).keys
    monkeypatch.setattr("training.evaluation.keep_run.fold_votes", lambda folds, target, sources: {k: i / 32 for i, k in enumerate(keys)})
    assert read_arm(keep(run, sources, tmp_path), sources).votes is None
    votes = read_arm(keep(run, sources, tmp_path, with_votes=True), sources).votes
    np.testing.assert_array_equal(votes, np.arange(len(keys)) / 32)


def test_other_data_than_those_of_the_run_are_refused(tmp_path: Path) -> None:
    sources = _own_cells(tmp_path / "cells")
    run = _run(tmp_path / "run", sources)
    path = keep(run, sources, tmp_path)
    with pytest.raises(RecipeError, match="name the folder of own_cells with --data"):
        read_arm(path)
    with pytest.raises(RecipeError, match="made of other cells or labels"):
        read_arm(path, _own_cells(tmp_path / "cells", first_label=1))
    with pytest.raises(RecipeError, match="knew other labels or patients"):
        keep(run, _own_cells(tmp_path / "cells", first_label=1), tmp_path)
    with pytest.raises(RecipeError, match="does not hold"):
        keep(run, _own_cells(tmp_path / "cells", cells=CELLS - 2), tmp_path)


def test_another_file_is_told(tmp_path: Path) -> None:
    sources = _own_cells(tmp_path / "cells")
    run = _run(tmp_path / "run", sources)
    with pytest.raises(ArrayFileError, match="holds no scores"):
        read_arm(run / "fold-0" / PREDICTIONS_FILE, sources)
    with pytest.raises(RecipeError, match="not the folder of a run"):
        keep(tmp_path / "nowhere", sources, tmp_path)


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "runs").glob("*.safetensors")), ids=lambda p: p.stem)
def test_the_files_that_are_kept_hold_scores_and_nothing_else(path: Path) -> None:
    arrays, about = read_arrays(path)
    recipe = Recipe.model_validate(about["recipe"])
    assert set(about) <= {"kind", "recipe", "source", "target", "seed", "folds", "patients", "cells", "histories"}
    assert set(arrays) <= {"margins", "votes"}
    predicted = ~np.isnan(arrays["margins"])
    assert predicted.sum() > 4900
    assert all(np.array_equal(np.isnan(values), ~predicted) for values in arrays.values())
    assert [len(history) for history in about["histories"]] == [recipe.fine_tuning.epochs] * about["folds"]
