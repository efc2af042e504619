"""How the workers of a batch share the cores of a machine, and the images."""

from __future__ import annotations

import os
from typing import Final

from clients.batch.plan import SHARD_SIZE

THREADS: Final = 1
"""Threads for images of each of several workers that run the services. Python runs in one thread of a process at a time, so two processes of one
thread score half as many images again as one process of two."""
THREADS_VARIABLE: Final = "DL4ALL_WORKERS"
"""By which users say themselves how many threads the services have."""
_BYTES_OF_WORKER: Final = 1 << 30
_SMALLEST_SHARD: Final = 100
_SHARDS_OF_WORKER: Final = 2


def usual_workers(address: str | None) -> int:
    """Workers on this machine, unless told otherwise.

    Args:
        address: of the gateway. One worker keeps a gateway busy. Where the services run in the workers (None), there is one for every core, and at
            most one for every GiB of memory.
    """
    if address is not None:
        return 1
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(len(os.sched_getaffinity(0)), memory // _BYTES_OF_WORKER))


def usual_shard_size(images: int, workers: int) -> int:
    """Images of a shard, unless told otherwise: ``SHARD_SIZE``, or fewer where some workers would have no shard, or much less than others.

    Args:
        images: of the batch.
        workers: that share it, at least 1.
    """
    return min(SHARD_SIZE, max(_SMALLEST_SHARD, -(-images // (_SHARDS_OF_WORKER * workers))))
