"""Worker threads for images, science and inference: NumPy, OpenCV and ONNX Runtime release the interpreter lock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import cv2

from services.common import metrics
from services.common.memory import keep_freed_memory

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Workers:
    """A bounded pool of threads; one thread per piece of work, OpenCV's own threads switched off, freed memory kept.

    Args:
        count: threads; as many as cores is best.
    """

    def __init__(self, count: int) -> None:
        cv2.setNumThreads(1)
        keep_freed_memory()
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="dl4all")

    async def run(self, stage: str, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """Run a function in a worker thread. After a cancellation a running function finishes; a waiting one never starts.

        Args:
            stage: name of the work in the metrics.
            function: function to run, with its arguments.
        """
        submitted = time.perf_counter()

        def measured() -> Result:
            metrics.WORK_WAITING.labels(stage).dec()
            metrics.WORK_WAIT_SECONDS.labels(stage).observe(time.perf_counter() - submitted)
            cpu = time.thread_time()
            with metrics.WORK_RUNNING.labels(stage).track_inprogress(), metrics.WORK_SECONDS.labels(stage).time():
                try:
                    return function(*args, **kwargs)
                finally:
                    metrics.WORK_CPU_SECONDS.labels(stage).inc(time.thread_time() - cpu)

        metrics.WORK_WAITING.labels(stage).inc()
        future = self._executor.submit(measured)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if future.cancel():
                metrics.WORK_WAITING.labels(stage).dec()
                metrics.WORK_DROPPED.labels(stage).inc()
            raise

    def close(self) -> None:
        """Let running work finish and end the threads."""
        self._executor.shutdown(wait=True, cancel_futures=True)
