"""Cells of several images in one inference: calls that wait for a thread are joined; a call that finds one free runs at once and alone."""

from __future__ import annotations

import asyncio
import threading
from bisect import insort
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from services.common import metrics
from services.common.admission.priority import Priority, current_priority
from services.common.workers import Workers

Outputs = dict[str, NDArray[np.float32]]
STAGE = "infer"


@dataclass(eq=False)
class _Call:
    images: NDArray[np.uint8]
    priority: Priority
    outputs: Future[Outputs] = field(default_factory=Future)


class JoinedInference:
    """Runs one model for the same outputs on images of one shape, for many calls.

    Every call brings a piece of work to the worker threads. A thread that begins one takes the calls that come first, by priority and then by
    time, as many as fit in one inference. So no call waits for others to come, and a piece of work may find nothing left to do.

    Args:
        workers: threads.
        run: runs the model on images, uint8 (N, side, side, 3), and returns its outputs, N each.
        most: images of one inference; a call that brings more runs alone.
    """

    def __init__(self, workers: Workers, run: Callable[[NDArray[np.uint8]], Outputs], most: int) -> None:
        self._workers = workers
        self._run = run
        self._most = most
        self._lock = threading.Lock()
        self._waiting: list[_Call] = []

    async def infer(self, images: NDArray[np.uint8]) -> Outputs:
        """The outputs for some images. A call that is cancelled while it waits is not computed.

        Args:
            images: of the shape that the model takes; checked before.

        Raises:
            Exception: the run failed, and with it all its calls.
        """
        call = _Call(images, current_priority())
        with self._lock:
            insort(self._waiting, call, key=lambda waiting: waiting.priority)
        self._workers.submit(STAGE, self._serve).add_done_callback(self._give_up_if_cancelled)
        try:
            return await asyncio.wrap_future(call.outputs)
        except asyncio.CancelledError:
            if self._leave(call):
                metrics.WORK_DROPPED.labels(STAGE).inc()
            raise

    def _serve(self) -> None:
        calls = self._taken()
        if not calls:
            return
        try:
            outputs = self._run(calls[0].images if len(calls) == 1 else np.concatenate([call.images for call in calls]))
        except BaseException as error:
            for call in calls:
                call.outputs.set_exception(error)
            return
        start = 0
        for call in calls:
            stop = start + len(call.images)
            call.outputs.set_result({name: array[start:stop] for name, array in outputs.items()})
            start = stop

    def _taken(self) -> list[_Call]:
        """The calls of the next inference, which can no longer be cancelled."""
        taken: list[_Call] = []
        count = 0
        with self._lock:
            while self._waiting and (not taken or count + len(self._waiting[0].images) <= self._most):
                call = self._waiting.pop(0)
                if call.outputs.set_running_or_notify_cancel():
                    taken.append(call)
                    count += len(call.images)
        return taken

    def _leave(self, call: _Call) -> bool:
        with self._lock:
            is_waiting = call in self._waiting
            if is_waiting:
                self._waiting.remove(call)
        return is_waiting

    def _give_up_if_cancelled(self, work: Future[None]) -> None:
        """The threads have ended before this piece of work: nobody will serve the calls."""
        if work.cancelled():
            with self._lock:
                calls = list(self._waiting)
                self._waiting.clear()
            for call in calls:
                call.outputs.cancel()
