"""Settings of the classification service, from ``DL4ALL_CLASSIFICATION_<NAME>``."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ClassificationSettings(BaseSettings):
    """What the classification service can be told."""

    model_config = SettingsConfigDict(env_prefix="DL4ALL_CLASSIFICATION_", extra="ignore")

    inference_threads: int = Field(default=1, ge=1, le=64)
    """Threads of one inference of ONNX Runtime; 1 serves most images per second, more answer a lone image sooner."""
