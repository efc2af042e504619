"""Statistics of an image or a slide: models, engine, time by stage."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from services.common import metrics
from services.common.tracing import client_span


@dataclass(frozen=True)
class ServedFile:
    """A model file that was run.

    Attributes:
        name: of the model.
        version: of the model.
        sha256: of the file.
    """

    name: str
    version: int
    sha256: str


@dataclass
class RunStats:
    """Statistics of an image or a slide.

    Attributes:
        engine: engine that ran the models; empty where no cell was judged.
        models: files that were run, each once.
        milliseconds: time by stage, summed over batches.
    """

    engine: str = ""
    models: list[ServedFile] = field(default_factory=list)
    milliseconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def ran(self, models: Sequence[ServedFile], engine: str = "") -> None:
        """Note models that were run, and the engine that ran them."""
        self.engine = self.engine or engine
        self.models += [model for model in models if model not in self.models]

    def note(self, stage: str, started: float) -> None:
        """Count a stage that began at ``started`` (``time.perf_counter``) and ends now."""
        seconds = time.perf_counter() - started
        metrics.STAGE_SECONDS.labels(stage).observe(seconds)
        self.milliseconds[stage] += 1000.0 * seconds

    def add(self, other: RunStats) -> None:
        """Add the statistics of another image."""
        self.ran(other.models, other.engine)
        for stage, milliseconds in other.milliseconds.items():
            self.milliseconds[stage] += milliseconds

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Time a stage, in a span of its own."""
        started = time.perf_counter()
        try:
            with client_span(stage):
                yield
        finally:
            self.note(stage, started)
