"""Zones whose nodes are looked up one zone at a time: in DNS, or at a configuration endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from evcache.zones.discovery.polling import Look, PolledDiscovery
from evcache.zones.errors import DiscoveryError, InvalidTopology
from evcache.zones.topology.model import NOT_FOUND, Endpoint, Mode, Topology, Zone
from evcache.zones.validation import has_methods, positive_seconds

# Seconds between looks. Names in Kubernetes' CoreDNS live for 30 s. The time to live of an answer applies instead, if it is
# known.
LOOKUP_SECONDS = 30.0

# Seconds for the lookup of one zone.
LOOKUP_TIMEOUT_SECONDS = 5.0

# Seconds until the next look while the lookup of a zone fails.
RETRY_SECONDS = 5.0

# Limits in seconds of the pause that the lifetime of an answer sets. Some answers live for a second or not at all. A
# lifetime of a week must not keep the client from servers that moved.
SHORTEST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 300.0


class FoundNodes(NamedTuple):
    """Result of one lookup."""

    nodes: tuple[Endpoint, ...]
    """Nodes, at least one."""
    lifetime: float | None = None
    """Seconds for which the answer may be used. If None, the interval of the discovery applies."""


class NodeSource(Protocol):
    """Source of the nodes of one zone."""

    async def nodes(self) -> FoundNodes:
        """Return the nodes of the zone. Any exception counts as a failure, and so does an answer without nodes."""
        ...


@dataclass(frozen=True)
class LookupZone:
    """A zone whose nodes are looked up."""

    name: str
    """Name of the zone."""
    sources: tuple[NodeSource | Endpoint, ...]
    """Sources of its nodes, and nodes that never change."""
    mode: Mode = Mode.READ_WRITE
    """Use of the zone."""

    def __post_init__(self) -> None:
        known = isinstance(self.sources, tuple) and all(
            isinstance(source, Endpoint) or has_methods(source, "nodes") for source in self.sources
        )
        if not known:
            problem = f"zone {self.name!r}: a tuple of Endpoint or NodeSource is required, not {self.sources!r}"
            raise InvalidTopology("zones", problem)


class LookupDiscovery(PolledDiscovery):
    """Topology of zones whose nodes are looked up, all at once.

    If the lookup of a zone fails, its last nodes stay, and the other zones change as found. A zone that has never been found
    has the node `NOT_FOUND` until its lookup first succeeds. Without it, consistency levels would count fewer zones.
    """

    def __init__(
        self,
        zones: Sequence[LookupZone],
        *,
        interval: float = LOOKUP_SECONDS,
        timeout: float = LOOKUP_TIMEOUT_SECONDS,
    ) -> None:
        """Make a source.

        Args:
            zones: Zones with the sources of their nodes.
            interval: Seconds between lookups, for sources whose answers have no time to live.
            timeout: Seconds for the lookup of one zone. All zones are looked up at the same time.

        Raises:
            InvalidArgument: An argument has a wrong type or value.
            InvalidTopology: There are no zones, a zone is named twice or has no sources, or no zone can be read.
        """
        if not isinstance(zones, list | tuple) or not all(isinstance(zone, LookupZone) for zone in zones):
            raise InvalidTopology("zones", f"a list of LookupZone is required, not {zones!r}")
        self._zone_timeout = positive_seconds(timeout, "timeout")
        # Each zone has the timeout for itself, because a zone that hangs must not hold up what is found for the others.
        super().__init__("lookup of zones", interval=interval, timeout=2 * self._zone_timeout)
        # Wrong zones are an error now, and not only once all lookups have succeeded.
        Topology(tuple(Zone(zone.name, _fixed(zone), zone.mode) for zone in zones))
        self._zones = tuple(zones)
        self._known: dict[str, tuple[Endpoint, ...]] = {}

    async def look(self) -> Look:
        """Return all zones, looked up now. A zone whose lookup fails keeps its last nodes, or is down if it has none.

        Raises:
            DiscoveryError: No zone that clients read is known.
        """
        found = await asyncio.gather(*(self._look_up(zone) for zone in self._zones))
        problems: dict[str, str] = {}
        lifetimes: list[float] = []
        for zone, outcome in zip(self._zones, found, strict=True):
            if isinstance(outcome, str):
                problems[zone.name] = f"zone {zone.name}: {outcome}"
            else:
                self._known[zone.name] = outcome.nodes
                if outcome.lifetime is not None:
                    lifetimes.append(outcome.lifetime)
        error = DiscoveryError(self.status.source, "; ".join(problems.values())) if problems else None
        if error is not None and not any(zone.mode is Mode.READ_WRITE and zone.name in self._known for zone in self._zones):
            raise error
        zones = tuple(Zone(zone.name, self._known.get(zone.name, (NOT_FOUND,)), zone.mode) for zone in self._zones)
        # A zone without an answer is asked again soon, also if the answers of the others live for long.
        pause = min(RETRY_SECONDS, self._interval) if problems else min(lifetimes, default=None)
        return Look(Topology(zones), pause, error, tuple(problems))

    async def _look_up(self, zone: LookupZone) -> FoundNodes | str:
        """Return the nodes of a zone, sorted by label, or the reason for which they are not known."""
        nodes: dict[str, Endpoint] = {}
        lifetimes: list[float] = []
        try:
            async with asyncio.timeout(self._zone_timeout) as limit:
                for source in zone.sources:
                    if isinstance(source, Endpoint):
                        nodes[source.label] = source
                        continue
                    found = await source.nodes()
                    nodes |= {node.label: node for node in found.nodes}
                    lifetimes.append(self._pause_after(found))
        except Exception as error:  # of any library; the last nodes of the zone must outlive all
            if limit.expired():
                return f"no answer in {self._zone_timeout:g} s"
            return str(error) or type(error).__name__
        if not nodes:
            return "the answer names no nodes"
        # Name servers rotate their answers. Sorted, an answer in another order is no other topology.
        return FoundNodes(tuple(nodes[label] for label in sorted(nodes)), min(lifetimes, default=None))

    def _pause_after(self, found: FoundNodes) -> float:
        if found.lifetime is None:
            return self._interval
        return min(max(found.lifetime, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)


def _fixed(zone: LookupZone) -> tuple[Endpoint, ...]:
    """Return the nodes of a zone that never change, or a placeholder for those that are not known yet."""
    if not zone.sources:
        raise InvalidTopology("zones", f"zone {zone.name!r} has no nodes")
    return tuple(source for source in zone.sources if isinstance(source, Endpoint)) or (NOT_FOUND,)
