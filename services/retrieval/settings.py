"""Settings of the retrieval service, from ``DL4ALL_RETRIEVAL_<NAME>``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.common.parts import PARTS
from services.common.settings import ServiceSettings


class RetrievalSettings(ServiceSettings):
    """Settings of the retrieval service."""

    model_config = SettingsConfigDict(env_prefix="DL4ALL_RETRIEVAL_", extra="ignore", use_attribute_docstrings=True)

    port: int = Field(default=PARTS["retrieval"].port, ge=0, le=65535)
    """Port to listen on; 0 for any free one."""

    metrics_port: int = Field(default=PARTS["retrieval"].metrics_port, ge=0, le=65535)
    """Port of the Prometheus metrics; 0 for any free one."""

    device: Literal["cpu", "gpu"] = "cpu"
    """Where the nearest cells are searched; ``gpu`` needs the extra ``gpu``."""

    default_neighbours: int = Field(default=3, ge=1, le=20)
    """Neighbours per cell that are shown when the caller does not say; the vote always uses the release's number."""

    additions: Path | None = None
    """SQLite file of confirmed cells that wait for the next version of a library, on a disk that lasts; unset: none are taken. One process
    at a time should write to it over a network disk."""

    max_additions: int = Field(default=100_000, ge=1)
    """Cells that this file may hold; more are refused with RESOURCE_EXHAUSTED."""

    min_free_bytes: int = Field(default=256 * 1024 * 1024, ge=0)
    """Bytes that confirmed cells leave free on its disk."""
