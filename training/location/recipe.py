"""The recipe of the locator: switches of its network, its windows and its training."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.errors import RecipeError
from training.location.sources import SOURCES
from training.location.windows import Changes
from training.recipes.config import apply_change

NAME: Final = "locator"
STEPS_PER_EPOCH: Final = 50


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkOfLocator(_Part):
    """The network: ``width`` channels at half of the working image."""

    width: int = Field(ge=4, le=128)


class WindowsOfLocator(_Part):
    """Windows of ``side`` px, and how far they are changed; see ``Changes``."""

    side: int = Field(ge=64, le=512, multiple_of=8)
    smallest: float = Field(gt=0.0)
    largest: float = Field(gt=0.0, le=12.0)
    stain: float = Field(ge=0.0)
    hue: float = Field(ge=0.0)
    light: float = Field(ge=0.0)
    blur: float = Field(ge=0.0)
    noise: float = Field(ge=0.0)
    on_cells: float = Field(ge=0.0, le=1.0)
    on_smudged: float = Field(ge=0.0, le=1.0)
    crowded: float = Field(ge=0.0, le=1.0)

    @property
    def changes(self) -> Changes:
        """How far windows are changed."""
        return Changes(**self.model_dump(exclude={"side"}))


class TrainingOfLocator(_Part):
    """Windows per step, number of steps, highest rate of one cycle, weight decay, and decay of the averaged weights."""

    batch: int = Field(ge=1)
    steps: int = Field(ge=1)
    rate: float = Field(gt=0.0)
    weight_decay: float = Field(ge=0.0)
    average_decay: float = Field(ge=0.0, lt=1.0)


class LocatorRecipe(_Part):
    """All switches; ``shares`` says how many of the windows each source gives."""

    title: str
    network: NetworkOfLocator
    windows: WindowsOfLocator
    shares: dict[str, float]
    training: TrainingOfLocator

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if unknown := set(self.shares) - set(SOURCES):
            raise ValueError(f"shares name no source: {', '.join(sorted(unknown))}")
        if any(share < 0 for share in self.shares.values()):
            raise ValueError("shares are not negative")
        if self.windows.smallest > self.windows.largest:
            raise ValueError("windows.smallest exceeds windows.largest")
        if self.training.steps > STEPS_PER_EPOCH and self.training.steps % STEPS_PER_EPOCH:
            raise ValueError(f"training.steps is a multiple of {STEPS_PER_EPOCH}, or less than that")
        return self


def load_locator_recipe(changes: Sequence[str] = ()) -> LocatorRecipe:
    """The shipped recipe with changes such as ``training.steps=200``.

    Raises:
        RecipeError: a change names no switch, or its value does not fit.
    """
    values: dict[str, Any] = tomllib.loads((Path(__file__).parent / f"{NAME}.toml").read_text(encoding="utf-8"))
    for change in changes:
        apply_change(values, change)
    try:
        return LocatorRecipe.model_validate(values)
    except ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RecipeError(f"The recipe {NAME}: {lines}") from error


def is_locator(recipe: str) -> bool:
    """Whether the name of a recipe means this one."""
    return Path(recipe).stem == NAME
