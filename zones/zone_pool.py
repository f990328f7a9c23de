"""Nodes of one zone, with the ring that assigns keys to them. A pool never changes; its nodes live on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar

from evcache.zones.nodes.node import Node
from evcache.zones.routing.ketama import Ring, ring_in_steps, ring_of
from evcache.zones.routing.zone_order import is_ejected
from evcache.zones.topology.model import Mode, Topology, Zone
from evcache.zones.transport.core import selected

# Rings of fewer nodes are made without a pause, which takes at most 10 ms.
YIELDING_NODES = 100

T = TypeVar("T")


class ZonePool:
    """The nodes of one zone."""

    def __init__(self, zone: Zone, nodes: Sequence[Node], ring: Ring | None = None) -> None:
        """Make a pool.

        Args:
            zone: The zone.
            nodes: Its nodes, in the order of the zone.
            ring: The ring of their labels. If None, it is made here if there are several nodes.
        """
        self.name = zone.name
        self.readable = zone.mode is Mode.READ_WRITE
        self.standby = zone.mode is Mode.STANDBY
        self.nodes = tuple(nodes)
        self.only = self.nodes[0] if len(self.nodes) == 1 else None
        """The node, if there is one alone."""
        if ring is None and len(nodes) > 1:
            ring = ring_of([node.label for node in nodes])
        self.ring = ring
        """Ring of the labels. None if there is one node."""

    def __repr__(self) -> str:
        nodes = (f"{node.label} {node.state}{' classic' if node.transport == 'classic' else ''}" for node in self.nodes)
        return f"<ZonePool {self.name} {', '.join(nodes)}>"

    def node(self, position: int) -> Node:
        """Return the node that holds the keys at this position, see `evcache.zones.routing.ketama.ring_position`."""
        return self.nodes[0] if self.ring is None else self.nodes[self.ring.owner(position)]

    def placement(self) -> tuple[Sequence[Node], Ring | None]:
        """Return the nodes that `node` chooses from, and the ring of their labels. The ring is None for one node."""
        return self.nodes, self.ring

    def batches(self, keys: Sequence[bytes], given: Sequence[T]) -> list[tuple[Node, Sequence[bytes], Sequence[T]]]:
        """Return the keys grouped by the node that holds them, with the items of `given` at the same places.

        Each node has at least one key.
        """
        if self.ring is None:
            return [(self.nodes[0], keys, given)] if keys else []
        groups = selected.SELECTED.group_by_owner(keys, given, *self.ring.arrays())
        return [(self.nodes[index], some, of_some) for index, (some, of_some) in groups.items()]

    @property
    def is_ejected(self) -> bool:
        """True if too many nodes are down, so that clients read the zone last."""
        return is_ejected(sum(node.is_down for node in self.nodes), len(self.nodes))

    def nodes_down(self) -> str:
        """Return the number of nodes that are down, as a text for logs."""
        return f"{sum(node.is_down for node in self.nodes)} of {len(self.nodes)} nodes are down"


async def make_rings(topology: Topology) -> dict[str, Ring]:
    """Return the rings of all zones with more than one node, by zone.

    The event loop runs other tasks every few milliseconds if a zone has `YIELDING_NODES` nodes or more.
    """
    rings: dict[str, Ring] = {}
    for zone in topology.zones:
        if len(zone.nodes) > 1:
            for ring in ring_in_steps([node.label for node in zone.nodes]):
                if ring is not None:
                    rings[zone.name] = ring
                if len(zone.nodes) >= YIELDING_NODES:
                    await asyncio.sleep(0)
    return rings
