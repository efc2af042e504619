"""How the C allocator treats freed memory."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_MMAP_MAX: Final = -4
_KEPT_BYTES: Final = 256 << 20
_LARGEST_REUSED: Final = 32 << 20
_MOST_KEPT: Final = 2**31 - 1


def keep_freed_memory(*, of_any_size: bool = False) -> bool:
    """Let glibc reuse the memory of image-sized arrays instead of returning it to the kernel after each use.

    A float32 image of 256 px is above the 128 KiB from which glibc maps and unmaps every block, and the first access to mapped pages costs several
    times as much as the arithmetic on them. The process keeps at most 256 MiB of the memory that it once needed at a time. Call it at the start,
    before there are threads; without glibc it does nothing.

    Args:
        of_any_size: reuse arrays above 32 MiB as well, such as the arrays of a batch in training, and keep 2 GiB.

    Returns:
        Whether it took effect.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    if of_any_size:
        return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _MOST_KEPT))
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_REUSED)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT_BYTES))
