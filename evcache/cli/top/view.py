"""Output of `evcache top`: a table in a terminal, plain lines or JSON elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from evcache.admin.load.table import Figures, LoadTable, NodeLoad, ZoneLoad
from evcache.cli.output import to_json
from evcache.zones.topology.model import Mode

UNKNOWN = "-"
TITLES = (
    "node", "circuit", "get/s", "set/s", "hits", "latency", "memory", "evict/s", "conns", "in/s", "out/s",
)  # fmt: skip
LEFT_COLUMNS = 2
"""Number of columns that are aligned to the left."""

_THOUSAND = 1000
_KIBI = 1024
_TWO_DIGITS = 10
_THREE_DIGITS = 100


class Row(NamedTuple):
    """Line of the table."""

    cells: Sequence[str]
    is_zone: bool
    is_bad: bool
    """True for a node that failed to answer."""


class Screen(Protocol):
    """Context manager that shows tables. It restores the terminal at its end."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, table: LoadTable) -> None:
        """Show a table in place of the last one, or below it."""


class LineScreen:
    """Output without control characters. Each table is printed below the last one."""

    def __init__(self, write: Callable[[str], None], form: Callable[[LoadTable], str]) -> None:
        """Make a screen that prints the text `form(table)` with `write`."""
        self._write = write
        self._form = form

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, table: LoadTable) -> None:
        """Print the table."""
        self._write(self._form(table))


class LiveScreen:
    """Table that is redrawn in place."""

    def __init__(self, console: Console, hint: str) -> None:
        """Make a screen on a terminal. `hint` is shown below the table."""
        self._hint = hint
        self._live = Live(Text(f"waiting for the first interval; {hint}"), console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        self._live.refresh()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, table: LoadTable) -> None:
        """Draw the table again."""
        self._live.update(table_of(table, self._hint), refresh=True)


def table_of(table: LoadTable, hint: str = "") -> RenderableType:
    """Return the table for a terminal, with the problems and `hint` below it."""
    made = Table(title=_title(table), title_justify="left", box=None, padding=(0, 1, 0, 0))
    for index, title in enumerate(TITLES):
        made.add_column(title, justify="left" if index < LEFT_COLUMNS else "right", no_wrap=True)
    for row in rows(table):
        made.add_row(*map(Text, row.cells), style="bold" if row.is_zone else "red" if row.is_bad else "")
    return Group(made, *(Text(line, style="red") for line in problems(table)), Text(hint, style="dim"))


def plain_text(table: LoadTable) -> str:
    """Return the table as lines of text, with an empty line at the end."""
    lines = [TITLES, *(row.cells for row in rows(table))]
    widths = [max(len(line[index]) for line in lines) for index in range(len(TITLES))]
    text = [_title(table)]
    for line in lines:
        cells = (
            f"{cell:<{width}}" if index < LEFT_COLUMNS else f"{cell:>{width}}"
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        text.append("  ".join(cells).rstrip())
    return "\n".join([*text, *problems(table), ""])


def json_text(table: LoadTable) -> str:
    """Return the table as a JSON object on one line."""
    return to_json({"at": table.at, "zones": [_zone_fields(zone) for zone in table.zones]})


def _zone_fields(zone: ZoneLoad) -> dict[str, Any]:
    return {
        "name": zone.name,
        "mode": zone.mode,
        "local": zone.is_local,
        "nodes": [
            {
                "node": node.node,
                "address": node.address,
                "state": node.state,
                "circuit": node.circuit,
                "error": node.error,
                **asdict(node.figures),
            }
            for node in zone.nodes
        ],
        "total": asdict(zone.total),
    }


def rows(table: LoadTable) -> Iterator[Row]:
    """Yield the rows of a table: each zone with its totals, and its nodes below it."""
    for zone in table.zones:
        up = sum(node.has_answer for node in zone.nodes)
        label = f"{zone.name}{'*' if zone.is_local else ''}"
        marks = f"{up}/{len(zone.nodes)} up{'' if zone.mode == Mode.READ_WRITE else f' {zone.mode}'}"
        yield Row((label, marks, *cells(zone.total)), is_zone=True, is_bad=False)
        for node in zone.nodes:
            yield Row((f"  {node.node}", node.circuit, *cells(node.figures)), is_zone=False, is_bad=node.error is not None)


def problems(table: LoadTable) -> list[str]:
    """Return a line for each node that failed to answer."""
    return [
        f"{zone.name} {_named(node)}: {node.error}" for zone in table.zones for node in zone.nodes if node.error is not None
    ]


def _named(node: NodeLoad) -> str:
    return node.node if node.node == node.address else f"{node.node} at {node.address}"


def _title(table: LoadTable) -> str:
    local = next((zone.name for zone in table.zones if zone.is_local), None)
    return table.at if local is None else f"{table.at}  *: local zone {local}"


def cells(figures: Figures) -> tuple[str, ...]:
    """Return the figures as the texts of the columns."""
    return (
        count(figures.gets),
        count(figures.sets),
        UNKNOWN if figures.hit_ratio is None else f"{figures.hit_ratio:.1%}",
        UNKNOWN if figures.latency is None else f"{figures.latency * 1000:.2f} ms",
        _pair(figures.memory_used, figures.memory_limit, size),
        count(figures.evictions),
        _pair(figures.connections, figures.connection_limit, count),
        size(figures.bytes_in),
        size(figures.bytes_out),
    )


def _pair(used: float | None, limit: float | None, form: Callable[[float | None], str]) -> str:
    return UNKNOWN if used is None and limit is None else f"{form(used)}/{form(limit)}"


def count(number: float | None) -> str:
    """Return a number with at most four characters and a suffix: k for thousands, M and G above."""
    return _scaled(number, _THOUSAND, ("", "k", "M", "G"))


def size(number: float | None) -> str:
    """Return a number of bytes. K, M, G and T are powers of 1024."""
    return _scaled(number, _KIBI, ("", "K", "M", "G", "T"))


def _scaled(number: float | None, base: int, suffixes: Sequence[str]) -> str:
    if number is None:
        return UNKNOWN
    step = 0
    while number >= base - 0.5 and step < len(suffixes) - 1:
        number /= base
        step += 1
    digits = 1 if 0 < number < (_THREE_DIGITS if step else _TWO_DIGITS) and number != int(number) else 0
    return f"{number:.{digits}f}{suffixes[step]}"
