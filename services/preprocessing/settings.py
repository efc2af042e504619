"""Settings of the preprocessing service, from ``DL4ALL_PREPROCESSING_<NAME>``."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.common.parts import PARTS
from services.common.settings import ServiceSettings


class PreprocessingSettings(ServiceSettings):
    """Settings of the preprocessing service."""

    model_config = SettingsConfigDict(env_prefix="DL4ALL_PREPROCESSING_", extra="ignore", use_attribute_docstrings=True)

    port: int = Field(default=PARTS["preprocessing"].port, ge=0, le=65535)
    """Port to listen on; 0 for any free one."""

    metrics_port: int = Field(default=PARTS["preprocessing"].metrics_port, ge=0, le=65535)
    """Port of the Prometheus metrics; 0 for any free one."""

    max_focus_pixels: int = Field(default=25_000_000, ge=1024)
    """Largest image, in pixels, whose focus is scored as a whole; the score needs about 45 bytes a pixel."""

    border_share: float = Field(default=0.15, ge=0.0, le=1.0)
    """Share of the registered square beyond the image from which a cell is marked CELL_AT_BORDER."""
