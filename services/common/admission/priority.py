"""How soon the work of a request is wanted: it travels with the request, through tasks as a context variable and over the wire as metadata."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import IntEnum
from typing import Any, Final

_KEY: Final = "dl4all-priority"


class Priority(IntEnum):
    """Lower values are served first."""

    INTERACTIVE = 0
    """Somebody waits for the answer."""
    BATCH = 1
    """Nobody waits: such work fills what the others leave."""

    @property
    def label(self) -> str:
        """Name in metrics and metadata."""
        return self.name.lower()


_current: ContextVar[Priority] = ContextVar("dl4all_priority", default=Priority.INTERACTIVE)


def current_priority() -> Priority:
    """Priority of the work of this task; INTERACTIVE where nobody said otherwise."""
    return _current.get()


@contextmanager
def working_for(priority: Priority) -> Iterator[None]:
    """Do the work of the block with a priority."""
    token = _current.set(priority)
    try:
        yield
    finally:
        _current.reset(token)


def priority_metadata() -> tuple[tuple[str, str], ...]:
    """The priority of this task as metadata of a call of another service; empty for the usual one."""
    priority = _current.get()
    return () if priority is Priority.INTERACTIVE else ((_KEY, priority.label),)


def enter_priority(metadata: Iterable[tuple[str, Any]] | None) -> None:
    """Go on with the priority that the metadata of a call tell; a value that is not known is the usual one."""
    found = next((value for key, value in metadata or () if key == _KEY), "")
    _current.set(Priority.BATCH if found == Priority.BATCH.label else Priority.INTERACTIVE)
