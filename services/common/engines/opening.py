"""Choose the engine that runs the models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.common.engines.base import InferenceEngine
from services.common.parts import default_address
from services.common.releases import Role
from services.common.settings import CommonSettings, ServiceSettings, TlsSettings
from services.common.workers import Workers


class EngineSettings(ServiceSettings):
    """How a service runs its models."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True)

    engine: Literal["onnxruntime", "triton"] = "onnxruntime"
    """Engine that runs the models: ONNX Runtime in this process, or a Triton Inference Server."""

    device: Role = Role.CPU
    """Hardware that runs the models; for a GPU, ONNX Runtime needs the extra ``gpu``."""

    triton_address: str = default_address("triton")
    """Triton's gRPC endpoint; round robin over all addresses of the name."""

    inference_threads: int = Field(default=1, ge=1, le=64)
    """Threads of one inference of ONNX Runtime; 1 serves most images per second, more answer a lone image sooner."""


def open_engine(settings: EngineSettings, common: CommonSettings, tls: TlsSettings, workers: Workers) -> InferenceEngine:
    """Open the engine that the settings name; only its own libraries are imported.

    Raises:
        ConfigurationError: it cannot be used on this machine.
    """
    if settings.engine == "triton":
        from services.common.engines.triton import TritonAddress, TritonEngine

        where = TritonAddress(settings.triton_address, settings.device, common.health_timeout_seconds)
        return TritonEngine(where, tls, common)
    from services.common.engines.onnx_runtime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(common.model_repository, workers, settings.inference_threads, settings.device)
