"""Measure what a phase of a load test uses: CPU time by part and of the generator, and memory."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from tests.load.processes import families, forget_peaks, peak_bytes, sample
from tests.load.results import Usage
from tests.load.targets import Target

GENERATOR = "generator"
MIB = 2**20


@dataclass
class Meter:
    """Runs from its making on; ``usage`` reads it.

    Attributes:
        target: whose processes are measured, beside this one.
    """

    target: Target
    _pids: dict[str, list[int]] = field(init=False)
    _before: dict[str, float] = field(init=False)
    _generator: float = field(init=False)
    _started: float = field(init=False)

    def __post_init__(self) -> None:
        self._pids = families(self.target.leaders)
        for pids in self._pids.values():
            forget_peaks(pids)
        self._before = {part: sample(pids).cpu for part, pids in self._pids.items()}
        self._generator, self._started = time.process_time(), time.perf_counter()

    def usage(self, answered: int) -> Usage:
        """What was used so far.

        Args:
            answered: images that were answered meanwhile.
        """
        generator, seconds = time.process_time() - self._generator, time.perf_counter() - self._started
        used = {part: sample(pids).cpu - self._before[part] for part, pids in self._pids.items()}
        total = generator + sum(used.values())
        return Usage(
            seconds=round(seconds, 3),
            cpu_ms_per_image={part: round(1000.0 * cpu / max(answered, 1), 3) for part, cpu in {**used, GENERATOR: generator}.items()},
            generator_share=round(generator / total, 4) if used and total > 0 else None,
            busy=round(total / seconds / len(os.sched_getaffinity(0)), 3),
            peak_mib={part: round(peak_bytes(pids) / MIB, 1) for part, pids in self._pids.items()},
        )
