"""Requests to one node, and their replies: one request, a pair in one packet, and a look at an item without its value."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from evcache.replication.reconcile import ABSENCES
from evcache.zones._tasks import unattended
from evcache.zones.errors import CacheError, NodeUnavailable
from evcache.zones.nodes.capabilities import Capabilities
from evcache.zones.nodes.node import Node
from evcache.zones.protocol.fields import INSPECT_FIELDS, INSPECT_VALUE_FIELDS, Fields
from evcache.zones.protocol.operations import StoreMode
from evcache.zones.protocol.replies import AnyReply, Reply, decimal, number, token, unexpected


async def get(node: Node, key: bytes, fields: Fields, deadline: float, latest: float | None = None) -> AnyReply:
    """Read an item of one node, and return the reply. Raises a `NodeError`.

    `latest` is the end of the call, if another zone can serve the read as well: a `NodeSilent` may then come early.
    """
    connection, moved = await node.connected_by(deadline)
    return await connection.read(key, fields, moved, None if latest is None else latest + moved - deadline)


async def store(
    node: Node,
    key: bytes,
    data: bytes,
    flags: int,
    exptime: int,
    deadline: float,
    *,
    mode: StoreMode = "set",
    compare: int | None = None,
    cas: int | None = None,
) -> Reply:
    """Store a value in one node as `Transport.store` does, and return the reply. Raises a `NodeError`."""
    connection, deadline = await node.connected_by(deadline)
    answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    connection.store(key, data, flags, exptime, answer, deadline, mode=mode, compare=compare, cas=cas)
    return await answer


async def delete(node: Node, key: bytes, deadline: float, compare: int | None = None) -> Reply:
    """Delete an item of one node as `Transport.delete` does, and return the reply. Raises a `NodeError`."""
    connection, deadline = await node.connected_by(deadline)
    answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    connection.delete(key, answer, deadline, compare)
    return await answer


async def touch(node: Node, key: bytes, exptime: int, deadline: float) -> Reply:
    """Set the TTL of an item of one node, and return the reply. Raises a `NodeError`."""
    connection, deadline = await node.connected_by(deadline)
    answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    connection.touch(key, exptime, answer, deadline)
    return await answer


async def guarded_touch(node: Node, key: bytes, exptime: int, cas: int, deadline: float) -> list[Reply]:
    """Set the TTL of exactly the item with this CAS, and return the replies. Raises a `NodeError`."""
    connection, deadline = await node.connected_by(deadline)
    answer: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
    connection.guarded_touch(key, exptime, cas, answer, deadline)
    return await answer


async def replace_older(node: Node, key: bytes, data: bytes, flags: int, cas: int, deadline: float) -> list[Reply]:
    """Replace an item that is not newer, keep its TTL, and return the replies. Raises a `NodeError`."""
    connection, deadline = await node.connected_by(deadline)
    answer: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
    connection.replace_older(key, data, flags, cas, answer, deadline)
    return await answer


async def count(node: Node, key: bytes, delta: int, deadline: float, *, decrement: bool) -> Reply:
    """Add to a counter of one node, or subtract from it, and return the reply. Raises a `NodeError`."""
    connection, deadline = await node.connected_by(deadline)
    answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    connection.count(key, delta, answer, deadline, decrement=decrement)
    return await answer


async def count_and_peek(
    node: Node, key: bytes, delta: int, deadline: float, *, decrement: bool, compare: int, cas: int
) -> tuple[Reply, Reply]:
    """Count as `Transport.count` does, look at the result in the same packet, and return both replies.

    Raises:
        NodeError: The node did not answer. It may have counted.
    """
    connection, deadline = await node.connected_by(deadline)
    loop = asyncio.get_running_loop()
    counted: asyncio.Future[Reply] = loop.create_future()
    look: asyncio.Future[Reply] = loop.create_future()
    try:
        connection.count(key, delta, counted, deadline, decrement=decrement, compare=compare, cas=cas)
        connection.get(key, INSPECT_VALUE_FIELDS, look, deadline)
    except CacheError:  # the queue had no room for the second request, so no caller waits for the first
        counted.cancel()
        raise
    return await asyncio.gather(counted, look)


async def request_lease(node: Node, name: bytes, seconds: int, deadline: float, cas: int | None) -> Reply:
    """Read an item, or create a stub as `Transport.lease` does, and return the reply. Raises a `NodeError`."""
    connection, deadline = await node.connected_by(deadline)
    answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    connection.lease(name, seconds, answer, deadline, cas)
    return await answer


class Peeked(NamedTuple):
    """Item of a key, as a look without its value shows it."""

    flags: int
    cas: int
    ttl: int | None
    """Seconds left. -1 if the item does not expire, and None if the server does not report it."""
    absent: bool
    """True if readers miss: the item is a tombstone, a known absence, or the stub of a lease."""
    value: bytes | None = None
    """Value of the item. None if the request did not ask for it."""


async def peek(node: Node, key: bytes, deadline: float, *, value: bool = False) -> Peeked | None:
    """Return the item that a node holds under a key, or None if it holds none. Raises a `NodeError`."""
    return read_peek(await get(node, key, INSPECT_VALUE_FIELDS if value else INSPECT_FIELDS, deadline))


def peek_soon(
    node: Node, key: bytes, deadline: float, loop: asyncio.AbstractEventLoop, *, value: bool = False
) -> asyncio.Future[AnyReply]:
    """Send a look at once, and return the future of its reply, for `read_peek`. Its error is a `NodeError`.

    A task is created only if the node has no connection.
    """
    fields = INSPECT_VALUE_FIELDS if value else INSPECT_FIELDS
    connection = node.connection()
    if connection is None:
        return unattended(loop.create_task(get(node, key, fields, deadline)))
    answer: asyncio.Future[AnyReply] = loop.create_future()
    try:
        connection.get(key, fields, answer, deadline)
    except CacheError as error:
        answer.set_exception(error)
    return answer


def read_peek(reply: AnyReply) -> Peeked | None:
    """Return the item in the reply to a look, or None if the node holds none. Raises a `NodeError`."""
    if reply.status == b"EN":
        return None
    if reply.status not in (b"HD", b"VA"):
        raise unexpected(reply)
    flags = number(reply, b"f")
    ttl = token(reply, b"t")
    stub = token(reply, b"s") == b"0" and b"X" not in reply.tokens and not {b"W", b"Z"}.isdisjoint(reply.tokens)
    left = None if ttl is None else decimal(ttl)
    return Peeked(flags, number(reply, b"c"), left, stub or flags in ABSENCES, reply.value)


def capabilities_of(node: Node) -> Capabilities:
    """Return the features of the node's server. Raises `NodeUnavailable` if the client was never connected to it."""
    if node.capabilities is None:
        raise NodeUnavailable("it was never connected to", node.label)
    return node.capabilities
