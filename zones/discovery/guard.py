"""Guard against a topology that removes too much at once. Plain functions of topologies and times, without I/O.

A source may lose most of its entries because of a fault of its own, while the servers are healthy. Slack's outage of
2022-02-22 began in this way: its cache nodes left the ring faster than their data could be loaded again. The guard
holds such a topology back until the removed nodes were absent for long enough, or until an operator confirms it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from evcache.zones.topology.model import Endpoint, Topology
from evcache.zones.validation import fraction, positive_seconds

# The share of a zone's nodes that may be down before the zone is ejected, see `evcache.zones.routing.zone_order`.
MAX_REMOVED_SHARE = 1 / 3

# Longer than the restart of a name server or an API server, and the interval at which most sources are asked (30 s).
HOLD_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class TopologyGuard:
    """Limits of a change that the client applies at once."""

    max_removed: float = MAX_REMOVED_SHARE
    """Largest fraction of a zone's nodes that may leave or move within `hold` seconds. One node always may."""

    hold: float = HOLD_SECONDS
    """Seconds for which a larger change is held back. The client then applies it, if its nodes are still absent."""

    def __post_init__(self) -> None:
        fraction(self.max_removed, "max_removed")
        positive_seconds(self.hold, "hold")


class Verdict(NamedTuple):
    """Decision about one topology."""

    reasons: tuple[str, ...]
    """Reasons for holding the topology back. Empty if it may be used."""
    again_at: float
    """Time at which the decision may differ for the same topology, if it is held back."""


class _Removal(NamedTuple):
    """A node that left a topology, or got another address."""

    at: float
    zone: str
    label: str


class RemovalLimiter:
    """Decision about each topology of one source, with the removals that it remembers for it."""

    def __init__(self, limits: TopologyGuard) -> None:
        self._limits = limits
        self._absent_since: dict[tuple[str, Endpoint], float] = {}
        self._removed: list[_Removal] = []  # those in use that still count

    def judge(self, current: Topology, new: Topology, now: float) -> Verdict:
        """Return the decision about a topology.

        Args:
            current: Topology in use.
            new: Topology that the source reports.
            now: Time in seconds, on any clock that does not go backwards.
        """
        hold = self._limits.hold
        missing = _missing(current, new)
        self._absent_since = {node: self._absent_since.get(node, now) for nodes in missing.values() for node in nodes}
        self._removed = [removal for removal in self._removed if removal.at + hold > now]
        reasons: list[str] = []
        again: list[float] = []
        for zone in current.zones:
            nodes = missing.get(zone.name, [])
            confirmed_at = max((self._absent_since[node] + hold for node in nodes), default=now)
            if not nodes or confirmed_at <= now:
                continue
            if new.zone(zone.name) is None:
                reasons.append(f"zone {zone.name} is missing")
                again.append(confirmed_at)
                continue
            earlier = [removal for removal in self._removed if removal.zone == zone.name]
            labels = {node.label for node in zone.nodes}
            before = len(labels) + sum(removal.label not in labels for removal in earlier)
            if len(nodes) + len(earlier) > max(1, int(before * self._limits.max_removed)):
                reasons.append(f"zone {zone.name} loses {len(nodes) + len(earlier)} of {before} nodes")
                again.append(min([confirmed_at, *(removal.at + hold for removal in earlier)]))
        return Verdict(tuple(reasons), min(again, default=now))

    def applied(self, current: Topology, new: Topology, now: float) -> None:
        """Note that `new` is in use from now on, in place of `current`. Removals that were held back count no more."""
        for zone, nodes in _missing(current, new).items():
            self._removed += [
                _Removal(now, zone, node[1].label) for node in nodes if self._absent_since.get(node, now) == now
            ]
        self._absent_since.clear()


def _missing(current: Topology, new: Topology) -> dict[str, list[tuple[str, Endpoint]]]:
    """Return the nodes that `new` lacks, by zone. A node with another address is missing, because its data is."""
    missing: dict[str, list[tuple[str, Endpoint]]] = {}
    for zone in current.zones:
        after = new.zone(zone.name)
        kept = () if after is None else set(after.nodes)
        gone = [(zone.name, node) for node in zone.nodes if node not in kept]
        if gone:
            missing[zone.name] = gone
    return missing
