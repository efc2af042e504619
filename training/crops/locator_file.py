"""Run an exported locator in this process, as ONNX Runtime serves it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.common.engines.onnx_runtime import open_session
from services.patching.locator_maps import MAPS

Bytes = NDArray[np.uint8]
Float = NDArray[np.float32]
_INPUT = "images"


@lru_cache(maxsize=4)
def opened(path: Path) -> Callable[[Bytes], Float]:
    """From a working image, uint8 (h, w, 3), to the maps that the file gives for it; it is opened once in each process, with one thread."""
    session = open_session(path, threads=1)

    def maps(seen: Bytes) -> Float:
        return np.asarray(session.run([MAPS], {_INPUT: seen[None]})[0][0], np.float32)

    return maps
