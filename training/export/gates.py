"""What a lighter file must pass before it is served: nearly the same AUC, on a CPU a shorter time, and neighbours that agree."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.common.engines.onnx_runtime import open_session
from training.export.onnx_model import INPUT, OUTPUTS

MAX_AUC_LOSS: Final = 0.003
MIN_SPEED_UP: Final = 1.0
MAX_CHANGED_EMPTINESS: Final = 0.005
_ROUNDS: Final = 15
_BATCH: Final = 8


@dataclass(frozen=True)
class GateReport:
    """What was measured of a lighter file against the float32 one.

    Attributes:
        file: name of the lighter file.
        auc_loss: AUC of float32 minus AUC of this file, on calibration cells, network alone.
        vote_auc_loss: the same of the neighbours' vote, with the library of the served CPU file.
        speed_up: median time of float32 over that of this file; None where speed is no condition.
        changed_emptiness: share of calibration cells in which one of the two files sees no cell and the other does; 0 where neither tells.
    """

    file: str
    auc_loss: float
    vote_auc_loss: float
    speed_up: float | None
    changed_emptiness: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the file may be served."""
        loss = max(self.auc_loss, self.vote_auc_loss)
        return loss <= MAX_AUC_LOSS and self.changed_emptiness <= MAX_CHANGED_EMPTINESS and (self.speed_up is None or self.speed_up > MIN_SPEED_UP)

    def __str__(self) -> str:
        speed = "" if self.speed_up is None else f", {self.speed_up:.2f} times as fast"
        empty = f", {self.changed_emptiness:.1%} of cells told from nothing otherwise" if self.changed_emptiness else ""
        verdict = "served" if self.passed else "not served"
        return f"{self.file}: AUC loss {self.auc_loss:+.4f} (network), {self.vote_auc_loss:+.4f} (vote){speed}{empty}: {verdict}"


def speed_up(reference: Path, other: Path, pixels: NDArray[np.uint8]) -> float:
    """Median time of one inference of the reference over that of the other, alternating, one thread, eight cells."""
    sessions = [open_session(path, threads=1) for path in (reference, other)]
    feed = {INPUT: pixels[:_BATCH]}
    times: list[list[float]] = [[], []]
    for round_ in range(_ROUNDS + 2):
        for i, session in enumerate(sessions):
            began = time.perf_counter()
            session.run(list(OUTPUTS), feed)
            if round_ >= 2:
                times[i].append(time.perf_counter() - began)
    return float(np.median(times[0]) / np.median(times[1]))
