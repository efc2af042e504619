"""Learning rates as pure functions of the step, so that a resumed training needs no state of them."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field


class Rates(NamedTuple):
    """What an optimiser is given for one step."""

    learning_rate: float
    momentum: float


class ScheduleKind(StrEnum):
    """The schedules that are known."""

    CONSTANT = "constant"
    STEP = "step"
    """Times ``gamma`` every ``step_epochs``."""
    TRIANGULAR = "triangular"
    """Between ``low`` and the rate and back in ``period_epochs``, changed once per epoch; the momentum falls as the rate rises."""
    ONE_CYCLE = "one_cycle"
    """Linear warm-up over a tenth, then a cosine to zero, changed at every step."""
    COSINE = "cosine"
    """Half a cosine from the rate to ``low``, changed once per epoch."""


class Schedule(BaseModel):
    """A schedule and its numbers; those of other kinds are not read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: ScheduleKind = ScheduleKind.ONE_CYCLE
    step_epochs: int = Field(default=20, ge=1)
    gamma: float = Field(default=0.5, gt=0.0, le=1.0)
    low: float = Field(default=0.001, gt=0.0)
    period_epochs: int = Field(default=8, ge=2)
    low_momentum: float = Field(default=0.8, ge=0.0, lt=1.0)


def rates(schedule: Schedule, rate: float, momentum: float, step: int, steps_per_epoch: int, epochs: int) -> Rates:
    """Learning rate and momentum of a step.

    Args:
        schedule: which schedule.
        rate: highest learning rate.
        momentum: highest momentum.
        step: 0-based step over the whole training.
        steps_per_epoch, epochs: length of the training.
    """
    epoch = step // steps_per_epoch
    match schedule.kind:
        case ScheduleKind.CONSTANT:
            return Rates(rate, momentum)
        case ScheduleKind.STEP:
            return Rates(rate * schedule.gamma ** (epoch // schedule.step_epochs), momentum)
        case ScheduleKind.TRIANGULAR:
            half = schedule.period_epochs / 2
            height = 1.0 - abs((epoch % schedule.period_epochs) / half - 1.0)
            return Rates(schedule.low + (rate - schedule.low) * height, momentum - (momentum - schedule.low_momentum) * height)
        case ScheduleKind.COSINE:
            return Rates(schedule.low + (rate - schedule.low) * 0.5 * (1.0 + math.cos(math.pi * epoch / epochs)), momentum)
        case ScheduleKind.ONE_CYCLE:
            steps = steps_per_epoch * epochs
            warm_up = max(1, steps // 10)
            if step < warm_up:
                return Rates(rate * (step + 1) / warm_up, momentum)
            return Rates(rate * 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))), momentum)
