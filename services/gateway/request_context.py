"""A request as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.common.admission.caller import Caller
from services.common.admission.priority import Priority
from services.common.releases import Release
from services.gateway.deadline import Deadline

UNKNOWN: Final = Caller("")
"""The caller of a call that nobody's connection brought."""


@dataclass(frozen=True)
class EncodedImage:
    """An image as the caller sent it.

    Attributes:
        content: the encoded image.
        kind: what it shows, a value of ``ImageKind``.
        microns_per_pixel: 0 where unknown.
    """

    content: bytes
    kind: int
    microns_per_pixel: float


@dataclass(frozen=True)
class Display:
    """Display options. They do not change the decision.

    Attributes:
        neighbours: per cell; 0 for the usual number.
        maps: whether similarity maps and class activations are shown.
        crops: whether the registered pixels are shown.
        latent_map: whether the reference cells of the latent map are shown.
    """

    neighbours: int = 0
    maps: bool = False
    crops: bool = False
    latent_map: bool = False


@dataclass(frozen=True)
class RequestContext:
    """The context that every step of a request uses.

    Attributes:
        request_id: correlates logs.
        release: the release that decides.
        display: the display options.
        deadline: when the call ends.
        caller: who calls.
        priority: how soon the answer is wanted.
    """

    request_id: str
    release: Release
    display: Display
    deadline: Deadline
    caller: Caller = UNKNOWN
    priority: Priority = Priority.INTERACTIVE
