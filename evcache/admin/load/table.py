"""Load of all zones and nodes at one moment. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from evcache.admin.load.rates import Rates, total, total_rates
from evcache.zones.admin.statistics import ServerStatistics


@dataclass(frozen=True, slots=True)
class Figures:
    """Load of a node, or of all nodes of a zone. A figure is None if it is unknown. Rates are per second."""

    gets: float | None = None
    sets: float | None = None
    hit_ratio: float | None = None
    """Share of the reads of the interval that found an item. None without reads."""
    latency: float | None = None
    """Round trip from this process in seconds: the median of the last probes. Of a zone, that of its slowest node."""
    memory_used: float | None = None
    """Bytes of the items."""
    memory_limit: float | None = None
    evictions: float | None = None
    connections: float | None = None
    connection_limit: float | None = None
    bytes_in: float | None = None
    bytes_out: float | None = None

    @classmethod
    def of(cls, statistics: ServerStatistics | None, rates: Rates, latency: float | None) -> Self:
        """Return the figures of a node.

        Args:
            statistics: Statistics of the server. None if it did not answer.
            rates: Its rates.
            latency: Median of the round trips in seconds, or None.
        """
        known = statistics or ServerStatistics()
        return cls(
            gets=rates.gets,
            sets=rates.sets,
            hit_ratio=rates.hit_ratio,
            latency=latency,
            memory_used=known.bytes,
            memory_limit=known.limit_maxbytes,
            evictions=rates.evictions,
            connections=known.curr_connections,
            connection_limit=known.max_connections,
            bytes_in=rates.bytes_in,
            bytes_out=rates.bytes_out,
        )


@dataclass(frozen=True, slots=True)
class NodeLoad:
    """Load and state of one node."""

    node: str
    """Label of the node."""
    address: str
    state: str
    """State of the node as this process sees it."""
    circuit: str
    """State of the node's circuit breaker in this process."""
    error: str | None
    """Cause for which figures are missing. None if the node answered each question."""
    rates: Rates
    figures: Figures

    @property
    def has_answer(self) -> bool:
        """True if the node answered at least one question."""
        return self.figures != Figures()


@dataclass(frozen=True, slots=True)
class ZoneLoad:
    """Load of one zone."""

    name: str
    mode: str
    is_local: bool
    nodes: Sequence[NodeLoad]
    total: Figures

    @classmethod
    def of(cls, name: str, mode: str, nodes: Sequence[NodeLoad], *, is_local: bool) -> Self:
        """Return the load of a zone from that of its nodes."""
        return cls(name, mode, is_local, nodes, _total(nodes))


@dataclass(frozen=True, slots=True)
class LoadTable:
    """Load of all zones."""

    at: str
    """Time in UTC, ISO 8601."""
    zones: Sequence[ZoneLoad]

    @property
    def has_answer(self) -> bool:
        """True if at least one node answered."""
        return any(node.has_answer for zone in self.zones for node in zone.nodes)


def _total(nodes: Sequence[NodeLoad]) -> Figures:
    figures = [node.figures for node in nodes]
    rates = total_rates(node.rates for node in nodes)
    return Figures(
        gets=rates.gets,
        sets=rates.sets,
        hit_ratio=rates.hit_ratio,
        latency=max((each.latency for each in figures if each.latency is not None), default=None),
        memory_used=total(each.memory_used for each in figures),
        memory_limit=total(each.memory_limit for each in figures),
        evictions=rates.evictions,
        connections=total(each.connections for each in figures),
        connection_limit=total(each.connection_limit for each in figures),
        bytes_in=rates.bytes_in,
        bytes_out=rates.bytes_out,
    )


def _share(used: float | None, limit: float | None) -> float | None:
    return None if used is None or not limit else used / limit


# Each measure is descending, except the hit ratio: the node with the lowest one needs a look first.
SORTS: Mapping[str, Callable[[Figures], float | None]] = {
    "gets": lambda figures: figures.gets,
    "sets": lambda figures: figures.sets,
    "hits": lambda figures: None if figures.hit_ratio is None else -figures.hit_ratio,
    "latency": lambda figures: figures.latency,
    "memory": lambda figures: _share(figures.memory_used, figures.memory_limit),
    "evictions": lambda figures: figures.evictions,
    "connections": lambda figures: _share(figures.connections, figures.connection_limit),
    "in": lambda figures: figures.bytes_in,
    "out": lambda figures: figures.bytes_out,
}
"""Measures to sort by. A measure that is None comes last."""


def sort_table(table: LoadTable, by: str | None) -> LoadTable:
    """Return the table with its zones, and the nodes of each zone, in the order of a measure.

    Args:
        table: The table.
        by: Name of the measure in `SORTS`. If None, the order of the topology stays.
    """
    if by is None:
        return table
    measure = SORTS[by]
    zones = [
        ZoneLoad(
            zone.name,
            zone.mode,
            zone.is_local,
            sorted(zone.nodes, key=lambda node: _rank(measure, node.figures)),
            zone.total,
        )
        for zone in sorted(table.zones, key=lambda zone: _rank(measure, zone.total))
    ]
    return LoadTable(table.at, zones)


def _rank(measure: Callable[[Figures], float | None], figures: Figures) -> tuple[bool, float]:
    value = measure(figures)
    return value is None, -(value or 0.0)
