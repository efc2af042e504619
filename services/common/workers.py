"""Worker threads for images, science and inference: NumPy, OpenCV and ONNX Runtime release the interpreter lock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import cv2

from services.common import metrics
from services.common.memory import keep_freed_memory

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Workers:
    """A bounded pool of threads; one thread per piece of work, OpenCV's own threads switched off, freed memory kept.

    Work that takes long, such as that of slides, takes all threads but one. Where there is only one, long work has a thread of its own beside it.

    Args:
        count: threads; as many as cores is best.
    """

    def __init__(self, count: int) -> None:
        cv2.setNumThreads(1)
        keep_freed_memory()
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="dl4all")
        self._long = self._executor if count > 1 else ThreadPoolExecutor(1, thread_name_prefix="dl4all-long")
        self._long_slots = asyncio.Semaphore(max(1, count - 1))

    async def run(self, stage: str, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """Run a function in a worker thread. After a cancellation a running function finishes; a waiting one never starts.

        Args:
            stage: name of the work in the metrics.
            function: function to run, with its arguments.
        """
        return await self._awaited(stage, self._submitted(self._executor, stage, function, *args, **kwargs))

    async def run_long(self, stage: str, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """Run a function that is one of very many, as of a slide: as ``run``, but one thread stays free for ``run``.

        Args:
            stage: name of the work in the metrics.
            function: function to run, with its arguments.
        """
        await self._long_slots.acquire()
        try:
            future = self._submitted(self._long, stage, function, *args, **kwargs)
        except BaseException:
            self._long_slots.release()
            raise
        loop = asyncio.get_running_loop()

        def ended(_: Future[Result]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._long_slots.release)

        future.add_done_callback(ended)
        return await self._awaited(stage, future)

    def _submitted(
        self, executor: ThreadPoolExecutor, stage: str, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
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
        return executor.submit(measured)

    async def _awaited(self, stage: str, future: Future[Result]) -> Result:
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if future.cancel():
                metrics.WORK_WAITING.labels(stage).dec()
                metrics.WORK_DROPPED.labels(stage).inc()
            raise

    def close(self) -> None:
        """Let running work finish and end the threads."""
        for executor in {self._executor, self._long}:
            executor.shutdown(wait=True, cancel_futures=True)
