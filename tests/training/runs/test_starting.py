"""Tests of the weights that a network has before any training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.small import write_packs
from training.architectures.build import Architecture, NetworkConfig, build_network
from training.architectures.efficientnet_lite import imagenet_weights
from training.architectures.network import HEAD
from training.crops.sources import Sources
from training.errors import ArrayFileError, RecipeError
from training.learning.devices import Worker
from training.recipes.config import Recipe, as_json, load_recipe
from training.runs.folder import TransferOptions, load_trained
from training.runs.pretraining import initial_weights
from training.runs.starting import starting_weights
from training.runs.transfer import run

pytestmark = pytest.mark.slow
CPU = Worker(torch.device("cpu"))
ALLNET = ["network.architecture=resnet18_lbp", "start=allnet", "pretraining.enabled=false"]
SMALL = ["fine_tuning.epochs=1", "fine_tuning.batch=8", 'fine_tuning.input={ kind = "registered_sharpened", side = 32 }']


def _options(recipe: Recipe, checkpoint: Path | None = None, folder: Path = Path("runs")) -> TransferOptions:
    return TransferOptions(recipe, "", "", 0, 0, folder, "run", checkpoint=checkpoint)


def _published_file(path: Path) -> Path:
    """A state dict with the names of the original program, of a network whose weights are drawn with a seed."""
    torch.manual_seed(7)
    network = build_network(NetworkConfig(architecture=Architecture.RESNET18_LBP, lbp_relu=False), {HEAD: 9}, 224)
    torch.save({name.replace("backbone.", "").replace(f"heads.{HEAD}", "fc"): tensor for name, tensor in network.state_dict().items()}, path)
    return path


def test_new_weights_are_no_part_of_what_a_run_is() -> None:
    recipe = load_recipe("histotnet", "published")
    assert starting_weights(_options(recipe)) == (None, {})
    assert "start" not in as_json(recipe)
    assert as_json(load_recipe("efficientnet_lite0"))["start"] == "imagenet"


def test_a_network_starts_from_imagenet(tmp_path: Path) -> None:
    """With a learning rate near zero the trained network has the published kernels, and a head of its own."""
    sources = Sources.find(write_packs(tmp_path), tmp_path / "cache")
    recipe = load_recipe("efficientnet_lite0", changes=[*SMALL, "fine_tuning.optimiser.rate=1e-12", "fine_tuning.average_decay=0"])
    state = load_trained(run(_options(recipe, folder=tmp_path / "runs"), sources, CPU) / "final").network.state_dict()
    published = imagenet_weights()
    for name in ("backbone.stem.0.weight", "backbone.blocks.8.filter.0.weight", "backbone.top.0.weight"):
        assert torch.allclose(state[name], published[name], atol=1e-6), name
    assert state[f"heads.{HEAD}.weight"].shape == (2, 1280)


def test_tissue_is_learned_from_where_a_network_starts(tmp_path: Path) -> None:
    sources = Sources.find(write_packs(tmp_path), tmp_path / "cache")
    source = [
        'pretraining.input={ kind = "center_crop", side = 32 }',
        "pretraining.epochs=1",
        "pretraining.batch=8",
        "pretraining.optimiser.rate=1e-12",
    ]
    short = [*source, "pretraining.schedule.low=1e-12", "pretraining.level=1"]
    changes = ["network.architecture=efficientnet_lite0", "start=imagenet", *SMALL, *short]
    weights, about = initial_weights(_options(load_recipe("histotnet", "published", changes), folder=tmp_path / "runs"), sources, CPU)
    assert weights is not None
    assert torch.allclose(weights["backbone.stem.0.weight"], imagenet_weights()["backbone.stem.0.weight"], atol=1e-6)
    scratch = [c for c in changes if c != "start=imagenet"]
    _, other = initial_weights(_options(load_recipe("histotnet", "published", scratch), folder=tmp_path / "runs"), sources, CPU)
    assert about["source_run"] != other["source_run"]


def test_allnet_starts_from_the_published_file(tmp_path: Path) -> None:
    path = _published_file(tmp_path / "level1.pt")
    weights, about = starting_weights(_options(load_recipe("allnet", "published", ALLNET), path))
    assert weights is not None
    assert torch.equal(weights["backbone.layer1.0.conv1.1.weight"], torch.load(path, weights_only=True)["layer1.0.conv1.1.weight"])
    assert len(about["checkpoint"]) == 64


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    allnet = load_recipe("allnet", "published", ALLNET)
    with pytest.raises(RecipeError, match="needs the published file"):
        starting_weights(_options(allnet))
    path = _published_file(tmp_path / "level1.pt")
    with pytest.raises(RecipeError, match="only; add --set start=allnet"):
        starting_weights(_options(load_recipe("allnet", "published"), path))
    with pytest.raises(RecipeError, match=r"The checkpoint is of resnet18_lbp, the recipe trains resnet34_lbp"):
        starting_weights(_options(load_recipe("allnet", "published", ["start=allnet"]), path))
    with pytest.raises(ArrayFileError):
        starting_weights(replace(_options(allnet), checkpoint=Path(__file__)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["start=imagenet"], "weights of efficientnet_lite0 only, not of resnet18"),
        (["start=allnet"], "needs the network of the program"),
        (["start=allnet", "network.architecture=resnet18_lbp", "network.lbp_relu=true"], "needs the network of the program"),
    ],
)
def test_a_start_that_no_network_fits_is_refused(changes: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("histotnet", "published", changes)
