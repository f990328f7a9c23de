"""Writes that depend on what is there: `add`, `replace`, `cas`, `append`, `prepend`, `incr`, `decr`.

If every zone decided for itself, two callers could both win, each in another zone. So one zone decides: the *coordinator* of
the key, the same for every client as long as it is healthy. What it decided is then an ordinary write to the others.

`Coordinator.elect` returns the zone, and `Coordinator.look` makes sure that it holds the newest version that a zone within
reach holds. `evcache.writes.atomic` has the conditional writes.
"""

from __future__ import annotations

import asyncio

from evcache.errors import CacheUnavailable
from evcache.replication.node_requests import Peeked, peek
from evcache.replication.read_repair import ReadRepair
from evcache.replication.seen_versions import SeenVersions
from evcache.writes.compare_and_set import CompareAndSet
from evcache.zones.cluster import ClusterSnapshot
from evcache.zones.errors import CacheError, NodeError, NodeUnavailable
from evcache.zones.nodes.node import Node
from evcache.zones.zone_pool import ZonePool


class Coordinator:
    """Choice of the zone that decides a client's conditional writes of a key, and the look at what it holds."""

    def __init__(self, stores: CompareAndSet, repair: ReadRepair, remembered: SeenVersions) -> None:
        """Bind the parts of one client."""
        self.stores = stores
        self._repair = repair
        self._remembered = remembered

    async def elect(self, operation: str, view: ClusterSnapshot, key: bytes, deadline: float) -> tuple[ZonePool, Node]:
        """The zone that decides about a key now: the first in the key's order that can be reached.

        Raises `CacheUnavailable` when none can.
        """
        place = view.ring_position(key)
        failures: dict[str, CacheError] = {}
        pools = view.coordinators(key)
        loop = asyncio.get_running_loop()
        for index, pool in enumerate(pools):
            node = pool.node(place)
            until = loop.time() + (deadline - loop.time()) / (len(pools) - index)
            try:
                await node.connected(until)
            except NodeError as error:  # nothing was sent, so the next zone may decide
                failures[pool.name] = error
            else:
                return pool, node
        raise CacheUnavailable(operation, failures)

    async def look(
        self, view: ClusterSnapshot, key: bytes, pool: ZonePool, node: Node, deadline: float, *, value: bool = False
    ) -> Peeked | None:
        """Return what the coordinator's zone holds after it received the newest version; None if it holds nothing.

        A decision on an older version would undo the newer one. So the client asks all readable zones at once for the
        version that they hold, without the value. If another zone has a newer version, the client copies that first. The
        client always takes this round trip, because the zone can have missed a write of another client, of which this
        client knows nothing. Without versions, the zone decides on what it holds.

        Args:
            view: The zones.
            key: The key.
            pool: The coordinator's zone.
            node: Its node.
            deadline: On the loop's clock.
            value: Ask for the value that it holds, too.

        Raises:
            NodeError: The coordinator's zone did not answer, or refused the newest version. Or it holds an older version
                than this client knows of, and a zone that may hold the newer one did not answer.
        """
        if not self.stores.is_versioned(node):
            return await peek(node, key, deadline, value=value)
        # Read before the look, because a concurrent call of this client may write a newer version while the zones answer.
        known = self._remembered.latest(key)
        seen, compared = await self._repair.bring_up_to_date(view, key, pool.name, node, deadline, value=value)
        newest = compared.newest or 0
        if newest:
            self._remembered.note(key, newest)  # so that a read that follows is not older
        if seen is None or seen.absent:
            return seen
        version = self.stores.clock.observe(seen.cas)
        if version is None or version >= max(known, newest):
            return seen
        if compared.failures:
            raise NodeUnavailable("a newer version is known, and a zone that may have it does not answer", node.label)
        # This client knows of a newer version, which is gone from every zone. The key counts as absent, as in a read.
        return seen._replace(absent=True)
