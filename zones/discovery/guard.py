"""Guard against a topology that removes too much at once. Plain functions of topologies and times, without I/O.

A source may lose most of its entries because of a fault of its own, while the servers are healthy. Slack's outage of
2022-02-22 began in this way: its cache nodes left the ring faster than their data could be loaded again. The guard
holds such a topology back until the removed nodes were absent for long enough, or until an operator confirms it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from evcache.zones.topology.model import NOT_FOUND, Endpoint, Topology, Zone
from evcache.zones.validation import fraction, positive_seconds

# The share of a zone's nodes that may be down before the zone is ejected, see `evcache.zones.routing.zone_order`.
MAX_REMOVED_SHARE = 1 / 3

# Longer than the restart of a name server or an API server, and the interval at which most sources are asked (30 s).
HOLD_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class TopologyGuard:
    """Limits of a change that the client applies at once."""

    max_removed: float = MAX_REMOVED_SHARE
    """Largest fraction of the nodes of a zone, and of all zones, that may leave or move within `hold` seconds. One node may
    always leave, and nodes that are down may."""

    hold: float = HOLD_SECONDS
    """Seconds for which a larger change is held back. The client then applies it, if its nodes are still absent and its
    source works."""

    def __post_init__(self) -> None:
        fraction(self.max_removed, "max_removed")
        positive_seconds(self.hold, "hold")


class Verdict(NamedTuple):
    """Decision about one topology."""

    held: dict[str, str]
    """Zones whose nodes are held back, with the reasons. Empty if the topology may be used as it is."""
    again_at: float
    """Time at which the decision may differ for the same topology, if a zone is held back."""


class Removal(NamedTuple):
    """A node with data that left a topology, or got another address."""

    at: float
    zone: str


Place = tuple[str, Endpoint]
"""Zone and address of a node."""


class RemovalLimiter:
    """Decision about each topology of one source, with the removals that it remembers for it."""

    def __init__(self, limits: TopologyGuard, is_down: Callable[[str, Endpoint], bool] = lambda _zone, _node: False) -> None:
        """Make a limiter that has seen no topology.

        Args:
            limits: Limits of a change.
            is_down: Return True if a node of a zone has been down for a while. Its data is lost for now in any case.
        """
        self._limits = limits
        self._is_down = is_down
        self._absent_since: dict[Place, float] = {}
        self._added_at: dict[Place, float] = {}  # nodes that have no data yet
        self._removed: list[Removal] = []  # those in use that still count

    def judge(self, current: Topology, new: Topology, now: float) -> Verdict:
        """Return the decision about a topology.

        Args:
            current: Topology in use.
            new: Topology that the source reports.
            now: Time in seconds, on any clock that does not go backwards.
        """
        hold = self._limits.hold
        self._added_at = {place: at for place, at in self._added_at.items() if at + hold > now}
        self._removed = [removal for removal in self._removed if removal.at + hold > now]
        missing = {zone.name: self._missing(zone, new.zone(zone.name)) for zone in current.zones}
        absent = _places(current) - _places(new)
        self._absent_since = {place: self._absent_since.get(place, now) for place in absent}
        # Nodes that have been absent for long enough leave in any case.
        waiting = {
            name: [place for place in places if self._absent_since[place] + hold > now] for name, places in missing.items()
        }
        held: dict[str, str] = {}
        lost, total = len(self._removed) + sum(map(len, waiting.values())), 0
        for zone in current.zones:
            leaving = len(waiting[zone.name])
            left = sum(removal.zone == zone.name for removal in self._removed)
            before = left + sum(self._has_data(zone.name, node) for node in zone.nodes)
            total += before
            if leaving and new.zone(zone.name) is None:
                held[zone.name] = f"zone {zone.name} is missing"
            elif leaving and leaving + left > self._allowed(before):
                held[zone.name] = f"zone {zone.name} loses {leaving + left} of {before} nodes"
        if lost > self._allowed(total):
            for name, places in waiting.items():
                if places:
                    held.setdefault(name, f"zone {name} is one of several that lose {lost} of {total} nodes")
        ends = [self._absent_since[place] + hold for name in held for place in waiting[name]]
        return Verdict(held, min([*ends, *(removal.at + hold for removal in self._removed)]) if held else now)

    def removals(self, current: Topology, new: Topology, now: float) -> list[Removal]:
        """Return the removals of a change that count against later ones: those that have not waited for the whole hold."""
        places = [place for zone in current.zones for place in self._missing(zone, new.zone(zone.name))]
        found = [Removal(self._absent_since.get(place, now), place[0]) for place in places]
        return [removal for removal in found if removal.at + self._limits.hold > now]

    def applied(self, current: Topology, new: Topology, now: float, removals: Sequence[Removal] = ()) -> None:
        """Note that `new` is in use from now on, in place of `current`, with removals that count from now on."""
        self._removed += removals
        before, after = _places(current), _places(new)
        self._absent_since = {place: at for place, at in self._absent_since.items() if place in after}
        added = dict.fromkeys(after - before, now)
        self._added_at = {place: at for place, at in self._added_at.items() if place in after} | added

    def _missing(self, zone: Zone, after: Zone | None) -> list[Place]:
        """Return the nodes with data that a zone loses. A node with another address is lost, because its data is."""
        kept = () if after is None else set(after.nodes)
        # A zone that leaves is kept for a while in any case: another process may reach it.
        return [
            (zone.name, node)
            for node in zone.nodes
            if node not in kept and (after is None or not self._is_down(zone.name, node)) and self._has_data(zone.name, node)
        ]

    def _has_data(self, zone: str, node: Endpoint) -> bool:
        return (zone, node) not in self._added_at and node != NOT_FOUND

    def _allowed(self, nodes: int) -> int:
        return max(1, int(nodes * self._limits.max_removed))


def restrained(current: Topology, new: Topology, held: Collection[str]) -> Topology:
    """Return the topology that is used while some zones are held back.

    Zones that are held back keep their nodes, and get their new modes. Zones that are not known yet do not join, because
    they may belong to another cluster.

    Args:
        current: Topology in use.
        new: Topology that the source reports.
        held: Names of the zones that are held back.

    Raises:
        InvalidTopology: No zone could be read.
    """
    keeping = set(held)
    while True:
        kept = {address for zone in current.zones if zone.name in keeping for address in _addresses(zone)}
        # A server that moves from a zone that is held back to another one would count in both.
        gaining = {
            zone.name
            for zone in current.zones
            if zone.name not in keeping and kept & (_addresses(new.zone(zone.name)) - _addresses(zone))
        }
        if not gaining:
            break
        keeping |= gaining
    zones: list[Zone] = []
    for zone in current.zones:
        after = new.zone(zone.name)
        if zone.name not in keeping:
            zones += [] if after is None else [after]
        elif after is None:
            zones.append(zone)
        else:
            zones.append(replace(after, nodes=zone.nodes))
    return Topology(tuple(zones))


def _addresses(zone: Zone | None) -> set[str]:
    return set() if zone is None else {node.address for node in zone.nodes if node.host}


def _places(topology: Topology) -> set[Place]:
    return {(zone.name, node) for zone in topology.zones for node in zone.nodes}
