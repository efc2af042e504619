"""Models behind a Triton Inference Server, over gRPC: one batched call per inference; Triton batches across calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

import grpc
import numpy as np
import tritonclient.grpc.aio as tritonclient
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

from services.common import metrics
from services.common.channel import RETRIED, channel_options, check_address, proxy_options, say_proxy
from services.common.errors import DeadlineError, DependencyUnavailableError, DomainError, InternalError, InvalidRequestError, OverloadedError
from services.common.model_repository import SHA256, ModelConfig, fits, read_model_config
from services.common.releases import Model, Role
from services.common.settings import CommonSettings, TlsSettings
from services.common.status import DEPENDENCY_RETRY_SECONDS
from services.common.tls import Renewed
from services.common.tracing import client_span, headers

ENGINE: Final = "triton"
_RETRIED: Final = (*RETRIED, "NOT_FOUND")
"""A Triton that is ending or still loading answers NOT_FOUND for its models; another replica may have them."""

_REPLACED_SECONDS: Final = 60.0
"""How long a client whose certificates were replaced stays open for the inferences that it has under way."""


@dataclass(frozen=True)
class TritonAddress:
    """Where Triton is.

    Attributes:
        address: ``dns:///name:port`` or ``host:port`` of its gRPC endpoint.
        role: hardware that its models run on; it selects the file of a release that Triton serves.
        readiness_seconds: how long it may take to answer whether a model is ready.
    """

    address: str
    role: Role
    readiness_seconds: float


class TritonEngine:
    """Runs models at a Triton.

    Args:
        where: address and role.
        tls: how to trust and be trusted.
        common: limits, keepalive, and the folder of models, the same that Triton serves; read for names and shapes.
    """

    def __init__(self, where: TritonAddress, tls: TlsSettings, common: CommonSettings) -> None:
        self._where = where
        self._repository = common.model_repository
        self._configs: dict[str, ModelConfig] = {}
        self._fits: dict[tuple[str, int], bool] = {}
        self._ending: set[asyncio.Task[None]] = set()
        check_address(where.address)
        options = [*channel_options(common, tls, _RETRIED), *proxy_options(where.address)]

        def make(credentials: grpc.ChannelCredentials | None) -> tritonclient.InferenceServerClient:
            return tritonclient.InferenceServerClient(where.address, creds=credentials, channel_args=options)

        self._client = Renewed(tls, make, self._end)
        say_proxy(where.address)

    @property
    def name(self) -> str:
        """``triton``."""
        return ENGINE

    @property
    def role(self) -> Role:
        """Hardware that its models run on."""
        return self._where.role

    def served_sha256(self, model: Model) -> str:
        """SHA-256 of the file that the release names for this role; a Triton whose configuration states another is not ready."""
        return model.files[self.role].sha256

    async def is_ready(self, model: Model) -> bool:
        """Whether Triton has this model in this version, with the file that the release names, on the device that is expected."""
        version, limit = str(model.version), self._where.readiness_seconds
        try:
            if not await self._client.now().is_model_ready(model.model, version, client_timeout=limit):
                return False
            served = (await self._client.now().get_model_config(model.model, version, client_timeout=limit)).config
        except InferenceServerException:
            return False
        kinds = {group.kind for group in served.instance_group}
        on_gpu = model_config_pb2.ModelInstanceGroup.KIND_GPU in kinds
        expected = model.files[self.role]
        key = (model.model, model.version)
        same_file = served.default_model_filename == expected.file and served.parameters[SHA256].string_value == expected.sha256
        self._fits[key] = same_file and on_gpu == (self.role is Role.GPU)
        return self._fits[key]

    async def infer(
        self, model: Model, images: NDArray[np.uint8], outputs: Sequence[str], timeout: float | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Run a model on a batch; see ``InferenceEngine``. After a cancellation Triton does not start waiting requests."""
        config = self._config(model)
        await self._check_fit(model)
        if not fits(images.shape[1:], config.input_shape):
            raise InvalidRequestError(
                "WRONG_INPUT_SIZE", f"The model {model.model} takes {config.input_shape}, got {images.shape[1:]}.", field="cells"
            )
        started = time.perf_counter()
        end = None if timeout is None else started + timeout
        starts = range(0, len(images), config.max_batch_size)
        parts = [await self._infer_batch(model, config, images[i : i + config.max_batch_size], outputs, end) for i in starts]
        metrics.INFERENCE_SECONDS.labels(ENGINE, model.model).observe(time.perf_counter() - started)
        metrics.BATCH_SIZE.labels(ENGINE, model.model).observe(len(images))
        return {name: np.concatenate([part[name] for part in parts]) for name in outputs}

    async def _check_fit(self, model: Model) -> None:
        """Refuse a Triton that serves another file than the release names: its answers would be those of another model."""
        key = (model.model, model.version)
        if not self._fits.get(key):
            await self.is_ready(model)
        if not self._fits.get(key):
            message = f"Triton does not serve the file of the model {model.model} that the release names, or does not answer; try again later."
            raise DependencyUnavailableError("MODEL_UNAVAILABLE", message, metadata={"model": model.model})

    async def close(self) -> None:
        """Close the channel."""
        for task in self._ending:
            task.cancel()
        await self._client.held.close()

    def _end(self, replaced: tritonclient.InferenceServerClient) -> None:
        """Close a replaced client when its inferences have ended."""

        async def close() -> None:
            await asyncio.sleep(_REPLACED_SECONDS)
            await replaced.close()

        task = asyncio.get_running_loop().create_task(close())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _config(self, model: Model) -> ModelConfig:
        if model.model not in self._configs:
            self._configs[model.model] = read_model_config(self._repository / model.model)
        return self._configs[model.model]

    async def _infer_batch(
        self, model: Model, config: ModelConfig, images: NDArray[np.uint8], outputs: Sequence[str], end: float | None
    ) -> dict[str, NDArray[np.float32]]:
        given = tritonclient.InferInput(config.input_name, list(images.shape), "UINT8")
        given.set_data_from_numpy(np.ascontiguousarray(images))
        wanted = [tritonclient.InferRequestedOutput(name) for name in outputs]
        left = None if end is None else max(0.001, end - time.perf_counter())
        try:
            with client_span("triton.infer"):
                answer = await self._client.now().infer(
                    model.model,
                    [given],
                    model_version=str(model.version),
                    outputs=wanted,
                    timeout=None if left is None else int(1e6 * left),
                    client_timeout=left,
                    headers=headers(),
                )
        except InferenceServerException as error:
            _raise(error, model)
        except asyncio.CancelledError:
            metrics.DEPENDENCY_ERRORS.labels(ENGINE, "CANCELLED").inc()
            raise
        return {name: _checked(name, answer.as_numpy(name), config, len(images), model) for name in outputs}


def _raise(error: InferenceServerException, model: Model) -> NoReturn:
    code = str(error.status() or "").removeprefix("StatusCode.")
    metrics.DEPENDENCY_ERRORS.labels(ENGINE, code).inc()
    raise _domain_error(code, str(error.message()), model) from error


def _domain_error(code: str, message: str, model: Model) -> DomainError:
    metadata = {"model": model.model}
    if code == "DEADLINE_EXCEEDED" or "timeout expired" in message.lower():
        return DeadlineError("DEADLINE_EXCEEDED", "The caller's deadline has passed.")
    if code in ("UNAVAILABLE", "NOT_FOUND", "CANCELLED"):
        return DependencyUnavailableError("MODEL_UNAVAILABLE", f"The model {model.model} cannot be run now; try again later.", metadata=metadata)
    if code == "RESOURCE_EXHAUSTED":
        text = "Triton has as much work as it accepts; try again later."
        return OverloadedError("DEPENDENCY_OVERLOADED", text, metadata=metadata, retry_after=DEPENDENCY_RETRY_SECONDS)
    return InternalError("INTERNAL", f"Triton: {code}: {message}", metadata=metadata)


def _checked(name: str, array: NDArray[np.float32] | None, config: ModelConfig, count: int, model: Model) -> NDArray[np.float32]:
    """Refuse an output that does not fit the model."""
    expected = (count, *config.output_shapes[name])
    if array is None or not fits(array.shape, expected) or array.dtype != np.float32 or not np.isfinite(array).all():
        shape = None if array is None else (array.shape, str(array.dtype))
        raise InternalError("INTERNAL", f"Triton answered {name} of {model.model} as {shape}, expected finite float32 {expected}.")
    return array
