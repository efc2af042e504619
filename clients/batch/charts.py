"""Small charts of the report, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

WIDTH: Final = 680
HEIGHT: Final = 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 12, 40
_INK, _SOFT, _GRID = "#1d5f8a", "#bcd7e8", "#d8d8d8"
_TICKS: Final = 6


@dataclass(frozen=True)
class Band:
    """A median with the range around it, at one place of the horizontal axis.

    Attributes:
        at: the place.
        low: lower end of the range.
        middle: the median.
        high: upper end of the range.
    """

    at: float
    low: float
    middle: float
    high: float


def band_chart(bands: Sequence[Band], across: str, up: str) -> Markup:
    """A line of medians in its range; empty without bands.

    Args:
        bands: from left to right.
        across: label of the horizontal axis.
        up: label of the vertical axis, with its unit.
    """
    if not bands:
        return Markup("")
    axes = _around(bands[0].at, bands[-1].at, min(band.low for band in bands), max(band.high for band in bands))
    edge = [(band.at, band.high) for band in bands] + [(band.at, band.low) for band in reversed(bands)]
    area = f'<polygon points="{axes.points(edge)}" fill="{_SOFT}"/>'
    middle = [(band.at, band.middle) for band in bands]
    line = f'<polyline points="{axes.points(middle)}" fill="none" stroke="{_INK}" stroke-width="2"/>'
    return _figure(axes, across, up, area + line)


def line_chart(points: Sequence[tuple[float, float]], across: str, up: str) -> Markup:
    """A line from 0 upwards; empty without points. Arguments as for ``band_chart``."""
    if not points:
        return Markup("")
    axes = _around(points[0][0], points[-1][0], 0.0, max(y for _, y in points))
    drawn = f'<polyline points="{axes.points(points)}" fill="none" stroke="{_INK}" stroke-width="2"/>'
    if len(points) == 1:
        x, y = axes.place(*points[0])
        drawn = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{_INK}"/>'
    return _figure(axes, across, up, drawn)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers, evenly spaced, that hold a range: four to eight."""
    span = high - low if high - low > 1e-9 * max(abs(low), abs(high)) else max(1.0, abs(high))
    scale = 10.0 ** math.floor(math.log10(span / _TICKS))
    step = scale * next(m for m in (1.0, 2.0, 5.0, 10.0) if scale * m >= span / _TICKS * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


@dataclass(frozen=True)
class _Axes:
    left: float
    right: float
    levels: tuple[float, ...]

    @property
    def bottom(self) -> float:
        return self.levels[0]

    @property
    def top(self) -> float:
        return self.levels[-1]

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.left) / ((self.right - self.left) or 1.0)
        up = (y - self.bottom) / ((self.top - self.bottom) or 1.0)
        return _LEFT + across * (WIDTH - _LEFT - _RIGHT), HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM)

    def points(self, points: Sequence[tuple[float, float]]) -> str:
        return " ".join("{:.1f},{:.1f}".format(*self.place(x, y)) for x, y in points)


def _around(left: float, right: float, low: float, high: float) -> _Axes:
    """Axes whose vertical one begins and ends at a tick."""
    return _Axes(left, right, tuple(ticks(low, high)))


def _figure(axes: _Axes, across: str, up: str, drawn: str) -> Markup:
    right, floor = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts = []
    for value in axes.levels:
        _, y = axes.place(axes.left, value)
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="{_GRID}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:,.6g}</text>')
    for at in ticks(axes.left, axes.right):
        x, _ = axes.place(at, axes.bottom)
        if axes.left <= at <= axes.right:
            parts.append(f'<text x="{x:.1f}" y="{floor + 15}" text-anchor="middle">{at:,.6g}</text>')
    labels = (
        f'<text x="{(_LEFT + right) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(across)}</text>'
        f'<text transform="translate(13 {(floor + _TOP) / 2:.0f}) rotate(-90)" text-anchor="middle">{escape(up)}</text>'
    )
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(up)} by {escape(across)}">{"".join(parts)}{drawn}{labels}</svg>'
    )
