"""Settings of the classification service, from ``DL4ALL_CLASSIFICATION_<NAME>``."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.common.engines.opening import EngineSettings
from services.common.parts import PARTS


class ClassificationSettings(EngineSettings):
    """Settings of the classification service."""

    model_config = SettingsConfigDict(env_prefix="DL4ALL_CLASSIFICATION_", extra="ignore", use_attribute_docstrings=True)

    port: int = Field(default=PARTS["classification"].port, ge=0, le=65535)
    """Port to listen on; 0 for any free one."""

    metrics_port: int = Field(default=PARTS["classification"].metrics_port, ge=0, le=65535)
    """Port of the Prometheus metrics; 0 for any free one."""
