"""What the kernel says of processes."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.load.metering import GENERATOR, Meter
from tests.load.processes import families, family, forget_peaks, peak_bytes, sample
from tests.load.targets import Target

MIB = 2**20


def test_a_process_is_seen_with_its_children() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        assert {os.getpid(), child.pid} <= set(family(os.getpid()))
        assert family(child.pid) == [child.pid]
    finally:
        child.communicate()
    assert families({"none": child.pid}) == {"none": [child.pid]}
    assert sample([child.pid]).rss == 0


def test_files_and_memory_of_a_process_are_counted() -> None:
    before = sample([os.getpid()])
    reader, writer = os.pipe()
    try:
        after = sample([os.getpid()])
    finally:
        os.close(reader)
        os.close(writer)
    assert after.descriptors == before.descriptors + 2
    assert after.threads >= 1
    assert after.rss > 10 * MIB
    forget_peaks([os.getpid()])
    assert peak_bytes([os.getpid()]) > 10 * MIB


def test_the_meter_tells_the_generator_from_the_parts() -> None:
    usage = Meter(Target("embedded", "", {"embedded": os.getpid()})).usage(answered=1)
    assert set(usage.cpu_ms_per_image) == {"embedded", GENERATOR}
    assert usage.peak_mib["embedded"] > 10
    assert Meter(Target("address", "")).usage(answered=0).generator_share is None
