"""ONNX Runtime in process runs the very bytes that the release names."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.common.engines.onnx_runtime import OnnxRuntimeEngine
from services.common.errors import DependencyUnavailableError
from services.common.releases import Model, ReleaseStore, Role
from services.common.workers import Workers


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers(1)
    yield made
    made.close()


def _file(copy: Any, model: Model) -> Path:
    return Path(copy.model_repository / model.model / str(model.version) / model.files[Role.CPU].file)


def test_a_file_that_was_replaced_since_the_release_was_checked_is_not_run(release_copy: Any, workers: Workers) -> None:
    store = ReleaseStore(release_copy.releases, release_copy.model_repository)
    first, other = (store.held(name).network for name in ("histotnet-1", "dl4all-cnn-1"))
    kept = release_copy.model_repository.parent / "kept.onnx"
    shutil.copyfile(_file(release_copy, first), kept)
    shutil.copyfile(_file(release_copy, other), _file(release_copy, first))
    engine = OnnxRuntimeEngine(release_copy.model_repository, workers)
    images = np.full((1, 128, 128, 3), 200, np.uint8)

    async def infer() -> np.ndarray:
        return (await engine.infer(first, images, ["logits"]))["logits"]

    with pytest.raises(DependencyUnavailableError) as caught:
        asyncio.run(infer())
    assert caught.value.reason == "MODEL_UNAVAILABLE"
    shutil.copyfile(kept, _file(release_copy, first))
    assert asyncio.run(infer()).shape == (1, 2)


def test_a_model_of_the_same_name_and_other_bytes_is_another_session(release_copy: Any, workers: Workers) -> None:
    store = ReleaseStore(release_copy.releases, release_copy.model_repository)
    first, other = (store.held(name).network for name in ("histotnet-1", "dl4all-cnn-1"))
    engine = OnnxRuntimeEngine(release_copy.model_repository, workers)
    images = np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3), np.uint8)

    async def infer(model: Model) -> np.ndarray:
        return (await engine.infer(model, images, ["logits"]))["logits"]

    async def both() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        before = await infer(first)
        replaced = first.model_copy(update={"files": {**first.files, Role.CPU: other.files[Role.CPU]}})
        _file(release_copy, replaced).unlink()
        shutil.copyfile(_file(release_copy, other), _file(release_copy, replaced))
        return before, await infer(replaced), await infer(other)

    before, after, as_other = asyncio.run(both())
    assert np.array_equal(after, as_other)
    assert not np.array_equal(before, after)
