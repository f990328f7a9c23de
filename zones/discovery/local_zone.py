"""Zone of this process: its setting, and its place in a topology."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evcache.zones.errors import InvalidTopology
from evcache.zones.topology.model import Topology, Zone
from evcache.zones.validation import flag, positive_seconds, text

AUTO = "auto"

# Seconds for all metadata services together. They are next to the machine and answer in milliseconds. A machine without one
# often drops the packets, and then waits for this time when the client opens.
FIND_SECONDS = 1.0

_log = logging.getLogger("evcache.zones.discovery")


@dataclass(frozen=True, slots=True)
class LocalZone:
    """Zone of this process, which is read first."""

    name: str = AUTO
    """Name of the zone. "auto" finds it from the environment, or from the metadata server of the cloud."""

    strict: bool = False
    """True if opening the client raises `InvalidTopology` when the zone is not found, or when the topology lacks it. If
    False, the client logs a warning, and reads the other zones."""

    timeout: float = FIND_SECONDS
    """Seconds for finding the zone, all metadata servers included."""

    def __post_init__(self) -> None:
        text(self.name, "name")
        flag(self.strict, "strict")
        positive_seconds(self.timeout, "timeout")


class LocalZonePlace:
    """Place of the local zone in each topology of one client."""

    def __init__(self, names: Sequence[str], *, strict: bool = False) -> None:
        """Make it.

        Args:
            names: Names that a topology may have for the zone of this process. Empty if there is no local zone.
            strict: True if the first topology must have the zone.
        """
        self.names = tuple(names)
        self._strict = strict
        self._located: set[str] = set()  # names of zones that lie in the local zone and have another name
        self._reported: set[str] | None = None  # zones of the last topology without the local zone

    def check(self, topology: Topology, *, first: bool) -> None:
        """Check that the topology has the local zone. Log the lack of it once for each list of zones.

        Args:
            topology: The topology.
            first: True for the first topology of a client.

        Raises:
            InvalidTopology: The first topology lacks the zone, and the setting is strict.
        """
        self._located |= {zone.name for zone in topology.zones if zone.location in self.names}
        names = tuple(zone.name for zone in topology.zones)
        if not self.names or self.find(topology.zones) is not None:
            self._reported = None
            return
        wanted, present = " or ".join(self.names), ", ".join(names)
        if self._strict and first:
            raise InvalidTopology("local_zone", f"{wanted!r} is not one of the zones: {present}")
        if self._reported != set(names):
            self._reported = set(names)
            _log.warning("the local zone %s is not in the topology: reads are spread over %s", wanted, present)

    def contains(self, zone: str) -> bool:
        """Return True if the zone of this name is, or lies in, the zone of this process. It may have left the topology."""
        return zone in self.names or zone in self._located

    def find(self, zones: Iterable[Zone]) -> str | None:
        """Return the name of the zone that is, or lies in, the zone of this process. None if there is none."""
        places = {zone.location or zone.name: zone.name for zone in zones}
        return next((places[name] for name in self.names if name in places), None)

    def name_in(self, topology: Topology | None) -> str | None:
        """Return the name that the topology has for the local zone, or else the preferred one. None without a local zone."""
        found = None if topology is None else self.find((*topology.standby, *topology.zones, *topology.readable))
        return found or next(iter(self.names), None)
