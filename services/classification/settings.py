"""Settings of the classification service, from ``DL4ALL_CLASSIFICATION_<NAME>``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.common.parts import PARTS, default_address
from services.common.releases import Role
from services.common.settings import ServiceSettings


class ClassificationSettings(ServiceSettings):
    """Settings of the classification service."""

    model_config = SettingsConfigDict(env_prefix="DL4ALL_CLASSIFICATION_", extra="ignore", use_attribute_docstrings=True)

    port: int = Field(default=PARTS["classification"].port, ge=0, le=65535)
    """Port to listen on; 0 for any free one."""

    metrics_port: int = Field(default=PARTS["classification"].metrics_port, ge=0, le=65535)
    """Port of the Prometheus metrics; 0 for any free one."""

    engine: Literal["onnxruntime", "triton"] = "onnxruntime"
    """Engine that runs the models: ONNX Runtime in this process, or a Triton Inference Server."""

    device: Role = Role.CPU
    """Hardware that runs the models; for a GPU, ONNX Runtime needs the extra ``gpu``."""

    triton_address: str = default_address("triton")
    """Triton's gRPC endpoint; round robin over all addresses of the name."""

    inference_threads: int = Field(default=1, ge=1, le=64)
    """Threads of one inference of ONNX Runtime; 1 serves most images per second, more answer a lone image sooner."""
