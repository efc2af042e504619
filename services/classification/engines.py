"""Choose the engine that runs the models."""

from __future__ import annotations

from services.classification.settings import ClassificationSettings
from services.common.engines.base import InferenceEngine
from services.common.settings import CommonSettings, TlsSettings
from services.common.workers import Workers


def open_engine(settings: ClassificationSettings, common: CommonSettings, tls: TlsSettings, workers: Workers) -> InferenceEngine:
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
