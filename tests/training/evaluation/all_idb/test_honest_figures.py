"""Tests of the figures of the honest protocols, with margins made by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.tiny_all_idb import CANON, HEALTHY, OLYMPUS, tiny_benchmark
from training.crops.packs import Pack
from training.errors import ArrayFileError
from training.evaluation.all_idb import honest_figures
from training.evaluation.all_idb.confounders import COLOURS, SIZE
from training.evaluation.all_idb.data import BenchmarkData
from training.evaluation.all_idb.honest import Network, cell_windows
from training.evaluation.all_idb.honest_figures import HonestFigure, measure_baselines, measure_network, pooled
from training.evaluation.all_idb.protocols import FIGURES, Protocol, honest_protocols
from training.learning.devices import Worker
from training.metrics.by_patient import bootstrap_of
from training.runs.folder import Predictions

pytestmark = pytest.mark.slow

CPU = Worker(torch.device("cpu"))
TITLES = [figure.title for figure in FIGURES]
WITH_HEALTHY = "Canon, the same and healthy fields"
NETWORK = Network("tiny", "tiny", ("fine_tuning.epochs=1",), 32)


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(honest_figures, "bootstrap_of", partial(bootstrap_of, resamples=50))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BenchmarkData]:
    with tiny_benchmark(tmp_path_factory.mktemp("tiny")) as found:
        yield found


def _right(cells: Pack, wrong: np.ndarray | None = None) -> np.ndarray:
    """Margins of which the sign is the class, but where ``wrong``."""
    return np.where((cells.is_blast == 1) ^ (False if wrong is None else wrong), 1.0, -1.0)


def _margins(cells: Pack, *seeds: np.ndarray) -> dict[str, Sequence[np.ndarray]]:
    """The same margins by every protocol, for the cells that it tests."""
    found: dict[str, Sequence[np.ndarray]] = {}
    for name, protocol in honest_protocols(cells).items():
        tested = np.isin(np.arange(len(cells)), np.concatenate([split.test for split in protocol.parts.values()]))
        found[name] = [np.where(tested, seed, np.nan) for seed in seeds]
    return found


def _by_title(figures: Sequence[HonestFigure]) -> dict[str, HonestFigure]:
    assert [figure.title for figure in figures] == TITLES
    return {figure.title: figure for figure in figures}


def test_figures_pool_what_each_protocol_tests(cells: Pack) -> None:
    found = _by_title(pooled(cells, _margins(cells, _right(cells))))
    assert {title: (figure.blasts, figure.normals) for title, figure in found.items()} == {
        "Olympus, unseen session": (12, 6),
        "Canon, unseen fields of a known session": (15, 10),
        WITH_HEALTHY: (15, 25),
        "learned on Olympus, Canon": (15, 10),
        "learned on Canon, Olympus": (12, 6),
    }
    assert all(figure.auc.value == 1.0 for figure in found.values())


def test_healthy_fields_count_in_their_own_figure_alone(cells: Pack) -> None:
    found = _by_title(pooled(cells, _margins(cells, _right(cells, wrong=np.char.endswith(cells.groups, "-healthy")))))
    assert {title for title, figure in found.items() if figure.auc.value < 1.0} == {WITH_HEALTHY}
    assert found[WITH_HEALTHY].auc.value == pytest.approx((10 + 15 / 2) / 25), "15 of 25 normal cells look like blasts"


def test_an_auc_is_pooled_over_the_parts(cells: Pack) -> None:
    """Within each part the classes are apart, but the margins of one part are higher than those of the others."""
    shifted = _right(cells) + np.where(cells.folds == "olympus-2", 10.0, 0.0)
    found = _by_title(pooled(cells, _margins(cells, shifted)))
    assert found["Olympus, unseen session"].auc.value == pytest.approx((4 * 6 + 8 * 4) / (12 * 6))
    assert found["Canon, unseen fields of a known session"].auc.value == 1.0


def test_a_figure_is_the_mean_over_seeds(cells: Pack) -> None:
    olympus = np.char.startswith(cells.folds, "olympus")
    found = _by_title(pooled(cells, _margins(cells, _right(cells), _right(cells, wrong=olympus), _right(cells))))
    both = found["Olympus, unseen session"]
    assert both.by_seed == (1.0, 0.0, 1.0)
    assert both.auc.value == pytest.approx(2 / 3)
    assert found["Canon, unseen fields of a known session"].by_seed == (1.0, 1.0, 1.0)


def test_an_interval_is_by_block(cells: Pack) -> None:
    """One block of three is wrong: what is drawn decides."""
    wrong = cells.groups == "olympus-3"
    found = _by_title(pooled(cells, _margins(cells, _right(cells, wrong=wrong))))["Olympus, unseen session"]
    assert found.auc.value == pytest.approx(2 / 3)
    assert found.auc.low < 0.2, "cells drawn one by one would give 0.4"
    assert found.auc.high == 1.0


def test_a_network_is_measured_over_its_seeds(data: BenchmarkData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = cell_windows(data, NETWORK.side)
    cells = windows.select(windows.is_blast >= 0)
    for seed, margins in ((0, _right(cells)), (1, -_right(cells))):
        for name, protocol in honest_protocols(cells).items():
            for part, split in protocol.parts.items():
                chosen = split.test[::-1]
                logits = np.stack([np.zeros(len(chosen)), margins[chosen]], axis=1).astype(np.float32)
                path = tmp_path / f"honest-tiny-{seed}" / name / part / "predictions.safetensors"
                path.parent.mkdir(parents=True)
                words = np.array(["test"] * len(chosen))
                Predictions(cells.keys[chosen], cells.groups[chosen], cells.is_blast[chosen], logits, words).save(path)
    asked: list[tuple[str, str]] = []

    def smudged(folder: Path, protocol: Protocol, given: Pack, worker: Worker) -> np.ndarray:
        asked.append((folder.name, protocol.name))
        np.testing.assert_array_equal(given.keys, windows.keys)
        return np.array([1.0, -1.0, 0.0]) if protocol.name == "olympus" else np.array([2.0, 3.0])

    monkeypatch.setattr(honest_figures, "smudged_margins", smudged)
    found = measure_network(NETWORK, data, tmp_path, CPU, seeds=(0, 1))
    assert found.name == "tiny"
    assert (found.smudged, found.smudged_called_blast) == (10, 6)
    assert sorted(asked) == sorted((f"honest-tiny-{seed}", camera) for seed in (0, 1) for camera in ("olympus", "canon"))
    for figure in _by_title(found.figures).values():
        assert figure.by_seed == (1.0, 0.0)
        assert figure.auc.value == 0.5
    with pytest.raises((ArrayFileError, OSError), match="honest-tiny-2"):
        measure_network(NETWORK, data, tmp_path, CPU, seeds=(0, 1, 2))


def test_what_needs_no_morphology_is_held_against_the_networks(data: BenchmarkData) -> None:
    found = measure_baselines(data)
    assert set(found) == {COLOURS, SIZE}, "a camera tells nothing within itself"
    leukaemic = len(CANON)
    for name, figures in found.items():
        assert figures.name == name
        by_title = _by_title(figures.figures)
        counts = {title: (figure.blasts, figure.normals) for title, figure in by_title.items()}
        assert counts["Olympus, unseen session"] == counts["learned on Canon, Olympus"] == (len(OLYMPUS), len(OLYMPUS))
        assert counts["learned on Olympus, Canon"] == (leukaemic, leukaemic)
        assert counts[WITH_HEALTHY] == (leukaemic, leukaemic + len(HEALTHY))
        assert (figures.smudged, figures.smudged_called_blast) == (0, 0)
    assert all(figure.auc.value > 0.95 for figure in found[SIZE].figures), "drawn blasts are larger"
