"""Tests of class activations that are added to exported files: all else stays, their mean is the decision, releases say so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from services.common.engines.onnx_runtime import open_session
from services.common.model_repository import read_model_config
from services.common.releases import ReleaseStore, Role, sha256_of
from tests.paths import ROOT
from tests.training.small import small_network
from training.errors import GateError, RecipeError
from training.export.onnx_model import OUTPUTS, ServedNetwork, export_onnx
from training.releases.add_class_activations import give_class_activations, refuse_other_answers, with_class_activations
from training.releases.verify import check_releases

pytestmark = pytest.mark.slow

SIDE = 64


class _Older(ServedNetwork):
    """A network as it was exported before there were class activations."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__(network, [0.7, 0.6, 0.7], [0.2, 0.25, 0.15], 1.7)
        self.outputs = OUTPUTS

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        logits, embedding, places = self.network(self.normalised(images))
        return logits / self.temperature, embedding, places


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("older") / "model.onnx"
    export_onnx(_Older(small_network(seed=3)).eval(), SIDE, path)
    return path


def test_they_are_those_that_an_export_gives_today(older: Path, tmp_path: Path) -> None:
    onnx.save(with_class_activations(onnx.load(str(older))), str(tmp_path / "given.onnx"))
    today = ServedNetwork(small_network(seed=3), [0.7, 0.6, 0.7], [0.2, 0.25, 0.15], 1.7).eval()
    export_onnx(today, SIDE, tmp_path / "today.onnx")
    images = np.random.default_rng(1).integers(0, 256, (5, SIDE, SIDE, 3), np.uint8)
    names = [*OUTPUTS, "class_activations"]
    given, expected = (open_session(tmp_path / f"{n}.onnx", 1).run(names, {"images": images}) for n in ("given", "today"))
    for a, b in zip(given, expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, atol=1e-4)
    for a, b in zip(given, open_session(older, 1).run(list(OUTPUTS), {"images": images}), strict=False):
        np.testing.assert_array_equal(a, b)
    refuse_other_answers(older, tmp_path / "given.onnx", SIDE)


def test_a_file_that_answers_otherwise_is_refused(older: Path, tmp_path: Path) -> None:
    changed = with_class_activations(onnx.load(str(older)))
    onnx.save(changed, str(tmp_path / "right.onnx"))
    weight = next(t for t in changed.graph.initializer if t.name == "class_activations/weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * np.float32(1.5), weight.name))
    onnx.save(changed, str(tmp_path / "wrong.onnx"))
    with pytest.raises(GateError, match="mean of the class activations differs"):
        refuse_other_answers(older, tmp_path / "wrong.onnx", SIDE)
    export_onnx(_Older(small_network(seed=4)).eval(), SIDE, tmp_path / "other.onnx")
    with pytest.raises(GateError, match="does not answer as"):
        refuse_other_answers(tmp_path / "other.onnx", tmp_path / "right.onnx", SIDE)


def test_what_has_them_or_cannot_have_them_is_told(older: Path) -> None:
    with pytest.raises(GateError, match="gives class_activations already"):
        with_class_activations(with_class_activations(onnx.load(str(older))))
    with pytest.raises(GateError, match="Relu stands where ReduceMean is expected"):
        with_class_activations(_with_hidden_layer(onnx.load(str(older))))
    without_bias = onnx.load(str(older))
    del _head(without_bias).input[2]
    with pytest.raises(GateError, match="not a linear layer with weight and bias"):
        with_class_activations(without_bias)


def _head(model: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == "Gemm")


def _with_hidden_layer(model: onnx.ModelProto) -> onnx.ModelProto:
    head = _head(model)
    at = list(model.graph.node).index(head)
    model.graph.node.insert(at, onnx.helper.make_node("Relu", [head.input[0]], ["hidden"]))
    model.graph.node[at + 1].input[0] = "hidden"
    return model


NAME, MODEL = "adaptive-unsharpening-1", "adaptive_unsharpening_1"


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """A copy of a shipped release, served from its float32 file alone, and a second release with the same model."""
    shutil.copytree(ROOT / "model_repository" / MODEL, tmp_path / "model_repository" / MODEL)
    for name in (NAME, "second-1"):
        shutil.copytree(ROOT / "releases" / NAME, tmp_path / "releases" / name)
        path = tmp_path / "releases" / name / "release.json"
        content = json.loads(path.read_text(encoding="utf-8")) | {"id": name}
        for part in ("network", "embedder"):
            content[part]["files"] = dict.fromkeys(Role, content[part]["files"]["cpu"])
        path.write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "releases" / "index.json").write_text(json.dumps({"default": NAME, "current": {"adaptive_unsharpening": NAME}}), encoding="utf-8")
    return tmp_path


def _files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_releases_of_the_model_say_so(served: Path) -> None:
    changed = give_class_activations(MODEL, served / "releases", served / "model_repository")
    releases = ReleaseStore(served / "releases", served / "model_repository").releases
    assert {r.id: r for r in releases} == {r.id: r for r in changed}
    assert {r.id for r in releases} == {NAME, "second-1"}
    assert all(r.class_activations for r in releases)
    folder = served / "model_repository" / MODEL
    assert read_model_config(folder).output_shapes["class_activations"] == (4, 4, 2)
    metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["network"]["files"]["cpu"]["sha256"] == releases[0].network.files[Role.CPU].sha256
    assert "class activations" in (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert len(list(check_releases(served / "releases", served / "model_repository"))) == 2
    assert not list(folder.glob("**/*.part"))


def test_a_failure_in_the_middle_leaves_everything_as_it_was(served: Path) -> None:
    (served / "model_repository" / MODEL / "metadata.json").write_text("{", encoding="utf-8")
    before = _files(served)
    with pytest.raises(RecipeError, match="does not describe a model"):
        give_class_activations(MODEL, served / "releases", served / "model_repository")
    assert _files(served) == before


def test_models_that_cannot_be_changed_in_one_file_are_left_to_their_runs(served: Path) -> None:
    path = served / "releases" / "second-1" / "release.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    half = served / "model_repository" / MODEL / "1" / "model_fp16.onnx"
    content["network"]["files"]["gpu"] = {"file": half.name, "sha256": sha256_of(half)}
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(RecipeError, match="served from several files"):
        give_class_activations(MODEL, served / "releases", served / "model_repository")
    with pytest.raises(RecipeError, match="No release judges cells"):
        give_class_activations("nothing", served / "releases", served / "model_repository")
