"""Tests of class injection: which crops and clusters are added, to which part, and a release that tells that no cell is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dl4all.diagnosis.v1 import diagnosis_pb2
from services.common.cell_classes import BLAST_COLUMN, NOTHING_COLUMN
from services.common.phantom import CellKind, encode_png, single_cell
from services.common.releases import ReleaseStore
from services.common.settings import CommonSettings
from services.embedded import embedded_services
from tests.training.small import SIDE, cell_pack, write_recipe
from training.architectures.network import MergedClasses, Outputs
from training.crops.packs import Pack, write_pack
from training.crops.sources import Sources
from training.datasets.splits import Split
from training.errors import RecipeError
from training.learning.classification_task import Samples
from training.learning.devices import Worker
from training.learning.injection import class_count, inject_nothing, merged_classes, split_blasts
from training.recipes.config import Injection, load_recipe
from training.releases.build import BuildOptions, build
from training.runs import transfer
from training.runs.folder import Predictions, TransferOptions, load_trained
from training.runs.transfer import run

pytestmark = pytest.mark.slow

CPU = Worker(torch.device("cpu"))
NONE = np.zeros(0, np.int64)


def _samples(groups: list[str], classes: list[int]) -> Samples:
    count = len(groups)
    labels = np.eye(2, dtype=np.int8)[classes]
    return Samples(np.zeros((count, SIDE, SIDE, 3), np.uint8), labels, np.array(classes, np.int64), np.array(groups))


def _nothing(patients: int = 18, cells: int = 6) -> Pack:
    pack = cell_pack(patients=patients, cells=cells, seed=7)
    header = replace(pack.header, classes=("nothing",), subject="nothing")
    pixels = np.clip(pack.pixels.astype(int) % 40 + 215, 0, 255).astype(np.uint8)
    return replace(pack, header=header, labels=np.ones((len(pack), 1), np.int8), is_blast=np.full(len(pack), -1, np.int8), pixels=pixels)


def test_crops_are_injected_into_the_training_part_and_only_allowed_ones() -> None:
    samples = _samples(["P00"] * 3 + ["P01"] * 3 + ["P02"] * 2, [0, 1, 0, 1, 0, 1, 0, 1])
    split = Split(np.array([0, 1, 2, 3, 4, 5]), np.array([6, 7]), NONE)
    nothing = _nothing(patients=3, cells=4)
    allowed = np.isin(nothing.groups, ["P00", "P01"])
    injected, extended = inject_nothing(samples, split, nothing, allowed, 0.5, seed=0)
    assert len(injected) == 8 + 3
    assert injected.labels[:8].tolist() == np.pad(samples.labels, ((0, 0), (0, 1))).tolist()
    assert injected.labels[8:].tolist() == [[0, 0, 1]] * 3
    assert set(injected.groups[8:]) <= {"P00", "P01"}
    assert injected.fine[8:].tolist() == [2, 2, 2]
    assert extended.train.tolist() == [0, 1, 2, 3, 4, 5, 8, 9, 10]
    assert (extended.validation.tolist(), extended.test.tolist()) == ([6, 7], [])
    again, _ = inject_nothing(samples, split, nothing, allowed, 0.5, seed=0)
    np.testing.assert_array_equal(again.pixels, injected.pixels)


@pytest.mark.parametrize(("share", "groups"), [(1.0, 1), (0.01, 3)])
def test_too_few_crops_are_told(share: float, groups: int) -> None:
    samples = _samples(["P00"] * 5 + ["P01"] * 5, [0, 1] * 5)
    with pytest.raises(RecipeError, match=r"crops without a cell are asked for"):
        inject_nothing(samples, Split(np.arange(10), NONE, NONE), _nothing(patients=groups, cells=4), np.ones(4 * groups, np.bool_), share, seed=0)


def test_blasts_of_the_training_part_are_split_by_their_embeddings() -> None:
    samples, _ = inject_nothing(
        _samples(["P00"] * 8, [0, 0, 1, 1, 1, 1, 1, 0]), Split(np.arange(8), NONE, NONE), _nothing(1, 4), np.ones(4, np.bool_), 0.25, seed=0
    )
    training = np.array([0, 1, 2, 3, 4, 5])
    embeddings = np.array([[1, 0], [1, 0], [9, 1], [8, 1], [-1, 7], [-2, 8]], np.float32)
    clustered = split_blasts(samples, training, embeddings, 2, seed=0)
    assert clustered.labels.shape == (len(samples), 4)
    assert clustered.labels.sum(axis=1).tolist() == [1] * len(samples)
    kinds = clustered.labels.argmax(axis=1)
    assert kinds[2] == kinds[3] != kinds[4] == kinds[5]
    assert {int(kinds[2]), int(kinds[4])} == {BLAST_COLUMN, NOTHING_COLUMN + 1}
    assert kinds[6] == BLAST_COLUMN
    np.testing.assert_array_equal(kinds[[0, 1, 7, 8, 9]], [0, 0, 0, NOTHING_COLUMN, NOTHING_COLUMN])
    assert len(np.unique(clustered.fine[2:6])) == 2
    with pytest.raises(RecipeError, match="do not fall into 3 clusters"):
        split_blasts(samples, training[:4], embeddings[:4], 3, seed=0)


def test_merged_classes_add_their_probabilities() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Outputs:
            return Outputs(torch.log(torch.tensor([[0.1, 0.2, 0.3, 0.4]])), x, x)

    injection = Injection(nothing=0.3, clusters=2)
    assert (class_count(injection), class_count(Injection()), class_count(Injection(nothing=0.1))) == (4, 2, 3)
    merged = MergedClasses(Fixed(), merged_classes(injection))(torch.zeros(1))
    torch.testing.assert_close(merged.logits.exp(), torch.tensor([[0.1, 0.6, 0.3]]))
    assert merged_classes(Injection()) == ((0,), (1,))


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ("dss", ["injection.nothing=0.0", "injection.clusters=2"], "clusters needs the class nothing"),
        ("dss", ["injection.source=patches"], "may show the fields of test cells"),
        ("dl4all_cnn", ["injection.nothing=0.2"], "goes with neither patches nor interleaving"),
        ("all_idb_patches", ["injection.nothing=0.2"], "goes with neither patches nor interleaving"),
    ],
)
def test_injection_that_would_not_be_learned_is_refused_before_anything_is_trained(recipe: str, changes: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe, changes=changes)


@pytest.mark.parametrize("by", ["group", "image"])
def test_background_of_images_that_validate_or_test_are_not_learned(tmp_path: Path, by: str) -> None:
    """Every image's background has a colour of its own; what a split learns from is seen in its samples."""
    target, nothing = cell_pack(patients=6), _nothing(6)
    training = np.flatnonzero(np.isin(target.groups, ["P00", "P01"]) if by == "group" else np.arange(len(target)) % 3 == 0)
    recipe = load_recipe(str(write_recipe(tmp_path)), changes=["injection.nothing=0.1", f"split.by={by}"])
    allowed = transfer._may_be_learned(nothing, target, training, recipe)
    assert allowed.tolist() == np.isin(np.arange(len(target)), training).tolist()


@pytest.fixture(scope="module")
def injected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that learned the class nothing, and the release that came of it."""
    folder = tmp_path_factory.mktemp("injected")
    write_pack(cell_pack(patients=24), folder / "cells.pack")
    write_pack(_nothing(24), folder / "nothing.pack")
    sources = Sources.find([folder / "cells.pack", folder / "nothing.pack"], folder / "cache")
    changes = ["pretraining.enabled=false", "injection.nothing=0.5"]
    recipe = load_recipe(str(write_recipe(folder, architecture="resnet18", epochs=6)), changes=changes)
    made = run(TransferOptions(recipe, "", "", 0, 0, folder / "runs", "run"), sources, CPU)
    build(BuildOptions(made, None, "small-1", folder / "releases", folder / "model_repository"), sources)
    return folder


def test_a_run_with_the_class_nothing_judges_cells_alone(injected: Path) -> None:
    folder = injected / "runs" / "run" / "final"
    predictions = Predictions.load(folder / "predictions.safetensors")
    assert predictions.logits.shape[1] == 3
    assert all(key.startswith("aml_cells") for key in predictions.keys)
    assert load_trained(folder).network.heads["classes"].out_features == 3


def test_its_release_says_what_it_tells_and_how_well(injected: Path) -> None:
    (release,) = ReleaseStore(injected / "releases", injected / "model_repository").releases
    assert release.classes == ("normal", "blast", "nothing")
    assert release.class_activations
    figures = {f.name: f.value for f in release.figures}
    assert figures["no cell seen, test patients, crops without a cell"] > 0.9
    assert figures["no cell seen, test patients, cells"] < 0.1
    card = (injected / "model_repository" / "small_1" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "logits (normal, blast, nothing)" in card
    assert "class activations" in card


@pytest.mark.parametrize("maps", [True, False])
async def test_its_diagnosis_tells_where_it_decides_and_whether_a_cell_is_there(injected: Path, maps: bool) -> None:
    settings = CommonSettings(releases=injected / "releases", model_repository=injected / "model_repository", workers=1)
    request = diagnosis_pb2.DiagnoseRequest(
        image=encode_png(single_cell(3, CellKind.LYMPHOCYTE)), display=diagnosis_pb2.DisplayOptions(include_maps=maps, include_crops=maps)
    )
    async with embedded_services(settings) as services:
        answer = await services.stubs["gateway"].Diagnose(request, timeout=60)
    (cell,) = answer.diagnosis.cells
    assert 0.0 <= cell.nothing_probability <= 1.0
    assert cell.HasField("nothing_probability")
    assert cell.HasField("class_activation") == maps
    if maps:
        shown = cell.class_activation
        levels = np.frombuffer(shown.for_blast.values, np.uint8).astype(float) - np.frombuffer(shown.for_normal.values, np.uint8)
        odds, rounding = levels.mean() * shown.scale / 255, shown.scale / 255 + 0.01
        least, most = (1 / (1 + np.exp(-(odds + shift))) for shift in (-rounding, rounding))
        assert least - 1e-6 <= cell.network_probability <= most + 1e-6
        assert shown.model == "small_1/1"
