"""Settings of the preprocessing service, from ``DL4ALL_PREPROCESSING_<NAME>``."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class PreprocessingSettings(BaseSettings):
    """What the preprocessing service can be told."""

    model_config = SettingsConfigDict(env_prefix="DL4ALL_PREPROCESSING_", extra="ignore")

    max_focus_pixels: int = Field(default=25_000_000, ge=1024)
    """Largest image, in pixels, whose focus is scored as a whole; the score needs about 45 bytes a pixel."""

    border_share: float = Field(default=0.15, ge=0.0, le=1.0)
    """Share of the registered square beyond the image from which a cell is marked CELL_AT_BORDER."""
