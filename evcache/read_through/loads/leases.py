"""Leases: of all processes that miss a key, one gets the right to load it.

Source: Nishtala et al., "Scaling Memcache at Facebook", NSDI 2013. A lease is a *stub*, an empty item that memcached makes
for the first request of `mg <key> N<seconds>`. Its reply has the flag `W`, later replies have `Z`. The lease ends in one of
three ways: the value is stored over the stub, the process gives the lease back, or the stub expires.

A store that names the CAS of the stub fails if the key was written or deleted since. So a value that was loaded before a
change does not hide the change.

No stub can be made of a key that holds an item: a value past its TTL, or the tombstone of a delete. Then the stub stands
*beside* the key, under a name that no key can have. The name contains the CAS of the item to replace. If the key is written
or deleted, that stub has no effect on the next load. This holds for a load that began before the write. It also holds for
the stub that a failed loader leaves for its backoff.

A lease lives in one zone. That is the local zone, so one process of each zone loads. If the local node is down, it is the
first zone of an order that all clients share.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import secrets
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

from evcache.replication.commands.node_requests import capabilities_of, request_lease
from evcache.replication.hlc import MAX_CAS, NOT_A_VERSION, HybridLogicalClock, cas_of
from evcache.replication.reconcile import ZoneHit
from evcache.values.keys import MAX_KEY_BYTES
from evcache.values.ttl import TTL_GRANULARITY_SECONDS
from evcache.zones.errors import CacheError
from evcache.zones.nodes.node import Node
from evcache.zones.protocol.replies import Hit, Reply, read_hit
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.zone_pool import ZonePool

BESIDE = b"\x7f"
"""Byte behind the key in the name of the stub beside it. No key contains a control character."""
_DIGEST_HEX = 32


class NoLease(Enum):
    """Reason for which no lease was granted."""

    TAKEN = "taken"
    """Another process holds the lease."""
    UNREACHABLE = "unreachable"
    """No node answered, or its server has no leases."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Right of this process to load a key."""

    pool: ZonePool
    node: Node
    name: bytes
    """Key of the stub on the server."""
    token: int
    """CAS of the stub."""
    over: int | None
    """CAS of the item that the loaded value replaces. That is the stub itself if the key held nothing. If None, the version
    of the value decides."""
    over_until: float
    """Time on the loop's clock until which that item exists, unless the key is written or deleted."""


class Leases:
    """Requests for leases, and their return."""

    def __init__(self, hlc: HybridLogicalClock) -> None:
        self._hlc = hlc
        self.won = 0
        """Number of leases that were granted."""
        self.lost = 0
        """Number of requests that were refused because another process holds the lease."""

    async def take(self, view: ClusterSnapshot, key: bytes, seconds: int, deadline: float) -> Lease | ZoneHit | NoLease:
        """Ask for the lease of a key that seems to hold nothing.

        Returns:
            The lease; the item that the key holds after all; or the reason for which there is no lease.
        """
        until = _certain_until(seconds)
        granted = await self._ask(view, key, key, seconds, deadline)
        if isinstance(granted, NoLease):
            return granted
        pool, node, reply, hit = granted
        if not hit.leased:
            return ZoneHit(hit, pool.name, self._hlc.observe(hit.cas))
        return self._count(Lease(pool, node, key, hit.cas, hit.cas, until), reply)

    async def take_beside(
        self, view: ClusterSnapshot, key: bytes, seconds: int, deadline: float, over: ZoneHit, known: int = 0
    ) -> Lease | NoLease:
        """Ask for the lease of a key that holds an item to be replaced.

        Args:
            view: The zones.
            key: The key.
            seconds: Duration of the lease.
            deadline: End of the request, on the loop's clock.
            over: The item that `take` returned.
            known: Latest version of the key that this client knows. If the item is older, the lease is for replacing the
                known version, and the loaded value is stored by its version alone. The newer item may reach the zone at any
                moment. That is no reason to drop a value that was loaded after it.

        Returns:
            The lease, or the reason for which there is none.
        """
        is_stale_replica = over.version is not None and over.version < known
        name = beside(key, cas_of(known) if is_stale_replica else over.hit.cas)
        until = _certain_until(over.hit.ttl)
        granted = await self._ask(view, key, name, seconds, deadline)
        if isinstance(granted, NoLease):
            return granted
        pool, node, reply, hit = granted
        replaced = None if is_stale_replica or over.zone != pool.name else over.hit.cas
        return self._count(Lease(pool, node, name, hit.cas, replaced, until), reply)

    def give_back(self, lease: Lease, deadline: float) -> None:
        """Remove the stub, so that other processes may load. If that fails, the stub expires."""
        _delete_unanswered(lease.node, lease.name, lease.token, deadline)

    def extend(self, lease: Lease, seconds: float, deadline: float) -> None:
        """Keep the stub for some seconds after a failed load, so that no process loads. Failures are ignored."""
        connection = lease.node.connection()
        if connection is not None:
            with suppress(CacheError):
                connection.touch(lease.name, math.ceil(seconds), _no_waiter(), deadline)

    def _count(self, lease: Lease, reply: Reply) -> Lease | NoLease:
        if b"W" in reply.tokens:
            self.won += 1
            return lease
        self.lost += 1
        return NoLease.TAKEN

    async def _ask(
        self, view: ClusterSnapshot, key: bytes, name: bytes, seconds: int, deadline: float
    ) -> tuple[ZonePool, Node, Reply, Hit] | NoLease:
        place = view.ring_position(key)
        pool = _zone_of_lease(view, key, place)
        if pool is None:
            return NoLease.UNREACHABLE
        node = pool.node(place)
        cas = None
        try:
            await node.connected(deadline)
            capabilities = capabilities_of(node)
            if not capabilities.leases:
                return NoLease.UNREACHABLE
            # The CAS is older than every version, and differs from that of every other stub.
            cas = MAX_CAS - secrets.randbelow(NOT_A_VERSION) if capabilities.versions else None
            reply = await request_lease(node, name, seconds, deadline, cas)
            hit = read_hit(reply)
        except CacheError:
            return NoLease.UNREACHABLE
        except asyncio.CancelledError:
            if cas is not None:  # the lease may have been granted, and would block other processes until it expires
                _delete_unanswered(node, name, cas, deadline)
            raise
        return NoLease.UNREACHABLE if hit is None else (pool, node, reply, hit)


def _certain_until(seconds: int | None) -> float:
    """Return the time on the loop's clock until which an item exists that has these seconds left.

    -1 is an item without an end. None is an unknown end.
    """
    if seconds is None:
        return 0.0
    return math.inf if seconds < 0 else asyncio.get_running_loop().time() + seconds - TTL_GRANULARITY_SECONDS


def _delete_unanswered(node: Node, name: bytes, cas: int, deadline: float) -> None:
    """Delete the stub with this CAS, and ignore the reply. Creates no task, so it works during cancellation and close."""
    connection = node.connection()
    if connection is not None:
        with suppress(CacheError):
            connection.delete(name, _no_waiter(), deadline, cas)


def _no_waiter() -> asyncio.Future[Reply]:
    """Return a waiter that drops the reply."""
    waiter: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    waiter.cancel()
    return waiter


def beside(key: bytes, cas: int) -> bytes:
    """Return the name of the stub beside a key whose item with this CAS is to be replaced."""
    end = b"%b%016x" % (BESIDE, cas)
    if len(key) + len(end) <= MAX_KEY_BYTES:
        return key + end
    digest = hashlib.md5(key, usedforsecurity=False).hexdigest().encode()
    return key[: MAX_KEY_BYTES - len(end) - _DIGEST_HEX] + end + digest


def _zone_of_lease(view: ClusterSnapshot, key: bytes, place: int) -> ZonePool | None:
    """Return the preferred zone, or if its node is down, the first zone of the key's order whose node is up."""
    preferred = (pool for pool in view.readers if pool.name == view.preferred_zone)
    return next((pool for pool in (*preferred, *view.coordinators(key)) if not pool.node(place).is_down), None)
