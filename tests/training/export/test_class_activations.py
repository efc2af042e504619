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
from services.common.releases import SERVED_BY, ReleaseStore
from tests.training.small import small_network
from training.errors import GateError, RecipeError
from training.export.class_activations import give_class_activations, refuse_other_answers, with_class_activations
from training.export.onnx_model import OUTPUTS, ServedNetwork, export_onnx
from training.release_check import check_releases

ROOT = Path(__file__).resolve().parents[3]
SIDE = 64


class _Older(ServedNetwork):
    """A network as it was exported before there were class activations."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__(network, [0.7, 0.6, 0.7], [0.2, 0.25, 0.15], 1.7)
        self.outputs = OUTPUTS

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        logits, embedding, patches = self.network(self.normalised(images))
        return logits / self.temperature, embedding, patches


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


def test_what_has_them_or_cannot_have_them_is_told(older: Path, tmp_path: Path) -> None:
    with pytest.raises(GateError, match="gives class_activations already"):
        with_class_activations(with_class_activations(onnx.load(str(older))))
    model = onnx.load(str(older))
    head = next(node for node in model.graph.node if node.op_type == "Gemm")
    head.input[0] = "embedding"
    with pytest.raises(GateError, match=r"not the mean of class activations|not a linear layer"):
        with_class_activations(_with_relu_before(head, model))


def _with_relu_before(head: onnx.NodeProto, model: onnx.ModelProto) -> onnx.ModelProto:
    at = list(model.graph.node).index(head)
    model.graph.node.insert(at, onnx.helper.make_node("Relu", [head.input[0]], ["hidden"]))
    model.graph.node[at + 1].input[0] = "hidden"
    return model


def test_releases_of_the_model_say_so(tmp_path: Path) -> None:
    """A copy of a shipped release, served from its float32 file alone."""
    name, model = "adaptive-unsharpening-1", "adaptive_unsharpening_1"
    shutil.copytree(ROOT / "releases" / name, tmp_path / "releases" / name)
    shutil.copytree(ROOT / "model_repository" / model, tmp_path / "model_repository" / model)
    index = {"default": name, "current": {"adaptive_unsharpening": name}}
    (tmp_path / "releases" / "index.json").write_text(json.dumps(index), encoding="utf-8")
    path = tmp_path / "releases" / name / "release.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for part in ("network", "embedder"):
        content[part]["files"] = dict.fromkeys(SERVED_BY, content[part]["files"]["onnxruntime"])
    path.write_text(json.dumps(content), encoding="utf-8")

    (changed,) = give_class_activations(model, tmp_path / "releases", tmp_path / "model_repository")
    (release,) = ReleaseStore(tmp_path / "releases", tmp_path / "model_repository").releases
    assert release == changed
    assert release.class_activations
    folder = tmp_path / "model_repository" / model
    assert read_model_config(folder).output_shapes["class_activations"] == (4, 4, 2)
    metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["network"]["files"]["onnxruntime"]["sha256"] == release.network.files["onnxruntime"].sha256
    assert "class activations" in (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert list(check_releases(tmp_path / "releases", tmp_path / "model_repository"))
    assert not list(folder.glob("**/*.part"))
    with pytest.raises(GateError, match="already"):
        give_class_activations(model, tmp_path / "releases", tmp_path / "model_repository")


def test_models_with_lighter_files_are_left_to_their_runs() -> None:
    with pytest.raises(RecipeError, match="served from several files"):
        give_class_activations("histotnet_1", ROOT / "releases", ROOT / "model_repository")
    with pytest.raises(RecipeError, match="No release judges cells"):
        give_class_activations("nothing", ROOT / "releases", ROOT / "model_repository")
