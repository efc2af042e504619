"""Settings of the gateway, from ``DL4ALL_GATEWAY_<NAME>``."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.common.parts import PARTS, default_address
from services.common.settings import ServiceSettings


class GatewaySettings(ServiceSettings):
    """Settings of the gateway."""

    model_config = SettingsConfigDict(env_prefix="DL4ALL_GATEWAY_", extra="ignore", use_attribute_docstrings=True)

    port: int = Field(default=PARTS["gateway"].port, ge=0, le=65535)
    """Port to listen on; 0 for any free one."""

    metrics_port: int = Field(default=PARTS["gateway"].metrics_port, ge=0, le=65535)
    """Port of the Prometheus metrics; 0 for any free one."""

    patching_address: str = default_address("patching")
    """Address of patching; round robin over all addresses of the name."""

    preprocessing_address: str = default_address("preprocessing")
    """Address of preprocessing."""

    classification_address: str = default_address("classification")
    """Address of classification."""

    retrieval_address: str = default_address("retrieval")
    """Address of retrieval."""

    max_image_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    """Largest encoded image that is accepted; larger ones are for DiagnoseSlide."""

    max_answer_bytes: int = Field(default=23 * 1024 * 1024, ge=1024)
    """Largest diagnosis that is answered; below the largest message on the wire."""

    default_deadline_seconds: float = Field(default=60.0, gt=0.0)
    """Seconds until the deadline of a call whose caller set none."""

    images_in_flight: int = Field(default=16, ge=1, le=256)
    """Images that are worked on at once, over all calls; others wait. With ``batches_in_flight`` it bounds the calls of the inner services."""

    batches_in_flight: int = Field(default=2, ge=1, le=16)
    """Batches of one image that are judged at once."""

    stream_window: int = Field(default=4, ge=1, le=64)
    """Images of one stream that are diagnosed at once; further images wait unread."""

    stream_bytes: int = Field(default=256 * 1024 * 1024, ge=32 * 1024 * 1024)
    """Bytes of the images that all streams have under way, and of their answers until they are read; further images wait unread. A process
    takes up to three times as much memory for them."""

    unread_seconds: float = Field(default=2.0, gt=0.0)
    """Seconds that an answer may stay unread while the images of others wait for memory; then the connection of its caller is closed."""

    longest_deadline_seconds: float = Field(default=600.0, gt=0.0)
    """Longest time for an image, whatever deadline its caller sets."""

    slides_in_flight: int = Field(default=2, ge=1, le=64)
    """Slides that are judged at once; more are refused with RESOURCE_EXHAUSTED."""

    slide_deadline_seconds: float = Field(default=3600.0, gt=0.0)
    """Longest time for a slide, and the deadline of one whose caller set none."""
