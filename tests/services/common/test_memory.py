"""Tests of how freed memory is treated."""

from __future__ import annotations

import subprocess
import sys

import pytest

_FAULTS = """
import resource, sys
import numpy as np
from services.common.memory import keep_freed_memory

if sys.argv[1] != "default":
    assert keep_freed_memory(of_any_size=sys.argv[1] == "any")
image = np.zeros((int(sys.argv[2]), 256, 3), np.float32)
def work():
    return np.sqrt(image) + np.square(image) * np.float32(2)
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(how: str, rows: int) -> int:
    return int(subprocess.run([sys.executable, "-c", _FAULTS, how, str(rows)], check=True, capture_output=True, text=True).stdout)


def test_freed_arrays_are_used_again_without_page_faults() -> None:
    assert _faults("keep", 256) < 40, "20 rounds of three arrays of 192 pages fault at most twice a round"


@pytest.mark.slow
def test_arrays_of_any_size_are_used_again_where_that_is_asked_for() -> None:
    """Arrays of 48 MiB, above what glibc would ever keep by itself."""
    assert _faults("any", 1 << 14) < 40
    assert _faults("keep", 1 << 14) > 1000
