"""Worker threads for images, science and inference: NumPy, OpenCV and ONNX Runtime release the interpreter lock."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

import cv2

from services.common import metrics
from services.common.admission.priority import Priority, current_priority
from services.common.memory import keep_freed_memory

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(order=True)
class _Piece:
    priority: Priority
    number: int
    work: Callable[[], None] = field(compare=False)
    outcome: Future[Any] = field(compare=False)


class _Threads:
    """Threads that begin the waiting work of the highest priority first, and of one priority what came first.

    Args:
        count: threads.
        name: of the threads.
    """

    def __init__(self, count: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: list[_Piece] = []

    def submit(self, function: Callable[[], Result], priority: Priority) -> Future[Result]:
        """Let a function run as soon as it is its turn."""
        future: Future[Result] = Future()

        def work() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:
                    future.set_exception(error)

        with self._lock:
            heapq.heappush(self._waiting, _Piece(priority, next(self._numbers), work, future))
        self._executor.submit(self._begin_next).add_done_callback(self._drop_if_closed)
        return future

    def _begin_next(self) -> None:
        """Every piece of work brings one turn, so there is one for each; whose caller has gone is passed over."""
        with self._lock:
            piece = heapq.heappop(self._waiting) if self._waiting else None
        if piece is not None:
            piece.work()

    def _drop_if_closed(self, turn: Future[None]) -> None:
        """A turn that will not come: nothing that waits will begin."""
        if turn.cancelled():
            with self._lock:
                dropped, self._waiting = self._waiting, []
            for piece in dropped:
                piece.outcome.cancel()

    def close(self) -> None:
        """Let running work finish, drop the rest and end the threads."""
        self._executor.shutdown(wait=True, cancel_futures=True)


class Workers:
    """A bounded pool of threads; one thread per piece of work, OpenCV's own threads switched off, freed memory kept.

    Waiting work of interactive requests begins before that of batches.

    Work that takes long, such as that of slides, takes all threads but one. Where there is only one, long work has a thread of its own beside it.

    Args:
        count: threads; as many as cores is best.
    """

    def __init__(self, count: int) -> None:
        cv2.setNumThreads(1)
        keep_freed_memory()
        self._threads = _Threads(count, "dl4all")
        self._long = self._threads if count > 1 else _Threads(1, "dl4all-long")
        self._long_slots = asyncio.Semaphore(max(1, count - 1))

    async def run(self, stage: str, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """Run a function in a worker thread. After a cancellation a running function finishes; a waiting one never starts.

        Args:
            stage: name of the work in the metrics.
            function: function to run, with its arguments.
        """
        return await self._awaited(stage, self.submit(stage, function, *args, **kwargs))

    def submit(self, stage: str, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Future[Result]:
        """Let a function run in a worker thread as soon as one is free; arguments as for ``run``."""
        return self._submitted(self._threads, stage, function, *args, **kwargs)

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
        self, threads: _Threads, stage: str, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
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
        return threads.submit(measured, current_priority())

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
        for threads in {self._threads, self._long}:
            threads.close()
