"""A trained locator is installed whole or not at all: file, configurations, card, and its name in the index."""

from __future__ import annotations

import json
import shutil
from itertools import count
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from services.common.errors import BrokenReleaseError
from services.common.releases import INDEX_FILE, ReleaseStore, Role, sha256_of
from tests.paths import ROOT
from training.architectures.locator import LocatorNetwork
from training.errors import RecipeError, TrainingError
from training.export.locator import export_locator
from training.learning.checkpoints import save_network
from training.location.recipe import load_locator_recipe
from training.location.run import NETWORK_FILE, load_locator
from training.releases import locator
from training.releases.card import locator_card
from training.releases.locator import LocatorOptions, install_locator
from training.releases.verify import check_releases
from training.releases.write import activate

pytestmark = pytest.mark.slow
RELEASE = "plain-resnet-1"
FIGURES = {"lymphoblasts": "0.990 (198/200)"}


def _run(folder: Path, seed: int = 0, fold: int | None = None) -> Path:
    torch.manual_seed(seed)
    network = LocatorNetwork(4)
    about = {"recipe": load_locator_recipe(["network.width=4"]).model_dump(), "seed": seed, "fold": fold, "images": {"phantoms": 3, "all_idb": 0}}
    folder.mkdir()
    save_network(folder / NETWORK_FILE, network, about)
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """Exporting takes seconds, so it is done once."""
    folder = tmp_path_factory.mktemp("exported")
    export_locator(load_locator(_run(folder / "run")), folder / "model.onnx")
    return onnx.load(str(folder / "model.onnx"))


@pytest.fixture
def options(tmp_path: Path, exported: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> LocatorOptions:
    """A store of one release, and a run; every export gives another file."""

    def export(_: LocatorNetwork, path: Path) -> float:
        path.parent.mkdir(parents=True)
        exported.producer_version = str(next(numbers))
        onnx.save(exported, str(path))
        return 0.0

    numbers = count()
    monkeypatch.setattr(locator, "export_locator", export)
    releases, models = tmp_path / "releases", tmp_path / "model_repository"
    shutil.copytree(ROOT / "releases" / RELEASE, releases / RELEASE)
    shutil.copytree(ROOT / "model_repository" / "plain_resnet_128", models / "plain_resnet_128")
    (releases / INDEX_FILE).write_text(json.dumps({"default": RELEASE, "current": {"plain_resnet": RELEASE}}), encoding="utf-8")
    return LocatorOptions(_run(tmp_path / "run"), "locator_1", FIGURES, releases, models)


def _index(options: LocatorOptions) -> Any:
    return json.loads((options.releases / INDEX_FILE).read_text(encoding="utf-8"))


def test_it_is_served_to_releases_that_name_none(options: LocatorOptions) -> None:
    model = install_locator(options)
    path = options.model_repository / "locator_1" / "1" / "model.onnx"
    assert {model.files[role].sha256 for role in Role} == {sha256_of(path)}
    assert ReleaseStore(options.releases, options.model_repository).locator(RELEASE) == model
    assert next(check_releases(options.releases, options.model_repository)) == (
        "index.json: locator_1 finds the cells for releases that name no locator"
    )


def test_the_card_of_the_served_locator_is_what_its_metadata_say() -> None:
    served = ReleaseStore(ROOT / "releases", ROOT / "model_repository").index.locator
    assert served is not None
    folder = ROOT / "model_repository" / served.model
    metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    assert (folder / "MODEL_CARD.md").read_text(encoding="utf-8") == locator_card(metadata)
    assert metadata["locator"] == served.model_dump(mode="json")


def test_its_card_says_what_it_learned_and_where_it_fails(options: LocatorOptions) -> None:
    install_locator(options)
    card = (options.model_repository / "locator_1" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "phantoms: 3 images" in card
    assert "all_idb" not in card.split("## Figures")[0]
    assert "| lymphoblasts | 0.990 (198/200) |" in card
    assert all(limit.split(":")[0] in " ".join(card.split()) for limit in locator.LIMITS)


def test_an_activated_release_leaves_the_locator_in_use(options: LocatorOptions) -> None:
    model = install_locator(options)
    activate(ReleaseStore(options.releases, options.model_repository).resolve(RELEASE), options.releases, as_default=True)
    assert ReleaseStore(options.releases, options.model_repository).index.locator == model


def test_a_network_of_a_fold_is_refused(options: LocatorOptions, tmp_path: Path) -> None:
    fold = LocatorOptions(_run(tmp_path / "fold", fold=1), "locator_1", FIGURES, options.releases, options.model_repository)
    with pytest.raises(RecipeError, match="has not seen fold 1"):
        install_locator(fold)
    assert "locator" not in _index(options)


def test_a_run_that_is_not_finished_is_refused(options: LocatorOptions, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="train it first"):
        install_locator(LocatorOptions(tmp_path, "locator_1", FIGURES, options.releases, options.model_repository))


def test_a_name_that_is_taken_is_refused_unless_it_is_replaced(options: LocatorOptions, tmp_path: Path) -> None:
    first = install_locator(options)
    other = _run(tmp_path / "other", seed=1)
    with pytest.raises(RecipeError, match="is there already"):
        install_locator(LocatorOptions(other, "locator_1", FIGURES, options.releases, options.model_repository))
    second = install_locator(LocatorOptions(other, "locator_1", FIGURES, options.releases, options.model_repository, replace=True))
    assert second != first
    assert ReleaseStore(options.releases, options.model_repository).index.locator == second


def test_what_the_store_refuses_is_undone(options: LocatorOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = install_locator(options)
    index = (options.releases / INDEX_FILE).read_bytes()

    def refuse(*_: object) -> None:
        raise BrokenReleaseError("RELEASE_BROKEN", "no")

    monkeypatch.setattr(locator, "ReleaseStore", refuse)
    for name, replace in (("locator_1", True), ("locator_2", False)):
        with pytest.raises(BrokenReleaseError):
            install_locator(LocatorOptions(_run(tmp_path / name, seed=2), name, FIGURES, options.releases, options.model_repository, replace))
    monkeypatch.undo()
    assert (options.releases / INDEX_FILE).read_bytes() == index
    assert ReleaseStore(options.releases, options.model_repository).locator("") == first
    assert not (options.model_repository / "locator_2").exists()
