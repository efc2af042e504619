"""Settings of the gateway, from ``DL4ALL_GATEWAY_<NAME>``."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.common.admission.priority import Priority
from services.common.parts import PARTS, default_address
from services.common.settings import ServiceSettings
from services.gateway.image_admission import ImageLimits


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
    """Most images that are worked on at once, over all calls, however small they are; others wait. With ``batches_in_flight`` it bounds the calls
    of the inner services."""

    batch_images_in_flight: int = Field(default=4, ge=1, le=256)
    """Most images of batches (``PRIORITY_BATCH``) that are worked on at once: enough to keep all cores busy, twice as many as there are of them, and
    few, because an interactive image waits for their work that is in the worker threads already."""

    batch_images_waiting: int = Field(default=16, ge=0, le=256)
    """Most images of batches that wait for their turn; more are refused at once with RESOURCE_EXHAUSTED. Those that wait hold slots of calls
    (``DL4ALL_MAX_CONCURRENT_CALLS``), which interactive calls need too."""

    work_in_flight: int = Field(default=32_000_000, ge=1_000_000)
    """Work that is done at once, over all images, in pixels; others wait. The work of an image is its pixels, ``image_pixels``, and ``cell_pixels``
    for each of its cells and patches. 16 million for each core, about 0.8 CPU-seconds, is enough. One image counts as at most a quarter. A ninth is
    a reserve for callers below their fair share, and a quarter is kept for interactive images."""

    image_pixels: int = Field(default=500_000, ge=1)
    """Work of any image, whatever its size, in pixels: what reading a small image takes beyond its pixels."""

    cell_pixels: int = Field(default=200_000, ge=1)
    """Work of a cell, or of a patch, in pixels. All services in one process took 62 ms of CPU for a field, 47 for each megapixel of it and 9.5 for
    each of its cells; a single cell of 264 x 264 px took 35 (least squares over drawn fields of 0.2 to 12 megapixels with 0 to 48 cells,
    plain-resnet-1, two cores, 2026-11-30)."""

    interactive_wait_seconds: float = Field(default=4.0, gt=0.0)
    """An interactive image that would wait longer than this for its turn is refused at once with RESOURCE_EXHAUSTED."""

    batch_wait_seconds: float = Field(default=4.0, gt=0.0)
    """The same for an image of a batch."""

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

    def image_limits(self) -> ImageLimits:
        """How much is worked on at once."""
        waits = {Priority.INTERACTIVE: self.interactive_wait_seconds, Priority.BATCH: self.batch_wait_seconds}
        batch_images = min(self.batch_images_in_flight, self.images_in_flight)
        return ImageLimits(
            work=self.work_in_flight,
            image_pixels=self.image_pixels,
            cell_pixels=self.cell_pixels,
            images=self.images_in_flight,
            batch_images=batch_images,
            batch_waiting=self.batch_images_waiting,
            longest_wait=waits,
        )
