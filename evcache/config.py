"""Defaults with their sources, and the checks of what a client is made with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from evcache.zones.cluster import check_local_zone
from evcache.zones.errors import InvalidTopology
from evcache.zones.topology.discovery import ZONE_VARIABLE, Discovery, FileDiscovery, StaticDiscovery
from evcache.zones.topology.model import Topology, Zone
from evcache.zones.validation import has_methods

Errors = Literal["raise", "miss"]
Ordering = Literal["newest", "arrival"]

# Over all zones tried. EVCache's attempts time out after 20 ms in the cloud and 750 ms elsewhere; a call that has not been
# answered in a tenth of a second is better served by what the cache is in front of.
READ_TIMEOUT_SECONDS = 0.1
# Nobody waits for a write as for a read, and one that times out has to be repaired.
WRITE_TIMEOUT_SECONDS = 0.5

# How long a delete is remembered by the zones. Longer than any repair or retry that could bring an older value.
TOMBSTONE_TTL_SECONDS = 60

# Of the reads that one zone has served, the share after which all zones are compared: each costs a request without a value
# to every zone, so 0.3 % more requests with three. What no failure and no other read has shown is found by these.
CHECK_SHARE = 0.001

# How long close() waits for writes that are on their way.
CLOSE_SECONDS = 2.0

ZonesArgument = str | os.PathLike[str] | Mapping[str, object] | Topology | Discovery


def discovery_from(zones: ZonesArgument, local_zone: str | None) -> Discovery:
    """The source of the topology behind the `zones` argument. No I/O: a file is read with the first call.

    Raises `InvalidTopology` for zones that can't be used, and for a local zone that is not one of them.
    """
    if isinstance(zones, str) and "=" in zones:
        topology = Topology.from_node_list(zones)
    elif isinstance(zones, str | os.PathLike):
        if not str(zones):
            raise InvalidTopology("zones", "it is empty")
        if Path(zones).suffix != ".toml":
            raise InvalidTopology("zones", f"{str(zones)!r} is neither zone=host:port,... nor the path of a .toml file")
        return FileDiscovery(zones)
    elif isinstance(zones, Topology):
        topology = zones
    elif isinstance(zones, Mapping):
        topology = Topology.from_mapping(_nodes_by_zone(zones))
    elif has_methods(zones, "load", "watch"):
        return zones
    else:
        raise InvalidTopology("zones", f"zones and their nodes are needed, not {zones!r}")
    check_local_zone(local_zone, topology)
    return StaticDiscovery(topology)


def _nodes_by_zone(zones: Mapping[str, object]) -> Mapping[str, list[str] | Zone]:
    return zones  # type: ignore[return-value]  # checked, zone by zone, where the topology is made


def local_zone_from(local_zone: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The zone this process runs in: as given, or from `EVCACHE_ZONE`; None when neither says."""
    if local_zone is None:
        return environment.get(ZONE_VARIABLE) or None
    if not isinstance(local_zone, str) or not local_zone:
        raise InvalidTopology("local_zone", f"the name of a zone is needed, not {local_zone!r}")
    return local_zone
