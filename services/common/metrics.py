"""Metrics of every service, for Prometheus. One registry per process; base units: seconds, bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

from services.common.addresses import host_and_port
from services.common.errors import ConfigurationError
from services.common.metrics_server import MetricsServer

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_FOCUS: Final = (3.0, 4.0, 4.5, 5.0, 5.25, 5.5, 5.75, 6.0, 6.25, 6.5, 6.75, 7.0, 7.5, 8.0, 9.0, 10.0)
_SHARES: Final = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)

REQUESTS: Final = Counter("dl4all_requests", "RPCs that ended, by canonical status.", ("service", "method", "code"))
REQUEST_SECONDS: Final = Histogram("dl4all_request_seconds", "Duration of RPCs.", ("service", "method"), buckets=_SECONDS)
IN_PROGRESS: Final = Gauge("dl4all_requests_in_progress", "RPCs under way.", ("service", "method"))
REFUSED: Final = Counter("dl4all_requests_refused", "RPCs refused because all slots were taken, or no memory was left for their messages.")
HELD: Final = Gauge("dl4all_admission_held", "Slots or bytes that callers hold.", ("budget",))
CERTIFICATES_RENEWED: Final = Counter("dl4all_certificates_renewed", "New TLS files that were taken in while the process ran.")
ENDED_IDLE: Final = Counter("dl4all_requests_ended_idle", "RPCs ended because they only waited for their callers while others waited for room.")

STAGE_SECONDS: Final = Histogram("dl4all_stage_seconds", "Duration of a stage, waiting included.", ("stage",), buckets=_SECONDS)
WORK_SECONDS: Final = Histogram("dl4all_work_seconds", "Duration of a piece of work in a worker thread.", ("stage",), buckets=_SECONDS)
WORK_CPU_SECONDS: Final = Counter("dl4all_work_cpu_seconds", "CPU time of worker threads.", ("stage",))
WORK_WAIT_SECONDS: Final = Histogram("dl4all_work_wait_seconds", "Time a piece of work waited for a worker thread.", ("stage",), buckets=_SECONDS)
WORK_WAITING: Final = Gauge("dl4all_work_waiting", "Pieces of work that wait for a worker thread.", ("stage",))
WORK_RUNNING: Final = Gauge("dl4all_work_running", "Pieces of work that run in a worker thread.", ("stage",))
WORK_DROPPED: Final = Counter("dl4all_work_dropped", "Pieces of work that never ran because their caller was gone.", ("stage",))

INFERENCE_SECONDS: Final = Histogram(
    "dl4all_inference_seconds", "Duration of an inference as the service sees it.", ("engine", "model"), buckets=_SECONDS
)
BATCH_SIZE: Final = Histogram("dl4all_inference_batch_size", "Cells of one inference.", ("engine", "model"), buckets=_SIZES)

CELLS: Final = Counter("dl4all_cells", "Cells in answers.", ("release", "verdict"))
CELLS_PER_IMAGE: Final = Histogram("dl4all_image_cells", "Cells of an image.", buckets=(0, *_SIZES))
ABSTENTIONS: Final = Counter("dl4all_cell_abstentions", "Reasons of indeterminate cells.", ("release", "reason"))
CELL_FOCUS: Final = Histogram("dl4all_cell_focus", "Focus score of a judged cell before it is sharpened.", ("release", "source"), buckets=_FOCUS)
CELL_BLAST_PROBABILITY: Final = Histogram(
    "dl4all_cell_blast_probability", "Probability of a blast by the network alone, of a judged cell.", ("release", "source"), buckets=_SHARES
)
FINDINGS: Final = Counter("dl4all_findings", "Findings per image.", ("release", "finding"))
FINDING_REASONS: Final = Counter("dl4all_finding_reasons", "Reasons of findings per image.", ("release", "reason"))
IMAGES_WAITING: Final = Gauge("dl4all_images_waiting", "Images that were accepted and wait for their turn.", ("priority",))
IMAGES_REFUSED: Final = Counter("dl4all_images_refused", "Images refused because they would wait too long.", ("priority",))
IMAGES_EXPECTED_WAIT: Final = Gauge(
    "dl4all_images_expected_wait_seconds", "How long a further image is expected to wait for its turn.", ("priority",)
)
IMAGES_IN_FLIGHT: Final = Gauge("dl4all_images_in_flight", "Images that the gateway works on: judges, locates, enhances or embeds.")
DEPENDENCY_ERRORS: Final = Counter("dl4all_dependency_errors", "Calls of other parts that failed.", ("dependency", "code"))

READY: Final = Gauge("dl4all_ready", "1 while the service's health says SERVING.", ("service",))
RELEASE_READY: Final = Gauge("dl4all_release_ready", "1 while the release can be used at this service.", ("service", "release"))
DEPENDENCY_READY: Final = Gauge("dl4all_dependency_ready", "1 while a dependency of the service says that it is ready.", ("service", "dependency"))


def serve_metrics(host: str, port: int) -> tuple[int, Callable[[], None]]:
    """Serve ``/metrics`` from a few threads.

    Returns:
        The port, and a function that stops the server.

    Raises:
        ConfigurationError: the port is taken.
    """
    try:
        server = MetricsServer(host, port, REGISTRY)
    except OSError as error:
        raise ConfigurationError(
            "METRICS_PORT_TAKEN",
            f"Metrics cannot be served on {host_and_port(host, port)}: {error.strerror}. Set DL4ALL_METRICS_PORT"
            " (of one service: DL4ALL_<SERVICE>_METRICS_PORT) to a free port or to 0, or DL4ALL_METRICS=false.",
        ) from error
    server.start()
    return int(server.server_port), server.stop
