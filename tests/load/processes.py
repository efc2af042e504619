"""What the kernel says of processes: CPU time, memory, open files and threads, each summed over a process and its descendants (Linux)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_TICK: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_KIB: Final = 1024


@dataclass(frozen=True)
class Sample:
    """One look at a process and its descendants.

    Attributes:
        cpu: CPU time so far, seconds.
        rss: memory held, bytes; pages that processes share count in each.
        descriptors: open file descriptors.
        threads: threads.
    """

    cpu: float
    rss: int
    descriptors: int
    threads: int


def family(pid: int) -> list[int]:
    """A process and its descendants that are alive."""
    children: dict[int, list[int]] = {}
    for stat in _PROC.glob("[0-9]*/stat"):
        with suppress(OSError):
            children.setdefault(int(_fields(stat.read_text())[1]), []).append(int(stat.parent.name))
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += children.get(one, [])
    return found


def sample(pids: Iterable[int]) -> Sample:
    """Look at processes; those that have ended count nothing."""
    cpu, rss, descriptors, threads = 0.0, 0, 0, 0
    for pid in pids:
        with suppress(OSError, IndexError):
            fields = _fields((_PROC / str(pid) / "stat").read_text())
            cpu += (int(fields[11]) + int(fields[12])) / _TICK
            threads += int(fields[17])
            rss += int(fields[21]) * _PAGE
            descriptors += len(os.listdir(_PROC / str(pid) / "fd"))
    return Sample(cpu, rss, descriptors, threads)


def peak_bytes(pids: Iterable[int]) -> int:
    """Most memory that the processes held since ``forget_peaks``, or ever, bytes; the sum of each one's own peak."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            lines = (_PROC / str(pid) / "status").read_text().splitlines()
            total += sum(_KIB * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return total


def forget_peaks(pids: Iterable[int]) -> None:
    """Let the peaks of memory start anew, where the kernel allows it."""
    for pid in pids:
        with suppress(OSError):
            (_PROC / str(pid) / "clear_refs").write_text("5")


def families(leaders: Mapping[str, int]) -> dict[str, list[int]]:
    """The processes of each part, by the name of the part."""
    return {name: family(pid) for name, pid in leaders.items()}


def _fields(stat: str) -> list[str]:
    """The fields of ``/proc/<pid>/stat`` from the state on; the name before them may hold spaces."""
    return stat.rpartition(")")[2].split()
