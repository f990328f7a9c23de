"""Requests for keys of one server group, each sent to the node that holds its key."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from evcache.replication.commands import node_requests
from evcache.zones.errors import NodeError
from evcache.zones.nodes.node import Node
from evcache.zones.protocol.fields import COPY_FIELDS
from evcache.zones.protocol.operations import StoreMode
from evcache.zones.protocol.replies import AnyReply, Hit, Reply, read_hit
from evcache.zones.routing.ketama import ring_position
from evcache.zones.zone_pool import ZonePool

Loaded = Hit | NodeError | None
"""Item of a key. None is a miss. An error says that its node did not answer."""


class GroupRequests:
    """Requests to the nodes of one group. Keys are those that servers get."""

    def __init__(self, nodes: ZonePool) -> None:
        """Bind the nodes of a group."""
        self._nodes = nodes

    def _node(self, key: bytes) -> Node:
        return self._nodes.node(ring_position(key))

    async def read(self, keys: Sequence[bytes], deadline: float, latest: float | None) -> dict[bytes, Loaded]:
        """Read keys with one batch for each node, all at once. A node that fails gives its keys the error.

        Args:
            keys: Keys. A key may occur several times.
            deadline: See `Transport.get`.
            latest: See `Transport.get`.
        """
        unique = list(dict.fromkeys(keys))
        batches = self._nodes.batches(unique, unique)
        outcomes = await asyncio.gather(*(_read_batch(node, some, deadline, latest) for node, some, _ in batches))
        return {key: loaded for outcome in outcomes for key, loaded in outcome.items()}

    async def store(
        self,
        key: bytes,
        data: bytes,
        flags: int,
        exptime: int,
        deadline: float,
        *,
        mode: StoreMode = "set",
        compare: int | None = None,
    ) -> Reply:
        """Store an item, and return the reply. Raises a `NodeError`."""
        node = self._node(key)
        return await node_requests.store(node, key, data, flags, exptime, deadline, mode=mode, compare=compare)

    async def delete(self, key: bytes, deadline: float, compare: int | None = None) -> Reply:
        """Delete an item, and return the reply. Raises a `NodeError`."""
        return await node_requests.delete(self._node(key), key, deadline, compare)

    async def touch(self, key: bytes, exptime: int, deadline: float) -> Reply:
        """Set the TTL of an item, and return the reply. Raises a `NodeError`."""
        return await node_requests.touch(self._node(key), key, exptime, deadline)

    async def count(self, key: bytes, delta: int, deadline: float, *, decrement: bool) -> Reply:
        """Move a counter, and return the reply. Raises a `NodeError`."""
        return await node_requests.count(self._node(key), key, delta, deadline, decrement=decrement)


async def _read_batch(node: Node, keys: Sequence[bytes], deadline: float, latest: float | None) -> dict[bytes, Loaded]:
    try:
        connection, moved = await node.connected_by(deadline)
        answer: asyncio.Future[list[AnyReply | None]] = asyncio.get_running_loop().create_future()
        until = None if latest is None else latest + moved - deadline
        connection.get_many(keys, COPY_FIELDS, answer, moved, until)
        replies = await answer
    except NodeError as error:
        return dict.fromkeys(keys, error)
    return {key: _loaded(reply) for key, reply in zip(keys, replies, strict=True)}


def _loaded(reply: AnyReply | None) -> Loaded:
    if reply is None:
        return None
    try:
        hit = read_hit(reply)
    except NodeError as error:
        return error
    return None if hit is None or hit.leased else hit
