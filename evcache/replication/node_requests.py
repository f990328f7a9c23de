"""Requests to one node, and their replies: one request, a pair in one packet, and a look at an item without its value."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from evcache.replication.reconcile import ABSENCES
from evcache.zones._tasks import unattended
from evcache.zones.errors import CacheError, NodeUnavailable
from evcache.zones.nodes.capabilities import Capabilities
from evcache.zones.nodes.node import Node
from evcache.zones.protocol import requests
from evcache.zones.protocol.fields import INSPECT_FIELDS, INSPECT_VALUE_FIELDS, Fields
from evcache.zones.protocol.operations import StoreMode
from evcache.zones.protocol.replies import Reply, decimal, number, token, unexpected


async def send_request(node: Node, line: bytes, deadline: float, data: bytes | None = None) -> Reply:
    """Send one request, and return its reply. Raises a `NodeError`."""
    connection, deadline = await node.connected_by(deadline)
    answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    connection.request(line, answer, deadline, data)
    return await answer


async def get(node: Node, key: bytes, fields: Fields, deadline: float, latest: float | None = None) -> Reply:
    """Read an item of one node, and return the reply. Raises a `NodeError`.

    `latest` is the end of the call, if another zone can serve the read as well: a `NodeSilent` may then come early.
    """
    connection, moved = await node.connected_by(deadline)
    answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    connection.get(key, fields, answer, moved, None if latest is None else latest + moved - deadline)
    return await answer


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


async def read_elsewhere_if_silent(node: Node, line: bytes, deadline: float, latest: float) -> Reply:
    """Send one read, and return its reply. Raises a `NodeError`, early a `NodeSilent` if the node sends nothing.

    `latest`: when its call ends.
    """
    connection, moved = await node.connected_by(deadline)
    answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    connection.read(line, answer, moved, latest + moved - deadline)
    return await answer


def send_request_soon(node: Node, line: bytes, deadline: float, loop: asyncio.AbstractEventLoop) -> asyncio.Future[Reply]:
    """Send a request, and return what its reply will be in; a `NodeError` if there is none. No task where none is needed."""
    connection = node.connection()
    if connection is None:
        return unattended(loop.create_task(send_request(node, line, deadline)))
    answer: asyncio.Future[Reply] = loop.create_future()
    try:
        connection.request(line, answer, deadline)
    except CacheError as error:
        answer.set_exception(error)
    return answer


async def send_both(
    node: Node, first: tuple[bytes, bytes | None], second: tuple[bytes, bytes | None], deadline: float
) -> tuple[Reply, Reply]:
    """Send two requests (line, data) in one packet, and return both replies. Raises a `NodeError`."""
    connection, deadline = await node.connected_by(deadline)
    loop = asyncio.get_running_loop()
    replies: tuple[asyncio.Future[Reply], asyncio.Future[Reply]] = (loop.create_future(), loop.create_future())
    try:
        for (line, data), reply in zip((first, second), replies, strict=True):
            connection.request(line, reply, deadline, data)
    except CacheError:  # the queue had no place for the second request, so nothing waits for the first
        replies[0].cancel()
        raise
    return await asyncio.gather(*replies)


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


def peek_request(key: bytes, *, value: bool = False) -> bytes:
    """Return the request whose reply `read_peek` reads. `value`: whether it asks for the value, too."""
    return requests.meta_get(key, b"v " + requests.INSPECT_FLAGS if value else requests.INSPECT_FLAGS)


def read_peek(reply: Reply) -> Peeked | None:
    """Return what a reply to an `peek_request` shows; None for nothing at all. Raises a `NodeError`."""
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
