"""Tests of how freed memory is treated."""

from __future__ import annotations

import subprocess
import sys

_FAULTS = """
import resource, sys
import numpy as np
from services.common.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
image = np.zeros((256, 256, 3), np.float32)
def work():
    return np.sqrt(image) + np.square(image) * np.float32(2)
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(200):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_arrays_are_used_again_without_page_faults() -> None:
    kept = int(subprocess.run([sys.executable, "-c", _FAULTS, "keep"], check=True, capture_output=True, text=True).stdout)
    assert kept < 400, "200 rounds of three arrays of 192 pages fault at most twice a round"
