"""Settings of the patching service, from ``DL4ALL_PATCHING_<NAME>``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.common.parts import PARTS
from services.common.settings import ServiceSettings


class PatchingSettings(ServiceSettings):
    """Settings of the patching service."""

    model_config = SettingsConfigDict(env_prefix="DL4ALL_PATCHING_", extra="ignore", use_attribute_docstrings=True)

    port: int = Field(default=PARTS["patching"].port, ge=0, le=65535)
    """Port to listen on; 0 for any free one."""

    metrics_port: int = Field(default=PARTS["patching"].metrics_port, ge=0, le=65535)
    """Port of the Prometheus metrics; 0 for any free one."""

    max_image_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    """Largest encoded image that is accepted; the gateway has the same setting, raise both."""

    images_in_memory: int = Field(default=4, ge=1, le=256)
    """Decoded images held at once; calls beyond wait. A decoded image takes three bytes a pixel, up to 300 MB."""

    slides_root: Path | None = None
    """Folder below which callers may name slides by path; unset: none. Mount it read-only."""

    slide_uploads: Path = Path(tempfile.gettempdir()) / "dl4all-slides"
    """Folder of uploaded slides while they are read; a file is removed when its call ends, and the files of a killed process at the next start."""

    max_slide_bytes: int = Field(default=4 * 1024 * 1024 * 1024, ge=1024)
    """Largest slide that may be uploaded."""

    slide_chunk_seconds: float = Field(default=60.0, gt=0.0, le=3600.0)
    """Seconds that an upload may pause; then it is refused and its slot is free."""

    slides_at_once: int = Field(default=2, ge=1, le=64)
    """Slides that are read at once, about 350 MB of memory each; more are refused with RESOURCE_EXHAUSTED."""
