"""Tests of building a release with a network of patches, from a small run to files that the services load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from services.common.errors import BrokenReleaseError, NotFoundError
from services.common.model_repository import CPU_CONFIG_FILE, read_model_config
from services.common.releases import ReleaseStore
from tests.paths import ROOT
from tests.training.composed import write_aml_cells
from tests.training.small import SIDE, patch_pack, write_patch_recipe
from training.crops.composition import Composition, compose_pack
from training.crops.packs import write_pack
from training.crops.sources import Sources
from training.errors import RecipeError
from training.learning.devices import Worker
from training.recipes.config import load_recipe
from training.releases.build import SCORED_FILE
from training.releases.build_patches import PatchBuildOptions, build
from training.releases.verify import check_releases
from training.runs.folder import TransferOptions
from training.runs.patches import run

pytestmark = pytest.mark.slow

CPU = Worker(torch.device("cpu"))
FEW = Composition(training=2, judged=2, training_scales=(0.5, 0.6), judged_scales=(0.5, 0.6))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cells, their pack of patches and a run."""
    folder = tmp_path_factory.mktemp("trained")
    cells = write_aml_cells(folder / "aml_cells")
    dataset = Sources.find([cells], folder / "cache").dataset("aml_cells")
    write_pack(compose_pack(dataset, FEW, SIDE), folder / "composed.pack")
    run(TransferOptions(load_recipe(str(write_patch_recipe(folder))), "", "", 0, 0, folder / "runs", "run"), _sources(folder), CPU)
    return folder


def _sources(folder: Path) -> Sources:
    return Sources.find([folder / "composed.pack", folder / "aml_cells"], folder / "cache")


@dataclass(frozen=True)
class Built:
    """Releases with one of patches among them."""

    releases: Path
    model_repository: Path
    figures: Mapping[str, object]
    default: str


@pytest.fixture(scope="module")
def built(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    releases, models = (Path(shutil.copytree(ROOT / name, folder / name)) for name in ("releases", "model_repository"))
    default = json.loads((releases / "index.json").read_text())["default"]
    copied = Built(releases, models, {}, default)
    return replace(copied, figures=build(_options(trained, copied), _sources(trained)))


def _options(trained: Path, copy: Any, release: str = "small-patches-1", cells: str = "plain_resnet", replace: bool = False) -> PatchBuildOptions:
    return PatchBuildOptions(trained / "runs" / "run", release, cells, copy.releases, copy.model_repository, replace, FEW)


def test_cells_are_judged_as_by_another_release_and_patches_by_its_own_network(trained: Path, built: Built) -> None:
    store = ReleaseStore(built.releases, built.model_repository)
    release, cells = store.resolve("small_patches"), store.resolve("plain_resnet")
    assert (release.id, store.index.default) == ("small-patches-1", built.default)
    for part in ("network", "embedder", "input", "library", "calibration", "decision", "preprocessing", "detects"):
        assert getattr(release, part) == getattr(cells, part)
    assert store.library_path(release).parent.name == release.id
    assert release.patches is not None
    assert (release.patches.side, release.patches.patch_side, release.patches.overlap) == (SIDE, 256, 0.25)
    for who in ("calibration patients", "test patients"):
        for name in (
            "AUC, blast present",
            "balanced accuracy, other present",
            "1 - Hamming loss",
            "Jaccard by sample",
            "recall of cells, composed fields",
        ):
            assert f"{name}, {who}" in built.figures
    assert len((trained / "runs" / "run" / SCORED_FILE).read_text().splitlines()) == 1


def test_the_model_is_whole_and_its_card_says_what_it_is(built: Built) -> None:
    folder = built.model_repository / "small_patches_1"
    assert read_model_config(folder).output_shapes == {"logits": (2,), "class_activations": (2, 2, 2)}
    assert (folder / CPU_CONFIG_FILE).is_file()
    card = (folder / "MODEL_CARD.md").read_text()
    assert card.startswith("# small_patches_1\n")
    for words in ("class activations (the logits are their mean", "must not be called a detector of ALL", "composed of single cells"):
        assert words in card
    whole = [line for line in check_releases(built.releases, built.model_repository) if line.startswith("small-patches-1: whole; plain_resnet_128")]
    assert "patches by small_patches_1" in whole[0]


@pytest.mark.parametrize(
    ("side", "own", "message"), [(128, False, "plain_resnet_128 is no network of patches"), (64, True, "the release gives 64 px")]
)
def test_a_release_whose_network_of_patches_is_another_is_not_whole(built: Built, tmp_path: Path, side: int, own: bool, message: str) -> None:
    releases = Path(shutil.copytree(built.releases, tmp_path / "releases"))
    path = releases / "small-patches-1" / "release.json"
    content = json.loads(path.read_text())
    network = content["patches"]["network"] if own else content["network"]
    path.write_text(json.dumps({**content, "patches": {**content["patches"], "network": network, "side": side}}))
    with pytest.raises(BrokenReleaseError, match=message):
        list(check_releases(releases, built.model_repository))


def test_what_does_not_belong_together_is_refused_and_nothing_is_left(trained: Path, release_copy: Any, tmp_path: Path) -> None:
    before = sorted(p.relative_to(release_copy.releases.parent) for p in release_copy.releases.parent.rglob("*"))
    with pytest.raises(RecipeError, match="there already"):
        build(_options(trained, release_copy, release="plain-resnet-1"), _sources(trained))
    with pytest.raises(NotFoundError, match="No release or system"):
        build(_options(trained, release_copy, cells="nobody"), _sources(trained))
    (tmp_path / "other").mkdir()
    write_pack(patch_pack(), tmp_path / "other" / "composed.pack")
    sources = Sources.find([tmp_path / "other" / "composed.pack", trained / "aml_cells"], tmp_path / "cache")
    with pytest.raises(RecipeError, match="not those that the network was trained on"):
        build(_options(trained, release_copy), sources)
    (tmp_path / "other" / "composed.pack").unlink()
    (tmp_path / "other").rmdir()
    assert sorted(p.relative_to(release_copy.releases.parent) for p in release_copy.releases.parent.rglob("*")) == before
