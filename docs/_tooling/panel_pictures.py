"""Drawing of the dashboard's panels as one SVG, from series of numbers. No I/O, no clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 400, 220
COLUMNS = 3
MARGIN_LEFT, MARGIN_TOP, MARGIN_RIGHT, LEGEND_HEIGHT = 72, 34, 10, 44
COLORS = ("#73bf69", "#5794f2", "#f2cc0c", "#ff7383", "#b877d9", "#ff9830", "#37872d", "#8ab8ff")
STATES = {"green": "#37872d", "red": "#c4162a"}
FONT = "system-ui, 'DejaVu Sans', sans-serif"
TICKS = 4
MOST_IN_LEGEND = 6

_UNITS = {
    "percentunit": (100, "%"),
    "s": (1000, " ms"),
    "Bps": (1 / 1024, " KiB/s"),
    "cps": (1, "/s"),
    "bytes": (1 / 1024, " KiB"),
}


class Series(NamedTuple):
    """One line of a panel."""

    name: str
    points: Sequence[tuple[float, float]]
    """Seconds since the start of the picture, and the value."""


class Picture(NamedTuple):
    """Content of one panel."""

    title: str
    unit: str
    series: Sequence[Series]
    states: Sequence[tuple[str, str]] = ()
    """Names and colors of 0 and 1. Empty for a panel of lines."""


def draw(pictures: Sequence[Picture], seconds: float, marks: Sequence[tuple[float, str]]) -> str:
    """Return the SVG of some panels.

    Args:
        pictures: The panels.
        seconds: Length of the time axis.
        marks: Times of events, in seconds, with their names.
    """
    rows = math.ceil(len(pictures) / COLUMNS)
    width, height = COLUMNS * WIDTH, rows * HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="{FONT}" font-size="10">',
        f'<rect width="{width}" height="{height}" fill="#111217"/>',
    ]
    for index, picture in enumerate(pictures):
        row, column = divmod(index, COLUMNS)
        parts += [f'<g transform="translate({column * WIDTH} {row * HEIGHT})">', *_panel(picture, seconds, marks), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _panel(picture: Picture, seconds: float, marks: Sequence[tuple[float, str]]) -> list[str]:
    right, bottom = WIDTH - MARGIN_RIGHT, HEIGHT - LEGEND_HEIGHT
    parts = [
        f'<rect x="3" y="3" width="{WIDTH - 6}" height="{HEIGHT - 6}" fill="#181b1f" stroke="#2c3235"/>',
        _text(10, 18, picture.title, "#ccccdc", size=12),
    ]
    parts += _bars(picture, seconds, bottom) if picture.states else _lines(picture, seconds, right, bottom)
    for at, name in marks:
        x = _x(at, seconds)
        parts.append(f'<path d="M{x:.1f} {MARGIN_TOP}V{bottom}" stroke="#e0e0e8" stroke-dasharray="3 3"/>')
        parts.append(_text(x + 3, MARGIN_TOP - 2, name, "#9a9aa5", size=8))
    parts += [
        _text(_x(at, seconds), bottom + 11, f"{at:g} s", "#9a9aa5", anchor="middle") for at in range(0, int(seconds) + 1, 30)
    ]
    return parts


def _x(at: float, seconds: float) -> float:
    return MARGIN_LEFT + at / seconds * (WIDTH - MARGIN_LEFT - MARGIN_RIGHT)


def _lines(picture: Picture, seconds: float, right: float, bottom: float) -> list[str]:
    factor, suffix = _UNITS.get(picture.unit, (1, ""))
    highest = max((value * factor for series in picture.series for _, value in series.points), default=0.0)
    step = 100 / TICKS if suffix == "%" else tick_step(highest / TICKS)
    top = step * TICKS
    parts = []
    for tick in range(TICKS + 1):
        y = bottom - tick / TICKS * (bottom - MARGIN_TOP)
        parts.append(f'<path d="M{MARGIN_LEFT} {y:.1f}H{right}" stroke="#2c3235"/>')
        parts.append(_text(MARGIN_LEFT - 4, y + 3, f"{step * tick:g}{suffix}", "#9a9aa5", anchor="end"))
    for index, series in enumerate(picture.series):
        color = COLORS[index % len(COLORS)]
        path = "".join(
            f"{'L' if place else 'M'}{_x(at, seconds):.0f} {bottom - value * factor / top * (bottom - MARGIN_TOP):.0f}"
            for place, (at, value) in enumerate(series.points)
        )
        parts.append(f'<path d="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        if index < MOST_IN_LEGEND:
            x, y = 10 + index % 3 * 128, bottom + 24 + index // 3 * 12
            parts.append(f'<rect x="{x}" y="{y - 5}" width="8" height="3" fill="{color}"/>')
            parts.append(_text(x + 11, y, series.name, "#9a9aa5", size=9))
    if len(picture.series) > MOST_IN_LEGEND:
        parts.append(_text(right, 18, f"and {len(picture.series) - MOST_IN_LEGEND} more", "#9a9aa5", anchor="end", size=9))
    return parts


def _bars(picture: Picture, seconds: float, bottom: float) -> list[str]:
    height = (bottom - MARGIN_TOP) / max(1, len(picture.series))
    parts = []
    for index, series in enumerate(picture.series):
        y = MARGIN_TOP + index * height
        parts.append(_text(MARGIN_LEFT - 4, y + height / 2 + 3, series.name, "#9a9aa5", anchor="end"))
        for begin, end, value in spans(series.points):
            color = STATES[picture.states[int(value)][1]]
            x, width = _x(begin, seconds), _x(end, seconds) - _x(begin, seconds)
            size = f'width="{width:.1f}" height="{height - 4:.1f}"'
            parts.append(f'<rect x="{x:.1f}" y="{y + 2:.1f}" {size} fill="{color}"/>')
    for index, (name, color) in enumerate(picture.states):
        parts.append(f'<rect x="{10 + index * 80}" y="{bottom + 19}" width="8" height="8" fill="{STATES[color]}"/>')
        parts.append(_text(21 + index * 80, bottom + 26, name, "#9a9aa5", size=9))
    return parts


def spans(points: Sequence[tuple[float, float]]) -> list[tuple[float, float, float]]:
    """Return begin, end and value of each period of one value."""
    found: list[tuple[float, float, float]] = []
    for at, value in points:
        if found and found[-1][2] == value:
            found[-1] = (found[-1][0], at, value)
        else:
            if found:
                found[-1] = (found[-1][0], at, found[-1][2])
            found.append((at, at, value))
    return found


def tick_step(least: float) -> float:
    """Return the first of 1, 2 and 5 times a power of ten that is at least this number. 1 for 0."""
    if least <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least * (1 - 1e-9))


def _text(x: float, y: float, text: str, color: str, *, anchor: str = "start", size: int = 10) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" fill="{color}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'
