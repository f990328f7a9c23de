"""Leases: of all processes that miss a key, one is told to load it (Nishtala et al., "Scaling Memcache at Facebook", NSDI
2013).

A lease is a *stub*, an empty item that memcached makes for the first who asks (`mg <key> N<seconds>`): that one is told
so (`W`), the others that somebody is at work (`Z`). It ends when the value is stored over it, when its process gives it
back, or, if that has died, by itself. A store that names the stub's CAS fails if the key has been written or deleted
meanwhile, so a value that was loaded before a change does not hide it.

Where the key holds something already, a value that is out of date or the tombstone of a delete, no stub can be made of
it. Then the stub is made beside it, under a name that no key can have. The name contains the CAS of the item to
replace. So when the key is written or deleted, the stub has no meaning any more: neither a load that began before nor a
loader that has failed before, and whose stub is kept for a while, delays the next load.

A lease lives in one zone: the local one, so that one process in each zone loads. Where the local one can't be reached, in
the first of an order that is the same for all clients.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import secrets
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

from evcache.replication.hlc import MAX_CAS, NOT_A_VERSION, HybridLogicalClock, cas_of
from evcache.replication.node_requests import capabilities_of, send_request
from evcache.replication.reconcile import ZoneHit
from evcache.values.keys import MAX_KEY_BYTES
from evcache.values.ttl import TTL_GRANULARITY_SECONDS
from evcache.zones.cluster import ClusterSnapshot
from evcache.zones.errors import CacheError
from evcache.zones.nodes.node import Node
from evcache.zones.protocol import requests
from evcache.zones.protocol.replies import Hit, Reply, read_hit
from evcache.zones.zone_pool import ZonePool

# Follows a key's name in the name of the stub beside it. A control character, which no key has.
_BESIDE = b"\x7f"
_DIGEST_HEX = 32


class NoLease(Enum):
    """Why there is no lease."""

    TAKEN = "taken"
    """Somebody else is loading."""
    UNREACHABLE = "unreachable"
    """No zone could be asked, or its server can't do it."""


@dataclass(frozen=True, slots=True)
class Lease:
    """This process is the one that loads a key."""

    pool: ZonePool
    node: Node
    name: bytes
    """What the stub is stored under."""
    token: int
    """The stub's CAS."""
    over: int | None
    """The CAS of the item that the key holds, which the value is to replace: the stub's own, where the key held nothing.
    None: the version of the value decides."""
    over_until: float
    """Until then, on the loop's clock, that item is there, unless somebody has written or deleted the key."""


class Leases:
    """How one client gets leases, and gives them back."""

    def __init__(self, clock: HybridLogicalClock) -> None:
        self._clock = clock

    async def take(self, view: ClusterSnapshot, key: bytes, seconds: int, deadline: float) -> Lease | ZoneHit | NoLease:
        """Get the lease of a key that seems to hold nothing; what it does hold, if it is something after all."""
        until = _surely_until(seconds)
        asked = await self._ask(view, key, key, seconds, deadline)
        if isinstance(asked, NoLease):
            return asked
        pool, node, reply, hit = asked
        if not hit.leased:
            return ZoneHit(hit, pool.name, self._clock.observe(hit.cas))
        return Lease(pool, node, key, hit.cas, hit.cas, until) if b"W" in reply.tokens else NoLease.TAKEN

    async def take_beside(
        self, view: ClusterSnapshot, key: bytes, seconds: int, deadline: float, over: ZoneHit, known: int = 0
    ) -> Lease | NoLease:
        """Get the lease of a key that holds something which is to be replaced.

        `over`: what `take` has found. `known`: the newest version of the key that this client knows. If what was found is
        older, the lease is for replacing the known version, and the loaded value is stored by its version alone: the newer
        item may arrive in the zone at any moment, and is no reason to drop what was loaded after it.
        """
        is_behind = over.version is not None and over.version < known
        name = beside(key, cas_of(known) if is_behind else over.hit.cas)
        until = _surely_until(over.hit.ttl)
        asked = await self._ask(view, key, name, seconds, deadline)
        if isinstance(asked, NoLease):
            return asked
        pool, node, reply, hit = asked
        if b"W" not in reply.tokens:
            return NoLease.TAKEN
        return Lease(pool, node, name, hit.cas, None if is_behind or over.zone != pool.name else over.hit.cas, until)

    def give_back(self, lease: Lease, deadline: float) -> None:
        """Somebody else may load. Raises nothing: a stub that can't be removed ends by itself."""
        _tell(lease.node, requests.meta_delete(lease.name, lease.token), deadline)

    def extend(self, lease: Lease, seconds: int, deadline: float) -> None:
        """Keep others from loading for so long: it has just failed. Raises nothing."""
        _tell(lease.node, requests.meta_touch(lease.name, seconds), deadline)

    async def _ask(
        self, view: ClusterSnapshot, key: bytes, name: bytes, seconds: int, deadline: float
    ) -> tuple[ZonePool, Node, Reply, Hit] | NoLease:
        place = view.ring_position(key)
        pool = _where(view, key, place)
        if pool is None:
            return NoLease.UNREACHABLE
        node = pool.node(place)
        cas = None
        try:
            await node.connected(deadline)
            capabilities = capabilities_of(node)
            if not capabilities.leases:
                return NoLease.UNREACHABLE
            # A number that looks older than every write, and is no other stub's.
            cas = MAX_CAS - secrets.randbelow(NOT_A_VERSION) if capabilities.versions else None
            reply = await send_request(node, requests.meta_lease(name, seconds, cas), deadline)
            hit = read_hit(reply)
        except CacheError:
            return NoLease.UNREACHABLE
        except asyncio.CancelledError:
            if cas is not None:  # it may have been given: nobody would know before it ends
                _tell(node, requests.meta_delete(name, cas), deadline)
            raise
        return NoLease.UNREACHABLE if hit is None else (pool, node, reply, hit)


def _surely_until(seconds: int | None) -> float:
    """The end, on the loop's clock, of what has so many seconds left (-1: no end; None: not known)."""
    if seconds is None:
        return 0.0
    return math.inf if seconds < 0 else asyncio.get_running_loop().time() + seconds - TTL_GRANULARITY_SECONDS


def _tell(node: Node, line: bytes, deadline: float) -> None:
    """Send a command whose answer nobody waits for. No task, so that it works for who is cancelled, or closing."""
    connection = node.connection()
    if connection is None:
        return
    unread: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    unread.cancel()
    with suppress(CacheError):
        connection.request(line, unread, deadline)


def beside(key: bytes, cas: int) -> bytes:
    """Return the name of the stub that stands beside a key while the item with this CAS is to be replaced."""
    end = b"%b%016x" % (_BESIDE, cas)
    if len(key) + len(end) <= MAX_KEY_BYTES:
        return key + end
    digest = hashlib.md5(key, usedforsecurity=False).hexdigest().encode()
    return key[: MAX_KEY_BYTES - len(end) - _DIGEST_HEX] + end + digest


def _where(view: ClusterSnapshot, key: bytes, place: int) -> ZonePool | None:
    """The zone that the lease of a key is in: home, or when its node is down, the first of the key's order whose node is
    not.
    """
    home = (pool for pool in view.readers if pool.name == view.preferred_zone)
    return next((pool for pool in (*home, *view.coordinators(key)) if not pool.node(place).is_down), None)
