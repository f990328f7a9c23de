"""Zones of a store with the connection of each, while each node has one connection."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from evcache.zones.routing.ketama import ring_position
from evcache.zones.transport.core.waiters import Connection, Zone


class Connections(Protocol):
    """Connections of a node."""

    @property
    def sole(self) -> Connection | None:
        """The connection, if there is one alone."""
        ...


class Node(Protocol):
    """Node of a zone, as a store looks at it."""

    @property
    def connections(self) -> Connections:
        """Return the connections. The object never changes."""
        ...

    @property
    def versioned_bytes(self) -> int:
        """Bytes of a key and its value that the server takes with a version. Negative if it takes no version."""
        ...


class Placement(NamedTuple):
    """Nodes of one zone, and the keys of each."""

    zone: str
    """Name of the zone."""
    counts: bool
    """True if the result of the zone counts towards the decision."""
    nodes: Sequence[Node]
    """Nodes of the zone."""
    points: array[int] | None
    """Points of the ring, in order. None if there is one node."""
    owners: array[int] | None
    """Index of the node of each point."""


class StoreZones:
    """The zones of one snapshot."""

    def __init__(self, placements: Sequence[Placement]) -> None:
        """Make it for the zones that a store is sent to."""
        self._targets = [
            (placement, [(placement.zone, placement.counts, node, node.connections) for node in placement.nodes])
            for placement in placements
        ]
        self._only: list[_Target] | None = None  # of zones with one node
        if all(placement.points is None for placement in placements):
            self._only = [target for _, (target,) in self._targets]

    def of(self, key: bytes, size: int) -> list[Zone] | None:
        """Return the zones with the connection to the node of a key. They have no lanes.

        Args:
            key: Qualified key.
            size: Bytes of the key and its value.

        Returns:
            The zones. None if a node has several connections or none, or does not take that number of bytes with a version.
        """
        zones: list[Zone] = []
        for name, counts, node, connections in self._only or self._targets_of(key):
            connection = connections.sole
            if connection is None or node.versioned_bytes < size:
                return None
            zones.append((name, counts, connection, None))
        return zones

    def _targets_of(self, key: bytes) -> Iterator[_Target]:
        position = ring_position(key)
        for (_, _, _, points, owners), targets in self._targets:
            if points is None or owners is None:
                yield targets[0]
                continue
            index = bisect_left(points, position)
            # Behind the last point, the ring continues with the first one.
            yield targets[owners[index if index < len(points) else 0]]


_Target = tuple[str, bool, Node, Connections]
