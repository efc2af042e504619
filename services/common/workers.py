"""Worker threads for images, science and inference: what NumPy, OpenCV and ONNX Runtime do outside the interpreter lock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import cv2

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Workers:
    """A bounded pool of threads; one thread per piece of work, OpenCV's own threads switched off.

    Args:
        count: threads; as many as cores is best.
    """

    def __init__(self, count: int) -> None:
        cv2.setNumThreads(1)
        self.executor = ThreadPoolExecutor(count, thread_name_prefix="dl4all")

    async def run(self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """Run a function in a worker thread. After a cancellation a running function finishes; a waiting one never starts."""
        future = self.executor.submit(function, *args, **kwargs)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.cancel()
            raise

    def close(self) -> None:
        """Let running work finish and end the threads."""
        self.executor.shutdown(wait=True, cancel_futures=True)
