"""Tests of training by the honest protocols, on a tiny copy of the data and with a tiny network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from tests.training.tiny_all_idb import CANON, HEALTHY, OLYMPUS, tiny_benchmark
from training.crops.packs import Pack
from training.datasets.all_idb_fields import SMUDGED
from training.datasets.splits import Split
from training.errors import RecipeError
from training.evaluation.all_idb.data import BenchmarkData
from training.evaluation.all_idb.honest import NETWORKS, Network, cell_windows, margins_of, options_of, smudged_margins, train_honestly
from training.evaluation.all_idb.protocols import Protocol, honest_protocols
from training.learning.classification_task import logits_of
from training.learning.devices import Worker
from training.recipes.config import Start
from training.runs import transfer
from training.runs.folder import SPLIT, Predictions, load_trained, split_digest

pytestmark = pytest.mark.slow

CPU = Worker(torch.device("cpu"))
CHANGES = ("network.architecture=resnet18", "network.width=8", "network.embedding=0", "start=scratch", "fine_tuning.epochs=1", "fine_tuning.batch=6")
TINY = Network("tiny", "tiny", CHANGES, 32)
PARTS = {
    "olympus": ["olympus-1", "olympus-2", "olympus-3"],
    "canon": [f"canon-{n}" for n in range(1, 6)],
    "olympus-to-canon": ["canon"],
    "canon-to-olympus": ["olympus"],
}


class Trained(NamedTuple):
    """A finished run, its cells, and what each part was given to learn."""

    runs: Path
    windows: Pack
    cells: Pack
    given: dict[str, tuple[Pack, Split]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BenchmarkData]:
    with tiny_benchmark(tmp_path_factory.mktemp("tiny")) as found:
        yield found


@pytest.fixture(scope="module")
def trained(data: BenchmarkData, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    runs = tmp_path_factory.mktemp("runs")
    given: dict[str, tuple[Pack, Split]] = {}
    fit_part = transfer.fit_part

    def watched(options: Any, target: Pack, nothing: Pack | None, split: Split, folder: Path, *others: Any) -> None:
        assert nothing is None
        given[str(folder.relative_to(runs / "honest-tiny-0"))] = (target, split)
        fit_part(options, target, nothing, split, folder, *others)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(transfer, "fit_part", watched)
        train_honestly(TINY, data, runs, CPU, seeds=(0,))
    windows = cell_windows(data, TINY.side)
    return Trained(runs, windows, windows.select(windows.is_blast >= 0), given)


def test_every_network_has_a_recipe_and_its_checkpoint(data: BenchmarkData) -> None:
    assert len({network.name for network in NETWORKS}) == len(NETWORKS)
    for network in NETWORKS:
        options = options_of(network, data, Path("runs"), 2)
        assert (options.name, options.seed) == (f"honest-{network.name}-2", 2)
        assert options.recipe.fine_tuning.input.side == network.side
        assert network.needs_checkpoint == (options.recipe.start is Start.ALLNET)
        assert options.checkpoint == (data.checkpoint if network.needs_checkpoint else None)
        assert options.recipe.pretraining is None


def test_windows_hold_smudged_and_unknown_cells_that_nobody_learns_from(trained: Trained) -> None:
    leukaemic = len(OLYMPUS) + len(CANON)
    assert (trained.windows.class_names == SMUDGED).sum() == leukaemic + len(HEALTHY)
    assert (trained.windows.is_blast < 0).sum() > (trained.windows.class_names == SMUDGED).sum()
    assert (trained.cells.is_blast == 1).sum() == leukaemic
    for target, split in trained.given.values():
        assert len(split.train)
        assert set(target.is_blast[split.train].tolist()) == {0, 1}
        assert not {"cut", SMUDGED} & set(target.class_names[split.train].tolist())


def test_each_part_is_learned_from_other_blocks(trained: Trained) -> None:
    folder = trained.runs / "honest-tiny-0"
    assert set(trained.given) == {f"{protocol}/{part}" for protocol, parts in PARTS.items() for part in parts}
    for part, (target, split) in trained.given.items():
        said = Predictions.load(folder / part / "predictions.safetensors")
        assert len(said.keys)
        assert set(said.part) == {"test"}
        assert not set(target.groups[split.train].tolist()) & set(said.groups.tolist())
        assert not set(target.folds[split.train].tolist()) & set(target.folds[np.isin(target.keys, said.keys)].tolist())
        about = load_trained(folder / part).about
        assert about["part"] == part
        assert about[SPLIT] == split_digest(trained.cells, split)


def test_every_cell_of_a_camera_is_judged_once(trained: Trained) -> None:
    folder = trained.runs / "honest-tiny-0"
    for protocol, parts in PARTS.items():
        judged = [key for part in parts for key in Predictions.load(folder / protocol / part / "predictions.safetensors").keys.tolist()]
        camera = protocol.split("-to-")[-1]
        assert sorted(judged) == sorted(trained.cells.keys[np.char.startswith(trained.cells.folds, camera)].tolist())


def test_what_is_finished_is_not_trained_again(data: BenchmarkData, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "fit", lambda *_: pytest.fail("a finished part is trained again"))
    train_honestly(TINY, data, trained.runs, CPU, seeds=(0,))


def test_each_seed_has_a_folder_of_its_own(data: BenchmarkData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[int, Path]] = []
    monkeypatch.setattr(transfer, "fit_part", lambda options, *given: begun.append((options.seed, given[3])))
    train_honestly(TINY, data, tmp_path, CPU, seeds=(1, 4))
    assert len(begun) == 2 * sum(len(parts) for parts in PARTS.values())
    assert {(seed, folder.relative_to(tmp_path).parts[0]) for seed, folder in begun} == {(1, "honest-tiny-1"), (4, "honest-tiny-4")}


def test_margins_are_of_the_cell_with_their_key(trained: Trained, tmp_path: Path) -> None:
    cells = trained.cells
    protocol = honest_protocols(cells)["olympus"]
    wanted = np.full(len(cells), np.nan)
    for i, (name, split) in enumerate(protocol.parts.items()):
        chosen = np.random.default_rng(i).permutation(split.test)
        wanted[chosen] = chosen + 100.0 * i
        logits = np.stack([-wanted[chosen] / 2, wanted[chosen] / 2], axis=1).astype(np.float32)
        path = tmp_path / "olympus" / name / "predictions.safetensors"
        path.parent.mkdir(parents=True)
        Predictions(cells.keys[chosen], cells.groups[chosen], cells.is_blast[chosen], logits, np.array(["test"] * len(chosen))).save(path)
    found = margins_of(tmp_path, protocol, cells)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(np.isnan(found), ~np.char.startswith(cells.folds, "olympus"))


def test_smudged_cells_are_judged_by_the_network_of_their_fold(trained: Trained) -> None:
    folder = trained.runs / "honest-tiny-0"
    protocols = honest_protocols(trained.cells)
    smudged = trained.windows.select(trained.windows.class_names == SMUDGED)
    for camera in ("olympus", "canon"):
        wanted: list[np.ndarray] = []
        others: list[np.ndarray] = []
        for part in PARTS[camera]:
            own = smudged.pixels[smudged.folds == part]
            for judge in PARTS[camera]:
                judging = load_trained(folder / camera / judge)
                logits = logits_of(judging.network, own, judging.normaliser, CPU.device)
                (wanted if judge == part else others).append(logits[:, 1] - logits[:, 0])
        found = smudged_margins(folder, protocols[camera], trained.windows, CPU)
        assert len(found) == np.char.startswith(smudged.folds, camera).sum()
        assert np.allclose(found, np.concatenate(wanted), rtol=1e-5, atol=1e-6)
        assert not np.isclose(np.concatenate(others), np.concatenate(wanted)[0]).all(), "networks differ"


def test_a_fold_without_smudged_cells_is_passed_over(trained: Trained) -> None:
    known = trained.windows.select((trained.windows.class_names != SMUDGED) | (trained.windows.folds == "olympus-2"))
    protocols = honest_protocols(trained.cells)
    folder = trained.runs / "honest-tiny-0"
    assert len(smudged_margins(folder, protocols["olympus"], known, CPU)) == 2
    assert len(smudged_margins(folder, protocols["canon"], known, CPU)) == 0
    assert len(smudged_margins(folder, Protocol("olympus", "", {}), known, CPU)) == 0


def test_another_network_under_the_same_name_is_refused(data: BenchmarkData, trained: Trained) -> None:
    with pytest.raises(RecipeError, match="another recipe"):
        train_honestly(replace(TINY, changes=(*CHANGES, "fine_tuning.epochs=2")), data, trained.runs, CPU, seeds=(0,))
