"""Touch: a new time to live for a value, in every zone that holds it.

A touch applies to values alone. It must not prolong a tombstone, a remembered absence or the stub of a lease, nor shorten
a tombstone, by which deletes would be forgotten. memcached's own touch does not check what it touches, so the client
looks at each zone first. Where zones keep versions, the touch then names the version that was seen.

A touch makes no new version. The client sends it later to a zone that missed it, for the version that the other zones
touched.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, ClassVar

from evcache.replication.commands.command import NEEDS_PEEK, NeedsPeek
from evcache.replication.commands.node_requests import capabilities_of, delete, guarded_touch, peek, touch
from evcache.replication.hlc import NOTHING_NEWER, HybridLogicalClock, cas_of
from evcache.replication.reconcile import ABSENCES
from evcache.results import ACKNOWLEDGED, Outcome
from evcache.values.flags import FLAG_ENVELOPE
from evcache.zones.errors import ServerError
from evcache.zones.nodes.capabilities import Capabilities
from evcache.zones.nodes.node import Node
from evcache.zones.protocol.replies import ERROR_STATUSES, Reply, number, unexpected
from evcache.zones.transport.base import Transport
from evcache.zones.transport.in_flight import Waiter


class TouchCommand:
    """New TTL for the value of a key, in each zone that holds one."""

    __slots__ = ("_hlc", "_known", "_looked", "is_wrapped", "key", "ttl", "version")

    acknowledged: ClassVar[frozenset[Outcome]] = ACKNOWLEDGED
    fence = NOTHING_NEWER

    def __init__(self, hlc: HybridLogicalClock, key: bytes, *, ttl: int, known: int = 0) -> None:
        """Make a touch.

        Args:
            hlc: Clock that observes the versions on servers.
            key: Qualified key.
            ttl: Exptime: the TTL in the form that memcached takes.
            known: Latest version that the client has seen. An older value is not touched. 0 if there is none.
        """
        self._hlc = hlc
        self._known = known
        self._looked = asyncio.Event()
        self.key = key
        self.ttl = ttl
        self.version: int | None = None
        """Latest version that a zone has touched."""
        self.is_wrapped = False
        """True if a zone holds an envelope, which has times of its own: the client must write it with new times."""

    def send(self, connection: Transport, capabilities: Capabilities, waiter: Waiter, deadline: float) -> NeedsPeek:
        """Send nothing, because each node must be looked at first (see `Command`)."""
        del connection, capabilities, waiter, deadline
        return NEEDS_PEEK

    async def peek_and_apply(self, node: Node, deadline: float) -> Outcome:
        """Look at the item that the node holds, and touch it if it is a value. Raises a `NodeError`."""
        while True:
            seen = await peek(node, self.key, deadline)
            self.is_wrapped = self.is_wrapped or (seen is not None and seen.flags == FLAG_ENVELOPE)
            self._looked.set()
            if seen is None or seen.absent:
                return Outcome.NOT_FOUND
            if seen.flags == FLAG_ENVELOPE:
                return Outcome.NOT_STORED
            version = self._hlc.observe(seen.cas)
            if version is not None and version < self._known:
                return Outcome.NOT_FOUND  # the zone has missed a write of this client
            if version is None or not capabilities_of(node).versions:
                return _interpret_plain(await touch(node, self.key, self.ttl, deadline))
            outcome = await touch_version(node, self.key, version, self.ttl, deadline)
            if outcome is Outcome.STORED:
                self.version = max(version, self.version or 0)
            if outcome is not Outcome.EXISTS:
                return outcome
            # A client wrote the key between the look and the touch: look again.

    async def wait_until_looked(self, deadline: float) -> None:
        """Wait until a zone has answered the look, or until the deadline, on the loop's clock."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._looked.wait()


async def touch_version(node: Node, key: bytes, version: int, ttl: int, deadline: float) -> Outcome:
    """Set the exptime of exactly this version.

    Returns:
        `STORED`. `EXISTS` if the node holds another version, and `NOT_FOUND` if it holds no item.

    Raises:
        NodeError: The node did not answer.
    """
    replies = await guarded_touch(node, key, ttl, cas_of(version), deadline)
    # The second command only clears the stale mark that the first one leaves. If it is refused, the item has been written
    # since, or keeps the mark: readers accept a marked value.
    return _interpret_compared(replies[0])


async def remove_version(node: Node, key: bytes, version: int, deadline: float) -> Outcome:
    """Remove exactly this version, which has expired in the other zones. Returns as `touch_version` does."""
    return _interpret_compared(await delete(node, key, deadline, cas_of(version)))


_COMPARED: dict[bytes, Outcome] = {b"HD": Outcome.STORED, b"EX": Outcome.EXISTS, b"NF": Outcome.NOT_FOUND}


def _interpret_compared(reply: Reply) -> Outcome:
    outcome = _COMPARED.get(reply.status)
    if outcome is None:
        raise unexpected(reply)
    return outcome


def _interpret_plain(reply: Any) -> Outcome:
    """Return the outcome of a touch without a compare. A server that reports no flags keeps no tombstones."""
    if reply.status == b"EN":
        return Outcome.NOT_FOUND
    if reply.status == b"HD":
        has_flags = any(token[:1] == b"f" for token in reply.tokens)
        return Outcome.NOT_FOUND if has_flags and number(reply, b"f") in ABSENCES else Outcome.STORED
    if reply.status in ERROR_STATUSES:
        raise ServerError(reply.line.decode("latin-1"))
    raise unexpected(reply)
