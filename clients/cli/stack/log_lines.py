"""Lines of many processes as one tidy log for people."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import cycle
from typing import Any, Final

from rich.markup import escape

from services.common.parts import PARTS, TRITON

_COLOURS: Final = dict(zip(PARTS, cycle(("white", "green", "yellow", "magenta", "blue", "cyan")), strict=False))
_LEVEL_COLOURS: Final = {"error": "bold red", "critical": "bold red", "warning": "yellow"}
_HIDDEN: Final = ("timestamp", "level", "event", "service")
_TRITON_LINE: Final = re.compile(r"\S+T(?P<clock>[\d:]{8})\S* (?P<level>[IWEF]) \d+ \S+\] ?(?P<text>.*)")
_TRITON_LEVELS: Final = {"I": "info", "W": "warning", "E": "error", "F": "critical"}
_WIDTH: Final = max(map(len, _COLOURS))


def tidy(name: str, line: str) -> str | None:
    """One line of a part, as rich markup: who, when, what, and the rest as ``key=value``; None for a line without content, such as those of
    Triton's tables.

    Args:
        name: of the part.
        line: what it printed, JSON or not.
    """
    who = f"[{_COLOURS.get(name, 'white')}]{name:<{_WIDTH}}[/]"
    if name == TRITON and (not line.strip() or line[0] in "+|"):
        return None
    event = _event(line)
    if event is not None and not event.get("event"):
        return None
    if event is None:
        return f"{who} {escape(line)}"
    level = str(event.get("level", ""))
    style = _LEVEL_COLOURS.get(level)
    text = escape(f"{_clock(event)} {event.get('event', '')}")
    rest = escape(" ".join(f"{key}={_shown(value)}" for key, value in event.items() if key not in _HIDDEN and key != "exception"))
    body = f"{text} [dim]{rest}[/]" if style is None else f"[{style}]{text} {rest}[/]"
    trace = f"\n{escape(str(event['exception']))}" if "exception" in event else ""
    return f"{who} {body}{trace}"


def _event(line: str) -> Mapping[str, Any] | None:
    if found := _TRITON_LINE.fullmatch(line):
        return {"timestamp": f"{'':11s}{found['clock']}", "level": _TRITON_LEVELS[found["level"]], "event": found["text"].strip('"')}
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _clock(event: Mapping[str, Any]) -> str:
    return str(event.get("timestamp", ""))[11:19]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).rpartition(".")[2] if isinstance(value, str) and value.startswith("/dl4all.") else str(value)
