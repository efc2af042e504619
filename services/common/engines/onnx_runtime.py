"""ONNX Runtime in process, reading the same ``model_repository/`` that Triton serves."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from services.common import metrics
from services.common.engines.batching import STAGE, JoinedInference, Outputs
from services.common.errors import ConfigurationError, DependencyUnavailableError, InvalidRequestError
from services.common.model_repository import ANY_SIDE, ModelConfig, fits, read_model_config
from services.common.releases import Model, Role
from services.common.workers import Workers

ENGINE: Final = "onnxruntime"
CPU: Final = ("CPUExecutionProvider",)
MOST_JOINED: Final = 8
"""Cells that are joined in one inference on the CPU. A cell takes least CPU time in a batch of 4 to 8 (plain_resnet_128: 5.5 ms alone, 5.0 of 4, 5.2 of
8, 5.7 of 32), and a large inference in one thread keeps others waiting."""
_DISTRIBUTIONS: Final = ("onnxruntime", "onnxruntime-gpu")


class OnnxRuntimeEngine:
    """Loads a model at its first use and keeps it.

    Args:
        model_repository: folder of models.
        workers: where inference runs; sessions are safe to share between threads.
        threads: threads of one inference.
        role: whether to run on the CPU or on a GPU.

    Raises:
        ConfigurationError: the GPU is requested and this ONNX Runtime has none, or two ONNX Runtimes are installed.
    """

    def __init__(self, model_repository: Path, workers: Workers, threads: int = 1, role: Role = Role.CPU) -> None:
        _refuse_two_runtimes()
        if role is Role.GPU and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise ConfigurationError("GPU_UNAVAILABLE", "This ONNX Runtime cannot use a GPU; install the extra gpu instead of cpu.")
        self._repository = model_repository
        self._workers = workers
        self._threads = threads
        self._role = role
        self._joined: dict[tuple[str, int, str, tuple[str, ...]], JoinedInference] = {}
        self._sessions: dict[tuple[str, int, str], asyncio.Task[tuple[onnxruntime.InferenceSession, ModelConfig]]] = {}

    @property
    def name(self) -> str:
        """``onnxruntime``."""
        return ENGINE

    @property
    def role(self) -> Role:
        """Hardware that it runs on."""
        return self._role

    def served_sha256(self, model: Model) -> str:
        """SHA-256 of the served file, as the release states it; only a file with this checksum is loaded."""
        return model.files[self._role].sha256

    async def is_ready(self, model: Model) -> bool:
        """Whether the model is loaded or can be loaded."""
        try:
            await self._session(model)
        except DependencyUnavailableError:
            return False
        return True

    async def infer(
        self, model: Model, images: NDArray[np.uint8], outputs: Sequence[str], timeout: float | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Run a model on a batch; see ``InferenceEngine``. A running inference finishes, but a caller does not wait beyond its deadline.

        Calls for the same outputs that wait for a thread are run in one inference. Networks that take images of any side, such as locators,
        are not joined: one of their images is much work, and threads share it better.
        """
        session, config = await self._session(model)
        if images.dtype != np.uint8 or not fits(images.shape[1:], config.input_shape):
            raise InvalidRequestError(
                "WRONG_INPUT_SIZE", f"The model {model.model} takes {config.input_shape}, got {images.shape[1:]}.", field="cells"
            )
        started = time.perf_counter()
        async with asyncio.timeout(timeout):
            if ANY_SIDE in config.input_shape:
                results = await self._workers.run(STAGE, _run, session, config, outputs, images)
            else:
                results = await self._joined_inference(model, session, config, outputs).infer(images)
        metrics.INFERENCE_SECONDS.labels(ENGINE, model.model).observe(time.perf_counter() - started)
        return results

    def _joined_inference(self, model: Model, session: onnxruntime.InferenceSession, config: ModelConfig, outputs: Sequence[str]) -> JoinedInference:
        key = (*self._key(model), tuple(outputs))
        if key not in self._joined:
            most = config.max_batch_size if self._role is Role.GPU else min(MOST_JOINED, config.max_batch_size)
            self._joined[key] = JoinedInference(self._workers, partial(_run, session, config, tuple(outputs)), most)
        return self._joined[key]

    async def close(self) -> None:
        """Do nothing: there are no connections."""

    async def _session(self, model: Model) -> tuple[onnxruntime.InferenceSession, ModelConfig]:
        """The model's session. A load goes on even if a caller that waits for it is cancelled."""
        key = self._key(model)
        loading = self._sessions.get(key)
        if loading is None:
            loading = self._sessions[key] = asyncio.create_task(self._workers.run("load", self._load, model))
        try:
            return await asyncio.shield(loading)
        except DependencyUnavailableError:
            self._sessions.pop(key, None)
            raise

    def _key(self, model: Model) -> tuple[str, int, str]:
        return model.model, model.version, model.files[self._role].sha256

    def _load(self, model: Model) -> tuple[onnxruntime.InferenceSession, ModelConfig]:
        folder = self._repository / model.model
        try:
            config = read_model_config(folder)
            content = (folder / str(model.version) / model.files[self._role].file).read_bytes()
            if hashlib.sha256(content).hexdigest() != model.files[self._role].sha256:
                raise RuntimeError("the file was replaced since the release was checked")
            providers = [("CUDAExecutionProvider", config.cuda_options()), *CPU] if self._role is Role.GPU else CPU
            session = open_session(content, self._threads, providers)
            if self._role is Role.GPU and "CUDAExecutionProvider" not in session.get_providers():
                raise RuntimeError("ONNX Runtime fell back to the CPU")
            return session, config
        except Exception as error:
            message = f"The model {model.model} version {model.version} could not be loaded."
            raise DependencyUnavailableError("MODEL_UNAVAILABLE", message, metadata={"model": model.model}) from error


def open_session(model: Path | bytes, threads: int, providers: Sequence[object] = CPU) -> onnxruntime.InferenceSession:
    """Open an ONNX file, or its bytes, with a fixed number of threads; on the CPU by default."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model if isinstance(model, bytes) else str(model), options, providers=list(providers))


def _refuse_two_runtimes() -> None:
    """Refuse an environment with both distributions: they overwrite each other's files, and either may be imported."""
    found = [name for name in _DISTRIBUTIONS if _is_installed(name)]
    if len(found) > 1:
        message = "Both onnxruntime and onnxruntime-gpu are installed; the extras cpu and gpu exclude each other. Make a fresh environment with one."
        raise ConfigurationError("TWO_ONNX_RUNTIMES", message)


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _run(session: onnxruntime.InferenceSession, config: ModelConfig, outputs: Sequence[str], images: NDArray[np.uint8]) -> Outputs:
    results: list[list[NDArray[np.float32]]] = []
    for start in range(0, len(images), config.max_batch_size):
        batch = np.ascontiguousarray(images[start : start + config.max_batch_size])
        results.append(session.run(list(outputs), {config.input_name: batch}))
        metrics.BATCH_SIZE.labels(ENGINE, config.name).observe(len(batch))
    return {name: np.concatenate(parts) for name, parts in zip(outputs, zip(*results, strict=True), strict=True)}
