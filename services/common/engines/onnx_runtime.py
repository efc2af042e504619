"""ONNX Runtime in process, reading the same ``model_repository/`` that Triton serves."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from services.common.errors import DependencyUnavailableError, InvalidRequestError
from services.common.model_repository import ModelConfig, read_model_config
from services.common.releases import Model

ENGINE: Final = "onnxruntime"


class OnnxRuntimeEngine:
    """Loads a model when it is first asked for and keeps it.

    Args:
        model_repository: folder of models.
        executor: where inference runs; sessions are safe to share between threads.
        threads: threads of one inference.
    """

    def __init__(self, model_repository: Path, executor: Executor, threads: int = 1) -> None:
        self._repository = model_repository
        self._executor = executor
        self._threads = threads
        self._sessions: dict[tuple[str, int], tuple[onnxruntime.InferenceSession, ModelConfig]] = {}
        self._loading = asyncio.Lock()

    @property
    def name(self) -> str:
        """``onnxruntime``."""
        return ENGINE

    def served_sha256(self, model: Model) -> str:
        """SHA-256 of the served file, as the release states and the store has checked it."""
        return model.files[ENGINE].sha256

    async def is_ready(self, model: Model) -> bool:
        """Whether the model is loaded or can be loaded."""
        try:
            await self._session(model)
        except DependencyUnavailableError:
            return False
        return True

    async def infer(self, model: Model, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Run a model on a batch; see ``InferenceEngine``."""
        session, config = await self._session(model)
        if images.shape[1:] != config.input_shape:
            raise InvalidRequestError(
                "WRONG_INPUT_SIZE", f"The model {model.model} takes {config.input_shape}, got {images.shape[1:]}.", field="cells"
            )
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, _run, session, config, images)

    async def _session(self, model: Model) -> tuple[onnxruntime.InferenceSession, ModelConfig]:
        key = (model.model, model.version)
        if key in self._sessions:
            return self._sessions[key]
        async with self._loading:
            if key not in self._sessions:
                loop = asyncio.get_running_loop()
                self._sessions[key] = await loop.run_in_executor(self._executor, self._load, model)
        return self._sessions[key]

    def _load(self, model: Model) -> tuple[onnxruntime.InferenceSession, ModelConfig]:
        folder = self._repository / model.model
        try:
            config = read_model_config(folder)
            path = folder / str(model.version) / model.files[ENGINE].file
            return open_session(path, self._threads), config
        except Exception as error:
            message = f"The model {model.model} version {model.version} could not be loaded."
            raise DependencyUnavailableError("MODEL_UNAVAILABLE", message, metadata={"model": model.model}) from error


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Open an ONNX file on the CPU with a fixed number of threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(session: onnxruntime.InferenceSession, config: ModelConfig, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    results: list[list[NDArray[np.float32]]] = []
    for start in range(0, len(images), config.max_batch_size):
        batch = np.ascontiguousarray(images[start : start + config.max_batch_size])
        results.append(session.run(list(config.outputs), {config.input_name: batch}))
    return {name: np.concatenate(parts) for name, parts in zip(config.outputs, zip(*results, strict=True), strict=True)}
