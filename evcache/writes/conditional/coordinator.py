"""Coordinator of a key: the zone that decides its conditional writes.

If every zone decided for itself, two callers could both win, each in another zone. So one zone decides, the *coordinator* of
the key. It is the same for every client as long as it is healthy. Its decision is then an ordinary write to the other zones.

`Coordinator.elect` returns the zone. `Coordinator.look` ensures that it holds the latest version of all zones within reach.
`evcache.writes.conditional.atomic` has the conditional writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from evcache.errors import CacheUnavailable
from evcache.replication.commands.node_requests import Peeked, peek
from evcache.replication.repair.read_repair import COMPARE_SHARE, ReadRepair
from evcache.replication.seen_versions import SeenVersions
from evcache.writes.conditional.compare_and_set import CompareAndSet
from evcache.zones.errors import CacheError, NodeError, NodeUnavailable
from evcache.zones.nodes.node import Node
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.zone_pool import ZonePool


class Coordinator:
    """Choice of the zone that decides a conditional write, and the look at the item that it holds."""

    def __init__(
        self,
        stores: CompareAndSet,
        repair: ReadRepair,
        seen_versions: SeenVersions,
        order: Callable[[Sequence[str]], Sequence[str]] | None = None,
    ) -> None:
        """Bind the parts of one client.

        Args:
            stores: Compare-and-set stores.
            repair: Copies of the latest version to other zones.
            seen_versions: Versions that the client has seen.
            order: Returns the names of readable zones in the order in which they decide. If None, the order depends on the
                key.
        """
        self.stores = stores
        self._order = order
        self._repair = repair
        self._seen_versions = seen_versions

    async def elect(self, operation: str, view: ClusterSnapshot, key: bytes, deadline: float) -> tuple[ZonePool, Node]:
        """Return the zone that decides about a key now, and its node: the first in the order of the key that can be reached.

        Args:
            operation: Name of the call, for errors.
            view: Zones.
            key: Qualified key.
            deadline: End of the call, on the loop's clock. Each zone gets an equal share of the time that is left.

        Raises:
            CacheUnavailable: No zone can be reached.
        """
        position = view.ring_position(key)
        failures: dict[str, CacheError] = {}
        pools = self._candidates(view, key)
        loop = asyncio.get_running_loop()
        for index, pool in enumerate(pools):
            node = pool.node(position)
            until = loop.time() + (deadline - loop.time()) / (len(pools) - index)
            try:
                await node.connected(until)
            except NodeError as error:  # nothing was sent, so the next zone may decide
                failures[pool.name] = error
            else:
                return pool, node
        raise CacheUnavailable(operation, failures)

    def _candidates(self, view: ClusterSnapshot, key: bytes) -> list[ZonePool]:
        """Return the readable zones in the order in which they decide about a key."""
        if self._order is None:
            return view.coordinators(key)
        by_name = {pool.name: pool for pool in view.readers}
        return [by_name[name] for name in self._order(tuple(by_name))]

    async def look(
        self, view: ClusterSnapshot, key: bytes, pool: ZonePool, node: Node, deadline: float, *, value: bool = False
    ) -> Peeked | None:
        """Copy the latest version to the coordinator's zone if it lacks it, and return the item that it holds then.

        A decision on an older version would undo the newer one. So the client asks all readable zones at once for the
        version that they hold, without the value. If another zone has a newer version, the client copies that first. The
        client always takes this round trip, because the zone can have missed a write of another client. Without versions,
        the zone decides on its own item.

        Args:
            view: Zones.
            key: Qualified key.
            pool: Zone of the coordinator.
            node: Node of the key in that zone.
            deadline: Time on the loop's clock.
            value: If True, the item comes with its value.

        Returns:
            The item. None if the zone holds none.

        Raises:
            NodeError: The coordinator's zone did not answer, or refused the latest version. Or it holds an older version
                than this client has seen, and a zone that may hold the newer one did not answer. Or no readable zone holds
                the key, and too few standby zones answered.
        """
        if not self.stores.is_versioned(node):
            return await peek(node, key, deadline, value=value)
        # Read before the look, because a concurrent call of this client may write a newer version while the zones answer.
        known = self._seen_versions.latest(key)
        seen, compared = await self._repair.catch_up(view, key, pool.name, node, deadline, value=value)
        if compared.is_uncertain:
            raise NodeUnavailable("no read-write zone holds the key, and too few standby zones answer", node.label)
        latest = compared.latest or 0
        if latest:
            self._seen_versions.note(key, latest)  # so that a read that follows is not older
        if seen is None or seen.absent:
            return seen
        version = self.stores.hlc.observe(seen.cas)
        if version is None or version >= max(known, latest):
            return seen
        if compared.failures:
            raise NodeUnavailable("a newer version is known, and a zone that may have it does not answer", node.label)
        # This client has seen a newer version, which is gone from every zone. The key counts as absent, as in a read.
        return seen._replace(absent=True)

    async def copy_latest(self, view: ClusterSnapshot, key: bytes, deadline: float) -> None:
        """Copy the latest version of a key to the zones without it, within a share of the time until the deadline.

        Zones that do not answer are left out.
        """
        now = view.loop.time()
        await self._repair.compare_and_repair(view, key, now + (deadline - now) * COMPARE_SHARE)
