"""Calls that wait for a thread are one inference; those that find one free are not held up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from services.common import metrics
from services.common.admission.priority import Priority, working_for
from services.common.engines.batching import JoinedInference
from services.common.workers import Workers


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers(1)
    yield made
    made.close()


class Model:
    """Answers the first value of each image, and notes what it was given. It can be told to fail."""

    def __init__(self) -> None:
        self.runs: list[list[int]] = []
        self.failure: Exception | None = None

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        self.runs.append([int(image.flat[0]) for image in images])
        if self.failure is not None:
            raise self.failure
        return {"first": images.reshape(len(images), -1)[:, :1].astype(np.float32)}


def cells(*values: int) -> np.ndarray:
    return np.stack([np.full((2, 2, 3), value, np.uint8) for value in values])


class Busy:
    """Keeps the one thread busy until it is let go."""

    def __init__(self, workers: Workers) -> None:
        self._go = threading.Event()
        self._work = workers.submit("test", self._go.wait, 20)

    def end(self) -> None:
        self._go.set()


async def joined(inference: JoinedInference, workers: Workers, *given: np.ndarray) -> list[Any]:
    busy = Busy(workers)
    calls = [asyncio.create_task(inference.infer(images)) for images in given]
    await asyncio.sleep(0.01)
    busy.end()
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_calls_that_wait_for_a_thread_are_one_run_and_each_gets_its_own(workers: Workers) -> None:
    model = Model()
    answers = await joined(JoinedInference(workers, model, 8), workers, cells(1), cells(2, 3), cells(4))
    assert model.runs == [[1, 2, 3, 4]]
    assert [answer["first"].ravel().tolist() for answer in answers] == [[1.0], [2.0, 3.0], [4.0]]


async def test_a_call_that_finds_a_thread_free_runs_at_once_and_alone(workers: Workers) -> None:
    model = Model()
    inference = JoinedInference(workers, model, 8)
    for value in (1, 2):
        await inference.infer(cells(value))
    assert model.runs == [[1], [2]]


async def test_no_run_is_larger_than_the_model_takes_unless_one_call_is(workers: Workers) -> None:
    model = Model()
    answers = await joined(JoinedInference(workers, model, 3), workers, cells(1), cells(2), cells(3, 4), cells(5, 6, 7, 8), cells(9))
    assert model.runs == [[1, 2], [3, 4], [5, 6, 7, 8], [9]]
    assert [len(answer["first"]) for answer in answers] == [1, 1, 2, 4, 1]


async def test_interactive_calls_come_before_those_of_batches(workers: Workers) -> None:
    model, busy = Model(), Busy(workers)
    inference = JoinedInference(workers, model, 2)

    async def call(value: int, priority: Priority) -> None:
        with working_for(priority):
            await inference.infer(cells(value))

    given = [(1, Priority.BATCH), (2, Priority.BATCH), (3, Priority.INTERACTIVE), (4, Priority.INTERACTIVE)]
    calls = [asyncio.create_task(call(*one)) for one in given]
    await asyncio.sleep(0.01)
    busy.end()
    await asyncio.gather(*calls)
    assert model.runs == [[3, 4], [1, 2]]


async def test_a_run_that_fails_is_the_failure_of_its_calls_and_of_no_others(workers: Workers) -> None:
    model = Model()
    inference = JoinedInference(workers, model, 2)
    model.failure = RuntimeError("the engine failed")
    assert [type(answer) for answer in await joined(inference, workers, cells(1), cells(2))] == [RuntimeError, RuntimeError]
    model.failure = None
    assert len((await inference.infer(cells(3)))["first"]) == 1


@pytest.mark.parametrize("leave", ["cancelled", "timed out"])
async def test_a_call_whose_caller_has_gone_is_not_computed_and_the_others_are(workers: Workers, leave: str) -> None:
    model, busy = Model(), Busy(workers)
    inference = JoinedInference(workers, model, 2)

    async def call(value: int, seconds: float | None = None) -> dict[str, np.ndarray]:
        async with asyncio.timeout(seconds):
            return await inference.infer(cells(value))

    dropped = metrics.WORK_DROPPED.labels("infer")._value.get()
    first, gone, last = (asyncio.create_task(call(v, 0.05 if v == 2 and leave == "timed out" else None)) for v in (1, 2, 3))
    await asyncio.sleep(0.01)
    if leave == "cancelled":
        gone.cancel()
    with pytest.raises((asyncio.CancelledError, TimeoutError)):
        await gone
    busy.end()
    assert [(await one)["first"].item() for one in (first, last)] == [1.0, 3.0]
    assert model.runs == [[1, 3]]
    assert metrics.WORK_DROPPED.labels("infer")._value.get() == dropped + 1


async def test_a_run_goes_on_for_the_others_when_the_caller_of_one_of_its_calls_goes(workers: Workers) -> None:
    begun, go, model = threading.Event(), threading.Event(), Model()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        begun.set()
        go.wait(20)
        return model(images)

    busy, inference = Busy(workers), JoinedInference(workers, run, 2)
    gone, stays, next_one = (asyncio.create_task(inference.infer(cells(value))) for value in (1, 2, 3))
    await asyncio.sleep(0.01)
    busy.end()
    assert await asyncio.to_thread(begun.wait, 20)
    gone.cancel()
    await asyncio.sleep(0.01)
    go.set()
    assert (await stays)["first"].item() == 2.0
    assert (await next_one)["first"].item() == 3.0
    assert model.runs == [[1, 2], [3]]


async def test_calls_that_wait_when_the_threads_end_are_cancelled() -> None:
    workers = Workers(1)
    busy, inference = Busy(workers), JoinedInference(workers, Model(), 2)
    waiting = [asyncio.create_task(inference.infer(cells(value))) for value in (1, 2)]
    await asyncio.sleep(0.01)
    closing = asyncio.create_task(asyncio.to_thread(workers.close))
    await asyncio.wait(waiting, timeout=10)
    busy.end()
    await closing
    assert all(task.cancelled() for task in waiting)
