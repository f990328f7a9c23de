"""Bytes that a client exchanged with each zone."""

from __future__ import annotations

from evcache.zones.transport.byte_counter import ByteCounter


class TrafficCounters:
    """Byte counters by the name of a zone.

    A counter belongs to the name. Nodes that leave, a zone that returns, and an end of the client do not reset it.
    """

    def __init__(self) -> None:
        self._counters: dict[str, ByteCounter] = {}

    def of(self, zone: str) -> ByteCounter:
        """Return the counter of a zone, for the nodes of the zone. The first call for a name creates it."""
        return self._counters.setdefault(zone, ByteCounter())

    def by_zone(self) -> dict[str, ByteCounter]:
        """Return the counters by zone. Any thread may call it."""
        return self._counters.copy()
