"""Comparison of what the zones hold under one key. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from evcache.consistency import Consistency
from evcache.replication.commands.node_requests import Peeked
from evcache.replication.hlc import HybridLogicalClock, milliseconds_of
from evcache.zones.errors import CacheError
from evcache.zones.health.node_health import Outage
from evcache.zones.nodes.node import Node
from evcache.zones.protocol.replies import Hit


class StaleCopy(NamedTuple):
    """Zone without the latest version of a key, and the node that holds it."""

    zone: str
    key: bytes
    version: int
    """The latest version."""
    source: Node
    node: Node
    holds_older: bool
    """True if the zone holds an older version, and False if it holds nothing."""
    hit: Hit | None = None
    """Item that was read from the source, if its remaining TTL was read, too."""
    asked_at: float = 0.0
    """Time of that read, on the loop's clock."""

    @property
    def is_repairable(self) -> bool:
        """True if the zone's node is up, and orders writes by version."""
        capabilities = self.node.capabilities
        return not self.node.is_down and capabilities is not None and capabilities.versions


class Comparison(NamedTuple):
    """Content of the zones under one key, by version."""

    seen: dict[str, Peeked | None]
    """Item of each zone that answered, or None if it holds nothing."""
    failures: dict[str, CacheError]
    """Errors of the other zones."""
    latest: int | None
    """Latest version. None if no item has a version, or if the only one may be a deleted value."""
    stale: list[StaleCopy]
    """Zones that answered, and hold nothing or an older version."""
    is_uncertain: bool = False
    """True if a later version than those seen may exist in standby zones that did not answer (see `needs_more_standby`)."""

    def item_of(self, version: int, hlc: HybridLogicalClock) -> Peeked | None:
        """Return the item of this version, from any zone."""
        return next((item for item in self.seen.values() if item is not None and hlc.decode(item.cas) == version), None)


def compare_replicas(
    key: bytes, nodes: Mapping[str, Node], seen: Mapping[str, Peeked | None], versions: Mapping[str, int]
) -> tuple[Node, list[StaleCopy]] | None:
    """Find the latest version of a key, and the zones without it.

    Args:
        key: The key.
        nodes: Node of each zone that holds the key.
        seen: Item of each zone that answered, or None.
        versions: Version of each item that has one, by zone.

    Returns:
        The node with the latest version, and the stale copies. None if no item has a version. A zone with an item without a
        version is never stale.
    """
    if not versions:
        return None
    latest = max(versions.values())
    source = nodes[next(zone for zone, version in versions.items() if version == latest)]
    return source, [
        StaleCopy(zone, key, latest, source, nodes[zone], holds_older=item is not None)
        for zone, item in seen.items()
        if item is None or (zone in versions and versions[zone] < latest)
    ]


def needs_more_standby(
    seen: Mapping[str, Peeked | None], readable: Collection[str], standby: Collection[str], versions: Mapping[str, int]
) -> bool:
    """Return True if the standby zones decide what a key holds, and fewer than a quorum of them answered.

    They decide if no readable zone has an item of the key. That is usual after the two sets of zones have exchanged their
    modes, until the key was copied. A decision or a copy must not come from one standby zone that missed the last write.

    Args:
        seen: Item of each zone that answered, or None.
        readable: Names of the readable zones.
        standby: Names of the standby zones.
        versions: Version of each item that has one, by zone.
    """
    if not standby:
        return False
    for zone in readable:
        item = seen.get(zone)
        if zone in versions or (item is not None and not item.absent):
            return False
    return sum(zone in seen for zone in standby) < Consistency.QUORUM.required(len(standby))


def may_resurrect(
    outages: Iterable[Outage], version: int, loop_time: float, unix_time: float, tombstone_life: float
) -> bool:
    """Return True if a copy of this version could resurrect a deleted value.

    1. The node holds the version.
    2. An outage begins, and the node misses a delete.
    3. The tombstone of the delete expires in the other zones.
    4. The outage ends.

    Args:
        outages: Outages of the node that holds the version.
        version: The version.
        loop_time: Present time on the loop's clock, which the outages use.
        unix_time: Present unix time in seconds.
        tombstone_life: Shortest time until a tombstone expires, in seconds.
    """
    return any(
        loop_time - outage.began >= tombstone_life
        and milliseconds_of(version) < (unix_time - (loop_time - outage.ended)) * 1000
        for outage in outages
    )
