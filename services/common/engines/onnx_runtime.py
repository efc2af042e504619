"""ONNX Runtime in process, reading the same ``model_repository/`` that Triton serves."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from services.common import metrics
from services.common.errors import ConfigurationError, DependencyUnavailableError, InvalidRequestError
from services.common.model_repository import ModelConfig, fits, read_model_config
from services.common.releases import Model, Role
from services.common.workers import Workers

ENGINE: Final = "onnxruntime"
CPU: Final = ("CPUExecutionProvider",)
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
        """Run a model on a batch; see ``InferenceEngine``. A running inference finishes, but a caller does not wait beyond its deadline."""
        session, config = await self._session(model)
        if not fits(images.shape[1:], config.input_shape):
            raise InvalidRequestError(
                "WRONG_INPUT_SIZE", f"The model {model.model} takes {config.input_shape}, got {images.shape[1:]}.", field="cells"
            )
        started = time.perf_counter()
        async with asyncio.timeout(timeout):
            results = await self._workers.run("infer", _run, session, config, images, outputs)
        metrics.INFERENCE_SECONDS.labels(ENGINE, model.model).observe(time.perf_counter() - started)
        metrics.BATCH_SIZE.labels(ENGINE, model.model).observe(len(images))
        return results

    async def close(self) -> None:
        """Do nothing: there are no connections."""

    async def _session(self, model: Model) -> tuple[onnxruntime.InferenceSession, ModelConfig]:
        """The model's session. A load goes on even if a caller that waits for it is cancelled."""
        key = (model.model, model.version, model.files[self._role].sha256)
        loading = self._sessions.get(key)
        if loading is None:
            loading = self._sessions[key] = asyncio.create_task(self._workers.run("load", self._load, model))
        try:
            return await asyncio.shield(loading)
        except DependencyUnavailableError:
            self._sessions.pop(key, None)
            raise

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


def _run(
    session: onnxruntime.InferenceSession, config: ModelConfig, images: NDArray[np.uint8], outputs: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    results: list[list[NDArray[np.float32]]] = []
    for start in range(0, len(images), config.max_batch_size):
        batch = np.ascontiguousarray(images[start : start + config.max_batch_size])
        results.append(session.run(list(outputs), {config.input_name: batch}))
    return {name: np.concatenate(parts) for name, parts in zip(outputs, zip(*results, strict=True), strict=True)}
