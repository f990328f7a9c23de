"""Look at one key in all zones at once. It changes nothing on the servers, except the token of an item marked stale.

A server gives one reader of an item with a stale mark the right to replace it. Each read through the meta protocol takes
that right. No client of this project uses it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from evcache.admin.key.report import ZoneRoles
from evcache.replication.commands.node_requests import get
from evcache.zones.errors import CacheError
from evcache.zones.nodes.node import Node
from evcache.zones.protocol.fields import REPORT_FIELDS
from evcache.zones.protocol.replies import AnyReply, read_hit
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.zone_pool import ZonePool


@dataclass(frozen=True, slots=True)
class ZoneLook:
    """Reply of the node that holds a key in one zone."""

    pool: ZonePool
    node: Node
    reply: AnyReply | CacheError
    """The reply, or the error if the node did not answer."""


async def look_at_key(view: ClusterSnapshot, key: bytes, deadline: float) -> list[ZoneLook]:
    """Read a key from every zone, write-only ones included. The reads do not count as uses of the item.

    Cancellation abandons the requests.

    Args:
        view: The zones.
        key: Key with its namespace.
        deadline: Time on the loop's clock.

    Returns:
        A look for each zone, in the order of the topology.
    """
    position = view.ring_position(key)
    return list(await asyncio.gather(*(_look(pool, pool.node(position), key, deadline) for pool in view.writers)))


async def _look(pool: ZonePool, node: Node, key: bytes, deadline: float) -> ZoneLook:
    try:
        reply = await get(node, key, REPORT_FIELDS, deadline)
        read_hit(reply)  # raises the error that a reply may be
    except CacheError as error:
        return ZoneLook(pool, node, error)
    return ZoneLook(pool, node, reply)


def roles_of(view: ClusterSnapshot) -> ZoneRoles:
    """Return the names of the zones by their use."""
    read = {pool.name for pool in view.read_order}
    return ZoneRoles(
        readable=[pool.name for pool in view.readers],
        standby=[pool.name for pool in view.standby],
        write_only=[pool.name for pool in view.writers if pool.name not in read],
    )
