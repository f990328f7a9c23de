"""Figures as text and as JSON. A figure is a number, a text, None (there is none), or infinity (it never came to that)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

NEVER = math.inf


def columns(title: str, figures: Mapping[str, Mapping[str, object]]) -> str:
    """A column for each scenario, a line for each figure."""
    labels = list(dict.fromkeys(label for column in figures.values() for label in column))
    lines = [["", *figures], *([label, *(text(column.get(label)) for column in figures.values())] for label in labels)]
    return f"\n{title}\n{aligned(lines)}"


def seconds_table(title: str, seconds: Sequence[Mapping[str, object]]) -> str:
    """A line for each second, a column for each figure."""
    lines = [list(seconds[0]), *([text(value) for value in second.values()] for second in seconds)]
    return f"\n{title}\n{aligned(lines)}"


def aligned(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "    " + "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines
    )


def text(figure: object) -> str:
    if figure is None:
        return "-"
    if figure == NEVER:
        return "never"
    if isinstance(figure, float):
        return f"{figure:,.{0 if abs(figure) >= 100 else 1 if abs(figure) >= 10 else 2}f}"
    return f"{figure:,}" if isinstance(figure, int) else str(figure)


def median_of(rounds: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """The median of each figure; of what is no number, what the last round says."""
    medians: dict[str, object] = dict(rounds[-1])
    for label in medians:
        numbers = [value for figures in rounds if isinstance(value := figures[label], int | float)]
        if len(numbers) == len(rounds):
            medians[label] = statistics.median(numbers)
    return medians


def plain(result: object) -> object:
    """The same without what JSON does not know."""
    if isinstance(result, Mapping):
        return {key: plain(value) for key, value in result.items()}
    if isinstance(result, list):
        return [plain(value) for value in result]
    return "never" if result == NEVER else result
