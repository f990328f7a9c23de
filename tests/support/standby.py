"""Topologies with two sets of zones, and clients whose topology changes while they run."""

from __future__ import annotations

from typing import Any

from evcache import EVCache
from evcache.zones import Mode, Topology, Zone
from tests.support.memory_zones import ChangingTopology, MemoryZones, pass_time
from tests.support.wires import Wires

OLD, NEW = "abc", "def"


def in_modes(topology: Topology, active: str, standby: str = "", write_only: str = "") -> Topology:
    """Return the topology with the named zones alone, in these modes."""
    modes = {
        **dict.fromkeys(active, Mode.READ_WRITE),
        **dict.fromkeys(standby, Mode.STANDBY),
        **dict.fromkeys(write_only, Mode.WRITE_ONLY),
    }
    return Topology(tuple(Zone(zone.name, zone.nodes, modes[zone.name]) for zone in topology.zones if zone.name in modes))


class MigratingClient:
    """A client, the source of its topology, and its wires."""

    def __init__(self, zones: MemoryZones, **options: Any) -> None:
        self._zones = zones
        self.source = ChangingTopology(in_modes(zones.topology, OLD, NEW))
        self.wires = Wires(zones.dial, zones.names)
        zones.dial = self.wires.dial  # type: ignore[method-assign]
        try:
            self.cache: EVCache = zones.client(zones=self.source, **options)
        finally:
            del zones.dial  # the method again

    async def use(self, active: str, standby: str = "", write_only: str = "") -> None:
        """Change the modes, and return when the client uses them."""
        self.source.change(in_modes(self._zones.topology, active, standby, write_only))
        await pass_time(0.01)


async def migrating(zones: MemoryZones, **options: Any) -> MigratingClient:
    """Return a client that is connected to six zones, of which the first three are read-write and the others standby."""
    client = MigratingClient(zones, **options)
    await zones.connect(client.cache)
    return client
