"""Settings of the patching service, from ``DL4ALL_PATCHING_<NAME>``."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class PatchingSettings(BaseSettings):
    """What the patching service can be told."""

    model_config = SettingsConfigDict(env_prefix="DL4ALL_PATCHING_", extra="ignore")

    max_image_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    """Largest encoded image that is accepted; the gateway has the same setting, raise both."""

    images_in_memory: int = Field(default=4, ge=1, le=256)
    """Decoded images held at once; calls beyond wait. A decoded image takes three bytes a pixel, up to 300 MB."""
