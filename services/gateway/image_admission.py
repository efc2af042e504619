"""Which images are worked on at once: by their work, interactive ones before those of batches. Others wait, or are refused at once."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import grpc

from services.common import metrics
from services.common.admission.budget import Budget, Holding, WorkRules
from services.common.admission.caller import caller_of
from services.common.admission.priority import Priority, current_priority, working_for
from services.common.errors import OverloadedError
from services.common.image_size import stored_pixels
from services.gateway.request_context import EncodedImage, RequestContext

_RESERVE: Final = 9
"""Callers below their fair share keep one in so many parts of the work."""
_KEPT: Final = 4
"""One in so many parts of the work is kept for interactive images."""
_SHARE: Final = 4
"""One image counts as at most one in so many parts of the work, so that the largest are let in beside others."""


@dataclass(frozen=True)
class ImageLimits:
    """How much is worked on at once. The unit of work is the pixel, see ``GatewaySettings``.

    Attributes:
        work: of all images at once.
        image_pixels: work of any image, whatever its size.
        cell_pixels: work of a cell.
        images: at once.
        batch_images: of batches at once.
        batch_waiting: images of batches that wait at once.
        longest_wait: expected seconds, by priority, beyond which an image is refused.
    """

    work: int
    image_pixels: int
    cell_pixels: int
    images: int
    batch_images: int
    batch_waiting: int
    longest_wait: dict[Priority, float]


class ImageWork:
    """The work of one image that was let in.

    Args:
        holding: of the image.
        limits: of all images.
        pixels: of the image; 0 where they are not known.
    """

    def __init__(self, holding: Holding, limits: ImageLimits, pixels: int) -> None:
        self._holding = holding
        self._limits = limits
        self._pixels = pixels

    def found(self, parts: int, pixels: int = 0) -> None:
        """Count the work anew when more is known of it.

        Args:
            parts: cells and patches of the image.
            pixels: of the decoded image; 0 for those that its header told.
        """
        self._holding.resize(work_of(self._limits, max(pixels, self._pixels), parts))


class ImageAdmission:
    """Lets images in, over all calls.

    Args:
        limits: how much is worked on at once.
    """

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits
        rules = WorkRules(limits.images, limits.batch_images, limits.batch_waiting, limits.longest_wait)
        self._budget = Budget(limits.work, limits.work // _RESERVE, name="image work", kept=limits.work // _KEPT, work=rules)
        for priority in Priority:
            metrics.IMAGES_EXPECTED_WAIT.labels(priority.label).set_function(partial(self._budget.expected_wait, priority, limits.image_pixels))

    def refuse_early(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Refuse a call on its headers, before its message is read, where no image would be let in, however small.

        Args:
            context: of the call; its metadata may say ``dl4all-priority: batch``.

        Raises:
            OverloadedError: as ``let_in``.
        """
        priority, left = current_priority(), context.time_remaining()
        try:
            self._budget.check(caller_of(context), work_of(self._limits, 0), priority=priority, left=math.inf if left is None else left)
        except OverloadedError:
            metrics.IMAGES_REFUSED.labels(priority.label).inc()
            raise

    @asynccontextmanager
    async def let_in(self, image: EncodedImage, context: RequestContext) -> AsyncIterator[ImageWork]:
        """Work on an image as long as the block lasts.

        Args:
            image: the image; its header is looked at and nothing is decoded.
            context: of the checked request.

        Raises:
            OverloadedError: OVERLOADED, at once: the image would wait too long.
            TimeoutError: the deadline passed before it was its turn.
        """
        pixels = stored_pixels(image.content)
        holding = await self._turn(work_of(self._limits, pixels), context)
        try:
            with metrics.IMAGES_IN_FLIGHT.track_inprogress(), working_for(context.priority):
                yield ImageWork(holding, self._limits, pixels)
        except BaseException:
            holding.worth = 0
            raise
        finally:
            holding.release()

    async def _turn(self, work: int, context: RequestContext) -> Holding:
        started, label, left = time.perf_counter(), context.priority.label, context.deadline.left
        try:
            with metrics.IMAGES_WAITING.labels(label).track_inprogress():
                async with asyncio.timeout(left):
                    holding = await self._budget.wait(context.caller, work, priority=context.priority, left=left)
        except OverloadedError:
            metrics.IMAGES_REFUSED.labels(label).inc()
            raise
        metrics.STAGE_SECONDS.labels("wait").observe(time.perf_counter() - started)
        return holding


def work_of(limits: ImageLimits, pixels: int, parts: int = 0) -> int:
    """Work of an image with so many cells and patches, in pixels; at most its share of all work."""
    return min(limits.image_pixels + pixels + limits.cell_pixels * parts, max(1, limits.work // _SHARE))
