"""One zone at one moment: its nodes and the ring that says which of them holds a key. Immutable; the nodes live on."""

from __future__ import annotations

from collections.abc import Sequence

from evcache.zones.nodes.node import Node
from evcache.zones.routing.ketama import ring_of, ring_position
from evcache.zones.routing.zone_order import is_ejected
from evcache.zones.topology.model import Mode, Zone


class ZonePool:
    """The nodes of one zone."""

    def __init__(self, zone: Zone, nodes: Sequence[Node]) -> None:
        self.name = zone.name
        self.readable = zone.mode is Mode.READ_WRITE
        self.nodes = tuple(nodes)
        self._ring = ring_of([node.label for node in nodes]) if len(nodes) > 1 else None

    def __repr__(self) -> str:
        nodes = (f"{node.label} {node.state}{' classic' if node.transport == 'classic' else ''}" for node in self.nodes)
        return f"<ZonePool {self.name} {', '.join(nodes)}>"

    def node(self, place: int) -> Node:
        """The node that holds the keys at this place of the ring (`evcache.zones.routing.ketama.ring_position` of a key)."""
        return self.nodes[0] if self._ring is None else self.nodes[self._ring.owner(place)]

    def batches(self, keys: Sequence[bytes]) -> list[tuple[Node, Sequence[bytes]]]:
        """The keys by the node that holds them; no node without a key."""
        if self._ring is None:
            return [(self.nodes[0], keys)] if keys else []
        batches: dict[int, list[bytes]] = {}
        owner = self._ring.owner
        for key in keys:
            batches.setdefault(owner(ring_position(key)), []).append(key)
        return [(self.nodes[index], some) for index, some in batches.items()]

    @property
    def is_ejected(self) -> bool:
        """Whether so many of its nodes are down that the zone as a whole is read last."""
        return is_ejected(sum(node.is_down for node in self.nodes), len(self.nodes))

    def nodes_down(self) -> str:
        """How many of its nodes are down, for people."""
        return f"{sum(node.is_down for node in self.nodes)} of {len(self.nodes)} nodes are down"
