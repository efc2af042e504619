"""Gates of a lighter file: nearly the same AUC, of the network and of the neighbours' vote, and the same empty crops.

No decision rests on a clock: whoever builds a release says by ``Gates.cpu_file`` whether CPUs are served the int8 file. ``speed_up``
helps to choose.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.common.engines.onnx_runtime import open_session
from training.export.onnx_model import INPUT, OUTPUTS
from training.recipes.config import Gates

_ROUNDS: Final = 15
_BATCH: Final = 8


@dataclass(frozen=True)
class GateReport:
    """Measurements of a lighter file against the float32 one.

    Attributes:
        file: name of the lighter file.
        auc_loss: AUC of float32 minus AUC of this file, on calibration cells, network alone.
        vote_auc_loss: the same of the neighbours' vote, with the library of the served CPU file.
        changed_emptiness: share of calibration cells in which one of the two files sees no cell and the other does; 0 where neither tells.
        limits: what it must keep.
        wanted: whether it is to be served where it keeps them.
    """

    file: str
    auc_loss: float
    vote_auc_loss: float
    changed_emptiness: float = 0.0
    limits: Gates = field(default_factory=Gates)
    wanted: bool = True

    @property
    def passed(self) -> bool:
        """Whether the file may be served."""
        return max(self.auc_loss, self.vote_auc_loss) <= self.limits.max_auc_loss and self.changed_emptiness <= self.limits.max_changed_emptiness

    @property
    def served(self) -> bool:
        """Whether the file is served."""
        return self.passed and self.wanted

    def __str__(self) -> str:
        empty = f", {self.changed_emptiness:.1%} of cells told from nothing otherwise" if self.changed_emptiness else ""
        verdict = "served" if self.served else "not served" if not self.passed else "not asked for"
        return f"{self.file}: AUC loss {self.auc_loss:+.4f} (network), {self.vote_auc_loss:+.4f} (vote){empty}: {verdict}"


def speed_up(reference: Path, other: Path, pixels: NDArray[np.uint8]) -> float:
    """Median CPU time of one inference of the reference over that of the other, alternating, one thread, eight cells.

    It differs between processors. It is printed while a release is built and decides nothing.
    """
    sessions = [open_session(path, threads=1) for path in (reference, other)]
    feed = {INPUT: pixels[:_BATCH]}
    times: list[list[float]] = [[], []]
    for round_ in range(_ROUNDS + 2):
        for i, session in enumerate(sessions):
            began = time.thread_time()
            session.run(list(OUTPUTS), feed)
            if round_ >= 2:
                times[i].append(time.thread_time() - began)
    return float(np.median(times[0]) / np.median(times[1]))
