"""ONNX Runtime in process runs the very bytes that the release names."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.common import metrics
from services.common.engines.onnx_runtime import OnnxRuntimeEngine
from services.common.errors import DependencyUnavailableError, DomainError
from services.common.releases import Model, ReleaseStore, Role
from services.common.workers import Workers
from tests.paths import ROOT

STORE = ReleaseStore(ROOT / "releases", ROOT / "model_repository")


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


async def test_cells_of_several_images_are_one_inference_with_the_same_answers(workers: Workers) -> None:
    network = STORE.held("histotnet-1").network
    engine = OnnxRuntimeEngine(ROOT / "model_repository", workers)
    assert await engine.is_ready(network)
    images = np.random.default_rng(0).integers(0, 256, (8, 128, 128, 3), np.uint8)
    alone = [await engine.infer(network, images[i : i + 1], ["logits", "embedding"]) for i in range(8)]
    sizes = metrics.BATCH_SIZE.labels("onnxruntime", network.model)
    go = threading.Event()
    workers.submit("test", go.wait, 20)
    before = sizes._sum.get()
    runs = _count(sizes)
    joined = [asyncio.create_task(engine.infer(network, images[i : i + 1], ["logits", "embedding"])) for i in range(8)]
    await asyncio.sleep(0.05)
    go.set()
    for one, both in zip(alone, await asyncio.gather(*joined), strict=True):
        for name in ("logits", "embedding"):
            np.testing.assert_allclose(both[name], one[name], atol=1e-5)
    assert (sizes._sum.get() - before, _count(sizes) - runs) == (8.0, 1)


async def test_calls_for_other_outputs_or_of_a_wrong_shape_are_not_joined(workers: Workers) -> None:
    network = STORE.held("histotnet-1").network
    engine = OnnxRuntimeEngine(ROOT / "model_repository", workers)
    assert await engine.is_ready(network)
    good = np.full((1, 128, 128, 3), 200, np.uint8)
    go = threading.Event()
    workers.submit("test", go.wait, 20)
    given: list[tuple[Any, str]] = [
        (good, "logits"),
        (good, "embedding"),
        (good[:, :64], "logits"),
        (good.astype(np.float32), "logits"),
        (good, "logits"),
    ]
    calls = [asyncio.create_task(engine.infer(network, images, [output])) for images, output in given]
    await asyncio.sleep(0.05)
    runs = _count(metrics.BATCH_SIZE.labels("onnxruntime", network.model))
    go.set()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [answer.reason if isinstance(answer, DomainError) else list(answer) for answer in answers] == [  # type: ignore[arg-type]
        ["logits"],
        ["embedding"],
        "WRONG_INPUT_SIZE",
        "WRONG_INPUT_SIZE",
        ["logits"],
    ]
    assert _count(metrics.BATCH_SIZE.labels("onnxruntime", network.model)) - runs == 2


def _count(histogram: Any) -> int:
    """Observations of a histogram."""
    return int(sum(bucket.get() for bucket in histogram._buckets))
