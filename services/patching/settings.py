"""Settings of the patching service, from ``DL4ALL_PATCHING_<NAME>``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.common.engines.opening import EngineSettings
from services.common.parts import PARTS


class PatchingSettings(EngineSettings):
    """Settings of the patching service; its engine runs the locator."""

    model_config = SettingsConfigDict(env_prefix="DL4ALL_PATCHING_", extra="ignore", use_attribute_docstrings=True)

    port: int = Field(default=PARTS["patching"].port, ge=0, le=65535)
    """Port to listen on; 0 for any free one."""

    metrics_port: int = Field(default=PARTS["patching"].metrics_port, ge=0, le=65535)
    """Port of the Prometheus metrics; 0 for any free one."""

    max_image_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    """Largest encoded image that is accepted; the gateway has the same setting, raise both."""

    image_memory_bytes: int = Field(default=1536 * 1024 * 1024, ge=64 * 1024 * 1024)
    """Memory for all images at once, slides apart; calls beyond it wait in order. 100 megapixels take 716 MiB, as a progressive JPEG 1,004 MiB;
    a field of 1280 x 960 px takes 172 MiB. An image that takes more than this alone is refused."""

    slides_root: Path | None = None
    """Folder below which callers may name slides by path; unset: none. Mount it read-only."""

    slide_uploads: Path = Path(tempfile.gettempdir()) / f"dl4all-slides-{os.getuid()}"
    """Folder of uploaded slides while they are read, each user's own by default; it is tried at the start; a file is removed when its call ends, and the files of a killed process at the next start."""

    max_slide_bytes: int = Field(default=4 * 1024 * 1024 * 1024, ge=1024)
    """Largest slide that may be uploaded."""

    slide_chunk_seconds: float = Field(default=60.0, gt=0.0, le=3600.0)
    """Seconds that an upload may pause; then it is refused and its slot is free."""

    slide_bytes_per_second: int = Field(default=64 * 1024, ge=0)
    """Least rate of an upload, averaged: a slower one is refused, and its slot is free; 0 for none."""

    slide_grace_seconds: float = Field(default=15.0, gt=0.0, le=3600.0)
    """Seconds that an upload may be slow at its beginning. An upload that was faster than the least rate may pause longer later."""

    slides_at_once: int = Field(default=2, ge=1, le=64)
    """Slides that are read at once, about 350 MB of memory each; more are refused with RESOURCE_EXHAUSTED."""
