"""Reads: the near cache, the local zone, then the others; or several zones at once, for calls that ask for more answers.

A miss is an answer, a failure is not. A tombstone is an answer too: "deleted, at this version", and a miss to the caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from evcache.errors import StaleReplica
from evcache.near_cache.coherence import CoherentNearCache
from evcache.near_cache.entry import NearEntry
from evcache.near_cache.s3fifo import Entry
from evcache.options import Options
from evcache.reads.context import ReadContext
from evcache.reads.failover import Attempts, Fallback
from evcache.reads.hedging import HedgedReader
from evcache.reads.multi_get import MultiGet
from evcache.reads.portions import read_in_portions
from evcache.reads.quorum_read import QuorumReader
from evcache.replication.node_requests import read_elsewhere_if_silent, send_request
from evcache.replication.reconcile import ZoneHit
from evcache.zones.cluster import ClusterSnapshot
from evcache.zones.errors import CacheError
from evcache.zones.nodes.node import Node
from evcache.zones.protocol import requests
from evcache.zones.protocol.fields import Fields
from evcache.zones.protocol.replies import Reply, number, read_hit
from evcache.zones.routing.ketama import ring_position
from evcache.zones.zone_pool import ZonePool

# To see whether an item is still the one that is known.
_VERSION_FLAGS = b"c t"

# The same as Found(...), without a Python-level __new__ in between: there is one for every read.
_new_found = tuple.__new__


class ZoneReader:
    """How one client reads."""

    def __init__(
        self,
        parts: ReadContext,
        near: CoherentNearCache | None = None,
        hedge: HedgedReader | None = None,
    ) -> None:
        self._parts = parts
        self._clock = parts.clock
        self._remembered = parts.remembered
        self._recall = parts.remembered.recall
        self._budget = parts.budget
        self._sampler = parts.sampler
        # Counted here and not by a call, because every read counts.
        self._reads_begun = 0  # since the last call of `_count_reads`
        self._hits_left = parts.sampler.draw_gap()  # until the next key that is compared in all zones
        self._near = near
        self._look_up: Callable[[bytes], Entry | None] = (lambda _: None) if near is None else near.look_up
        self._hedge = hedge
        self._fallback = Fallback(parts)
        self._several = QuorumReader(parts)
        self._many = MultiGet(parts)

    def get(
        self,
        view: ClusterSnapshot,
        key: bytes,
        options: Options,
        *,
        flags: Fields = requests.READ_FLAGS,
    ) -> Coroutine[Any, Any, ZoneHit | None]:
        """Read a key from the zones. What was found may be a tombstone, which is a miss to the caller; None: nothing was.

        The near cache may keep it if `options.near_cache`; `kept` looks into it. Raises `CacheUnavailable` when no zone
        answered, `ConsistencyError` when fewer than asked for did.
        """
        if self._near is not None and options.near_cache and options.one_answer:
            return self._for_near(self._near, view, key, options)
        line = requests.meta_get(key, flags)
        if options.one_answer:
            return self._from_one(view, key, line, options)
        return self._several.get(view, key, line, options)

    def kept(self, key: bytes) -> NearEntry | None:
        """What the near cache has under a key. No call is cheaper: no task, no timer, nothing awaited."""
        entry = self._look_up(key)
        if entry is None:
            return None
        kept: NearEntry = entry.value
        version = entry.version
        if version is not None:
            known = self._recall(key)
            if version < (self._remembered.latest(key) if known is None else known):
                assert self._near is not None
                self._near.drop(key)  # a read that passed by the near cache has seen a newer one
                return None
        return kept

    def may_renew(self, key: bytes) -> bool:
        """Whether the near cache has an item whose time there is over, and `renewed` is worth a try."""
        return self._near is not None and self._near.expired_entry(key) is not None

    async def renewed(self, view: ClusterSnapshot, key: bytes, options: Options) -> NearEntry | None:
        """The item whose time in the near cache is over, if the local zone still has this very one: asked for without its
        value.

        None: it has to be read after all. Raises nothing.
        """
        near = self._near
        kept = None if near is None else near.expired_entry(key)
        node = view.readers[0].node(view.ring_position(key))
        if near is None or kept is None or view.health.unhealthy or kept.version is None:
            return None
        flight = near.begin_fetch(key)
        renewed = False
        try:
            self._reads_begun += 1
            asked_at = view.loop.time()
            # Half of what a read may take in its first zone, since that may come after it.
            half = options.timeout / view.max_attempts / 2
            line = requests.meta_get(key, _VERSION_FLAGS)
            reply = await read_elsewhere_if_silent(node, line, asked_at + half, asked_at + half)
            if reply.status == b"HD" and number(reply, b"c") == kept.cas and b"X" not in reply.tokens:
                age = view.loop.time() - asked_at
                renewed = kept.version >= self._remembered.latest(key) and near.renew(flight, kept, number(reply, b"t"), age)
        except CacheError:
            return None  # the read that follows finds out the same, and does something about it
        finally:
            near.abandon(flight)
        if not renewed:
            return None
        self._parts.served(view, key)
        return kept

    async def _for_near(
        self,
        near: CoherentNearCache,
        view: ClusterSnapshot,
        key: bytes,
        options: Options,
    ) -> ZoneHit | None:
        flight = near.begin_fetch(key)
        asked_at = view.loop.time()
        try:
            # With the seconds that are left, which bound how long it may be kept.
            line = requests.meta_get(key, requests.COPY_FLAGS)
            found = await self._from_one(view, key, line, options)
        except BaseException:
            near.abandon(flight)
            raise
        near.complete(flight, found, view.loop.time() - asked_at)
        return found

    async def _from_one(
        self,
        view: ClusterSnapshot,
        key: bytes,
        line: bytes,
        options: Options,
    ) -> ZoneHit | None:
        self._reads_begun += 1
        loop = view.loop
        now = loop.time()
        readers = view.readers
        local = readers[0]
        node = local.node(ring_position(key) if view.sharded else 0)
        if view.health.unhealthy and not self._goes_straight(view, local, node):
            self._count_reads()
            return await self._fallback.from_the_first(view, key, line, options)
        # One zone may not use up the time of those after it.
        until = now + options.timeout / view.max_attempts
        recent = self._recall(key)
        known = self._remembered.latest(key) if recent is None else recent
        failure: CacheError | None = None
        try:
            if self._hedge is not None:
                local, node, hit = await self._hedge.read(view, key, line, until, now + options.timeout)
            else:
                connection = node.connection()
                if connection is None:
                    connection, moved = await node.connected_by(until)
                    now, until = now + moved - until, moved
                answer: asyncio.Future[Reply] = loop.create_future()
                connection.read(line, answer, until, now + options.timeout)
                hit = read_hit(await answer)
        except CacheError as error:
            failure = error
        else:
            if hit is not None and not hit.leased:
                version = self._clock.observe(hit.cas)
                if version is None or version >= known:
                    if version != recent and version is not None:
                        self._remembered.note(key, version)
                    self._hits_left -= 1
                    if self._hits_left <= 0:
                        self._hits_left = self._sampler.draw_gap()
                        self._parts.repair.check(view, key)
                    return _new_found(ZoneHit, (hit, local.name, version))
                failure = StaleReplica(version, known)
                self._parts.hooks.zone_behind(local.name)
            elif not options.fallback_on_miss:
                return None
        self._count_reads()
        attempts = Attempts(known)
        attempts.enter(local, node, failure)
        attempts.abroad = int(local.name != view.preferred_zone)
        order = readers if local is readers[0] else _first(local, readers)
        deadline = now + options.timeout
        return await self._fallback.go_on(view, order, 1, key, line, options, deadline, attempts)

    def _goes_straight(self, view: ClusterSnapshot, first: ZonePool, node: Node) -> bool:
        """Whether a read can go to its first node as ever, although some node is down: of thousands, one always is."""
        if node.is_down or node.is_warming or node.is_silent:
            return False
        if first.name == view.preferred_zone:
            return True
        self._count_reads()
        return self._budget.try_take_all()

    def _count_reads(self) -> None:
        """Add the reads that have begun to the failover budget. Called before anything is taken from it."""
        self._budget.add_reads(self._reads_begun)
        self._reads_begun = 0

    async def get_from(self, pool: ZonePool, node: Node, key: bytes, deadline: float) -> ZoneHit | None:
        """The item in one zone, or None for a miss. Raises a `NodeError`."""
        return self._parts.found(pool.name, await send_request(node, requests.meta_get(key, requests.COPY_FLAGS), deadline))

    async def get_many(
        self,
        view: ClusterSnapshot,
        keys: Sequence[bytes],
        options: Options,
        *,
        flags: Fields = requests.READ_FLAGS,
    ) -> tuple[dict[bytes, ZoneHit], dict[str, CacheError], int]:
        """The items, known absences too, why zones failed, and the least number of zones that answered for any key.

        Every node of a zone is asked at once, and the next zone only for the keys that are still missing.
        """
        self._count_reads()
        if self._near is None or not options.near_cache or not options.one_answer:
            return await read_in_portions(self._many, view, keys, options, flags)
        flights = [self._near.begin_fetch(key) for key in keys]
        found: dict[bytes, ZoneHit] = {}
        asked_at = view.loop.time()
        try:
            found, failures, answered = await read_in_portions(self._many, view, keys, options, requests.COPY_FLAGS)
        finally:
            age = view.loop.time() - asked_at
            for flight in flights:
                self._near.complete(flight, found.get(flight.key), age)
        return found, failures, answered


def _first(pool: ZonePool, readers: Sequence[ZonePool]) -> tuple[ZonePool, ...]:
    return (pool, *(other for other in readers if other is not pool))
