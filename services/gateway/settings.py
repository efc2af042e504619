"""Settings of the gateway, from ``DL4ALL_GATEWAY_<NAME>``."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class GatewaySettings(BaseSettings):
    """What the gateway can be told."""

    model_config = SettingsConfigDict(env_prefix="DL4ALL_GATEWAY_", extra="ignore")

    max_image_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    """Largest encoded image that is accepted; larger ones are for DiagnoseSlide."""

    max_answer_bytes: int = Field(default=23 * 1024 * 1024, ge=1024)
    """Largest diagnosis that is answered; below the largest message on the wire."""

    default_deadline_seconds: float = Field(default=60.0, gt=0.0)
    """Time that a call gets whose caller set no deadline."""

    batches_in_flight: int = Field(default=2, ge=1, le=16)
    """Batches of one image that are judged at once."""

    stream_window: int = Field(default=4, ge=1, le=64)
    """Images of one stream that are diagnosed at once; reading waits beyond that."""
