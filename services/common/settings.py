"""Settings that every service has; each service adds its own in its ``settings.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT_ROOT: Final = Path(__file__).resolve().parents[2]
MEBIBYTE: Final = 1024 * 1024


class CommonSettings(BaseSettings):
    """Settings of any server, from environment variables ``DL4ALL_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="DL4ALL_", extra="ignore")

    model_repository: Path = PROJECT_ROOT / "model_repository"
    """Folder of models, as Triton reads it."""

    releases: Path = PROJECT_ROOT / "releases"
    """Folder of releases."""

    host: str = "127.0.0.1"
    """Address to listen on; the loopback unless said otherwise."""

    port: int = Field(default=50051, ge=0, le=65535)
    """Port to listen on; 0 for any free one."""

    reflection: bool = True
    """Whether clients may list the services (gRPC server reflection)."""

    workers: int = Field(default=2, ge=1, le=256)
    """Threads for images, science and inference; as many as cores is best."""

    max_concurrent_calls: int = Field(default=64, ge=1)
    """Calls accepted at once; more are refused with RESOURCE_EXHAUSTED."""

    max_message_bytes: int = Field(default=24 * MEBIBYTE, ge=MEBIBYTE)
    """Largest message on the wire."""

    drain_seconds: float = Field(default=75.0, ge=0.0)
    """How long calls that were accepted may go on after SIGTERM; more than the longest deadline that callers are given."""

    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""
