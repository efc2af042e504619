"""Learning rates as pure functions of the step, so that a resumed training needs no state of them."""

from __future__ import annotations

import math
from typing import NamedTuple

from training.recipes.config import Schedule, ScheduleKind


class Rates(NamedTuple):
    """What an optimiser is given for one step."""

    learning_rate: float
    momentum: float


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
