"""Tests of reading a model's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.common.errors import BrokenReleaseError
from services.common.model_repository import CONFIG_FILE, ModelConfig, read_model_config
from services.common.releases import ReleaseStore

GOOD = """name: "cell_net"
max_batch_size: 16
input [ { name: "images", data_type: TYPE_UINT8, dims: [64, 64, 3] } ]
output [ { name: "logits", data_type: TYPE_FP32, dims: [2] }, { name: "embedding", data_type: TYPE_FP32, dims: [8] } ]
"""


def _folder(tmp_path: Path, text: str) -> Path:
    folder = tmp_path / "cell_net"
    folder.mkdir()
    (folder / CONFIG_FILE).write_text(text)
    return folder


def test_a_configuration_is_read(tmp_path: Path) -> None:
    shapes = {"logits": (2,), "embedding": (8,)}
    assert read_model_config(_folder(tmp_path, GOOD)) == ModelConfig("cell_net", 16, "images", (64, 64, 3), shapes, {})


def test_cuda_options_are_those_that_triton_reads(tmp_path: Path) -> None:
    given = {"gpu_mem_limit": "1000", "cudnn_conv_algo_search": "1", "arena_extend_strategy": "1", "sha256": "ab"}
    parameters = "\n".join(f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in given.items())
    config = read_model_config(_folder(tmp_path, GOOD + parameters))
    expected = {"gpu_mem_limit": "1000", "cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}
    assert config.cuda_options() == expected


def test_models_of_the_releases_fit_their_releases(release_copy: Any) -> None:
    for release in ReleaseStore(release_copy.releases, release_copy.model_repository).releases:
        for model in (release.network, release.embedder):
            config = read_model_config(release_copy.model_repository / model.model)
            assert config.input_shape == (release.input.side, release.input.side, 3)
            assert {"logits", "embedding", "patch_embeddings"} <= set(config.output_shapes)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"cell_net"', '"other_net"'),
        ("max_batch_size: 16", "max_batch_size: 0"),
        ("max_batch_size: 16", "max_batch_size: many"),
        ("TYPE_UINT8", "TYPE_FP32"),
        ("[64, 64, 3]", "[3, 64, 64]"),
        ("[64, 64, 3]", "[64, 64]"),
        ("input [", "unknown ["),
        ("input [ {", 'input [ { name: "second", data_type: TYPE_UINT8, dims: [1] }, {'),
        ("input [", "output ["),
        (GOOD, "{"),
    ],
)
def test_broken_configurations_are_refused_by_name(tmp_path: Path, old: str, new: str) -> None:
    assert old in GOOD
    folder = _folder(tmp_path, GOOD.replace(old, new))
    with pytest.raises(BrokenReleaseError) as caught:
        read_model_config(folder)
    assert caught.value.reason == "MODEL_CONFIG_BROKEN"
    assert str(folder / CONFIG_FILE) in caught.value.message


def test_a_missing_or_binary_configuration(tmp_path: Path) -> None:
    with pytest.raises(BrokenReleaseError, match=CONFIG_FILE):
        read_model_config(tmp_path / "cell_net")
    folder = _folder(tmp_path, "")
    (folder / CONFIG_FILE).write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(BrokenReleaseError, match=CONFIG_FILE):
        read_model_config(folder)
