"""Settings of the retrieval service, from ``DL4ALL_RETRIEVAL_<NAME>``."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class RetrievalSettings(BaseSettings):
    """What the retrieval service can be told."""

    model_config = SettingsConfigDict(env_prefix="DL4ALL_RETRIEVAL_", extra="ignore")

    default_neighbours: int = Field(default=3, ge=1, le=20)
    """Neighbours per cell that are shown when the caller does not say; the vote always uses the release's number."""
