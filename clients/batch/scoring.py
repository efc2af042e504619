"""Score the lines of a shard through ``DiagnoseStream``: many at once, each counted before it is sent, none lost and none twice."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from clients.batch.errors import BatchError
from clients.batch.gateways import Gateway
from clients.batch.images import is_remote, read_image
from clients.batch.keeping import Keeper
from clients.batch.manifest import Line
from clients.batch.plan import Plan
from clients.batch.recovery import Recovery
from clients.batch.rows import answered_row, refused_row, set_aside_row
from clients.batch.window import Window
from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all_client import ServiceError, diagnose_request
from dl4all_client.requests import Answer

ATTEMPTS: Final = 3
"""Attempts of an image before it is set aside."""
_IMAGES_OF_STREAM: Final = 4
"""Images under way on one stream; a gateway diagnoses so many of a stream at once."""
_TURN_SECONDS: Final = 45.0
"""A stream is opened anew after so long, so that a gateway that ends can finish it, and that new gateways get their share."""
_READ_AHEAD: Final = 8
_STALLED_SECONDS: Final = 300.0
_PAUSE_SECONDS: Final = 0.5
_LOOK_SECONDS: Final = 0.05
_MAX_BYTES: Final = 23 * 1024 * 1024
_OVERLOADED: Final = "RESOURCE_EXHAUSTED"
_FINAL: Final = ("INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "OUT_OF_RANGE")
"""Statuses that concern the image itself: another attempt would end the same way."""
_NO_RELEASE: Final = "RELEASE_UNKNOWN"
"""The gateway had the release when the batch was planned; another one may have it."""
_FATAL: Final = ("UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED")
"""Statuses that concern the whole batch."""
_OUTAGES: Final = ("UNAVAILABLE", "FAILED_PRECONDITION", "CANCELLED", "UNKNOWN")
"""Statuses after which the gateway's health is asked before anything more is sent."""


@dataclass(frozen=True)
class _Sent:
    line: Line
    number: int
    started: float


@dataclass
class _Turn:
    """One turn of a stream.

    Attributes:
        end: when the last image is sent at the latest, seconds of ``time.monotonic``.
        sent: images without an answer yet, by request id.
        seats: for the images that may be under way on the stream.
        is_over: whether nothing more may be sent.
    """

    end: float
    sent: dict[str, _Sent] = field(default_factory=dict)
    seats: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_IMAGES_OF_STREAM))
    is_over: bool = False


class Scorer:
    """Scores lines.

    An image whose attempt ended without an answer is tried again alone, when all others are done: then only an image that itself brings
    something down uses up its attempts.

    Args:
        gateway: that scores.
        plan: of the batch.
        keeper: keeps attempts and rows.
        window: how many images are under way at once.
        recovery: waits while the gateway is not ready.
    """

    def __init__(self, gateway: Gateway, plan: Plan, keeper: Keeper, window: Window, recovery: Recovery) -> None:
        self._gateway = gateway
        self._plan = plan
        self._keeper = keeper
        self._window = window
        self._recovery = recovery
        self._todo: deque[Line] = deque()
        self._ready: deque[tuple[Line, bytes]] = deque()
        self._is_feeding = False
        self._fed = asyncio.Event()
        self._wanted = asyncio.Event()
        self._abandoned: list[Line] = []
        self._doubtful: list[Line] = []

    async def score(self, lines: Sequence[Line]) -> None:
        """Score lines until each has a row.

        Raises:
            BatchError: the gateway refuses the batch, or is not ready for too long; or the lease was lost.
        """
        attempts = self._keeper.attempts
        self._doubtful = [line for line in lines if attempts.get(line.number, 0)]
        await self._run([line for line in lines if not attempts.get(line.number, 0)])
        most, limit = self._window.most, self._window.limit
        self._window.most = self._window.limit = 1.0
        try:
            while self._doubtful:
                line = self._doubtful.pop(0)
                if attempts.get(line.number, 0) >= ATTEMPTS:
                    self._keeper.finish(set_aside_row(line, attempts[line.number], self._keeper.last_error(line.number)))
                    continue
                await self._run([line])
        finally:
            self._window.most, self._window.limit = most, limit

    async def _run(self, lines: Sequence[Line]) -> None:
        self._todo.extend(lines)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._feed())
                group.create_task(self._streams())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        finally:
            not_computed = [line for line, _ in self._ready] + self._abandoned
            self._ready.clear()
            self._todo.clear()
            self._abandoned.clear()
            await self._keeper.take_back(not_computed)

    @property
    def _is_over(self) -> bool:
        return not (self._todo or self._ready or self._is_feeding or self._window.under_way)

    async def _feed(self) -> None:
        """Count the attempts of the next images, and read them, ahead of the streams."""
        while not self._is_over:
            if not self._todo or len(self._ready) >= _READ_AHEAD:
                self._wanted.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wanted.wait(), _LOOK_SECONDS)
                continue
            lines = [self._todo.popleft() for _ in range(min(_READ_AHEAD, len(self._todo)))]
            self._is_feeding = True
            await self._keeper.begin(lines)
            for line, image in zip(lines, await asyncio.gather(*(asyncio.to_thread(_read, line) for line in lines)), strict=True):
                if not isinstance(image, ServiceError):
                    self._ready.append((line, image))
                elif image.code in _FINAL:
                    self._keeper.finish(refused_row(line, self._keeper.attempts[line.number], image))
                else:
                    await self._keeper.note({line.number: str(image)})
                    self._doubtful.append(line)
            self._is_feeding = False
            self._fed.set()

    async def _next(self) -> tuple[Line, bytes] | None:
        """The next image whose attempt is counted; None where there is no more."""
        while not self._ready:
            if not self._todo and not self._is_feeding:
                return None
            self._fed.clear()
            await self._fed.wait()
        self._wanted.set()
        return self._ready.popleft()

    async def _streams(self) -> None:
        """As many streams as the window has room for, one after the other, while there is work."""
        running: set[asyncio.Task[None]] = set()
        try:
            while not self._is_over:
                await self._recovery.passed()
                wanted = -(-int(self._window.limit) // _IMAGES_OF_STREAM) if self._todo or self._ready or self._is_feeding else 0
                while len(running) < wanted:
                    running.add(asyncio.create_task(self._stream()))
                if not running:
                    await asyncio.sleep(_LOOK_SECONDS)
                    continue
                done, running = await asyncio.wait(running, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _stream(self) -> None:
        """One turn of one stream. What it could not finish stays under way until it is known what becomes of it."""
        turn = _Turn(time.monotonic() + _TURN_SECONDS)
        answers = self._gateway.client.diagnose_stream(self._requests(turn))
        failure: ServiceError | None = None
        try:
            try:
                failure = await self._read_answers(turn, answers)
            except BaseException:
                self._abandoned.extend(one.line for one in turn.sent.values())
                raise
            finally:
                turn.is_over = True
                await answers.aclose()
            if failure is not None:
                await self._failed(list(turn.sent.values()), failure)
        finally:
            for _ in turn.sent:
                self._window.leave()

    async def _read_answers(self, turn: _Turn, answers: AsyncGenerator[Answer, None]) -> ServiceError | None:
        """Read the answers of a stream to its end; what failed, if anything did."""
        try:
            while True:
                async with asyncio.timeout(_STALLED_SECONDS):
                    request_id, answer = await anext(answers)
                done = turn.sent.pop(request_id, None)
                if done is None:
                    continue
                turn.seats.release()
                try:
                    await self._answered(done, answer)
                finally:
                    self._window.leave()
        except StopAsyncIteration:
            return ServiceError("UNAVAILABLE", "STREAM_ENDED", "The stream ended before all its images were answered.") if turn.sent else None
        except TimeoutError:
            return ServiceError("DEADLINE_EXCEEDED", "STREAM_STALLED", f"No image of a stream was answered for {_STALLED_SECONDS:.0f} s.")
        except ServiceError as error:
            return error

    async def _requests(self, turn: _Turn) -> AsyncIterator[diagnosis_pb2.DiagnoseRequest]:
        """The images of one turn of a stream, each with an attempt that is on disk."""
        while time.monotonic() < turn.end and (self._todo or self._ready or self._is_feeding):
            await turn.seats.acquire()
            await self._recovery.passed()
            number = await self._window.enter()
            prepared: tuple[Line, bytes] | None = None
            try:
                prepared = await self._next()
                if prepared is not None and turn.is_over:
                    self._ready.appendleft(prepared)
                    self._fed.set()
                    prepared = None
            finally:
                if prepared is None:
                    self._window.leave()
            if prepared is None:
                return
            line, image = prepared
            name = f"{line.number}-{self._keeper.attempts.get(line.number, 0)}"
            turn.sent[name] = _Sent(line, number, time.monotonic())
            yield diagnose_request(
                image,
                request_id=name,
                kind=self._plan.options.kind,
                release=self._plan.release_of(line),
                specimen=line.specimen,
                microns_per_pixel=line.microns_per_pixel,
                neighbours=self._plan.options.neighbours,
                priority=self._gateway.priority,
            )

    async def _answered(self, sent: _Sent, answer: diagnosis_pb2.Diagnosis | ServiceError) -> None:
        attempts, seconds = self._keeper.attempts.get(sent.line.number, 1), time.monotonic() - sent.started
        if not isinstance(answer, ServiceError):
            self._window.succeeded()
            self._recovery.progressed()
            self._keeper.finish(answered_row(sent.line, attempts, answer, seconds))
        elif answer.code in _FINAL and answer.reason != _NO_RELEASE:
            self._recovery.progressed()
            self._keeper.finish(refused_row(sent.line, attempts, answer, seconds))
        else:
            await self._failed([sent], answer)

    async def _failed(self, lost: Sequence[_Sent], error: ServiceError) -> None:
        """Images without an answer."""
        lines = [one.line for one in lost]
        if error.code in _FATAL:
            raise BatchError(f"The gateway refuses the batch: {error.message} ({error.reason})")
        if error.code == _OVERLOADED:
            await self._keeper.take_back(lines)
            self._todo.extendleft(reversed(lines))
            self._window.refused(max((one.number for one in lost), default=1 << 62))
            self._recovery.hold(_PAUSE_SECONDS if error.retry_after is None else error.retry_after)
            return
        await self._keeper.note({line.number: str(error) for line in lines})
        self._doubtful.extend(lines)
        if error.code in _OUTAGES or error.reason == _NO_RELEASE:
            since = max((one.started for one in lost), default=time.monotonic())
            await self._recovery.wait(self._plan.release_of(lines[0]) if lines else self._plan.options.release, str(error), since)


def _read(line: Line) -> bytes | ServiceError:
    """The image of a line, or why it cannot be read; a failure of a store may pass."""
    try:
        image = read_image(line.uri)
    except Exception as error:
        passes = is_remote(line.uri) and not isinstance(error, FileNotFoundError | PermissionError | BatchError)
        return ServiceError("UNAVAILABLE" if passes else "NOT_FOUND", "FILE_UNREADABLE", f"The image cannot be read: {error}.")
    if len(image) > _MAX_BYTES:
        return ServiceError("INVALID_ARGUMENT", "IMAGE_TOO_LARGE", f"The encoded image has {len(image)} bytes; slides are for `dl4all slide`.")
    return image
