"""What a dashboard is made of: rows of panels."""

from __future__ import annotations

from typing import NamedTuple

from examples.grafana.queries import Query

GRID_WIDTH = 24

# Units.
PER_SECOND = "cps"
BYTES_PER_SECOND = "Bps"

# States, as the name and the color of 0 and 1.
UP = (("down", "red"), ("up", "green"))
READ = (("read", "green"), ("out", "red"))
CIRCUIT = (("closed", "green"), ("open", "red"))


class Panel(NamedTuple):
    title: str
    about: str
    unit: str
    queries: tuple[Query, ...]
    width: int = 8
    kind: str = "timeseries"
    stacked: bool = False
    states: tuple[tuple[str, str], ...] = ()
    """What 0 and 1 are called, and their colors; for states over time."""
    bad_from: float | None = None
    """A single number is red from here on."""


class Row(NamedTuple):
    title: str
    panels: tuple[Panel, ...]
