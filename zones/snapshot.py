"""The zones as one call sees them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from evcache.zones.health.loop_lag import LoopLag
from evcache.zones.health.node_health import HealthCounters
from evcache.zones.routing.ketama import ring_position
from evcache.zones.routing.zone_order import coordinator_order
from evcache.zones.topology.model import Topology
from evcache.zones.zone_pool import ZonePool


@dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """The zones as one call sees them. A call takes one snapshot and keeps it while the cluster changes."""

    topology: Topology
    local: str | None
    """Zone that is read first. None if this process runs in none of the zones."""
    writers: tuple[ZonePool, ...]
    """All zones."""
    readers: tuple[ZonePool, ...]
    """Readable zones in this client's order of reads. Ejected zones come last. Consistency levels count these."""
    standby: tuple[ZonePool, ...]
    """Standby zones (see `Mode.STANDBY`) in this client's order of reads."""
    read_order: tuple[ZonePool, ...]
    """Zones that a read may ask: the readable zones, then the standby zones."""
    preferred_zone: str
    """Zone of this client's reads while all nodes are healthy: the local zone, if there is one."""
    ejected: frozenset[str]
    """Readable zones of which too many nodes are down."""
    gutter: ZonePool | None
    """Nodes outside all zones, for keys that no zone can serve. None if there are none."""
    max_attempts: int
    """Number of places where a read may look: the zones of `read_order`, and the gutter if there is one."""
    sharded: bool
    """True if any zone has more than one node, so that the ring position of a key matters."""
    health: HealthCounters
    """Number of nodes that are not healthy, and the state of the zones."""
    lag: LoopLag
    """Lag of this process's event loop."""
    loop: asyncio.AbstractEventLoop
    """Event loop that the nodes belong to."""

    def ring_position(self, key: bytes) -> int:
        """Return the key's position on the rings of all zones. 0 if no zone has more than one node, without hashing."""
        return ring_position(key) if self.sharded else 0

    def gutter_position(self, key: bytes) -> int:
        """Return the key's position on the ring of the gutter."""
        return ring_position(key) if self.gutter is not None and len(self.gutter.nodes) > 1 else 0

    def coordinators(self, key: bytes) -> list[ZonePool]:
        """Return the readable zones in the order in which they may coordinate writes of this key, equal for all clients."""
        by_name = {pool.name: pool for pool in self.readers}
        return [by_name[name] for name in coordinator_order(key, tuple(by_name))]
