"""Reads of items from the zones, for one key and for many. The first zone's hit takes the shortest way.

A miss is an answer, a failure is not. A tombstone is an answer too: a delete at this version, which is a miss to the caller.
"""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from evcache.errors import StaleReplica
from evcache.near_cache.coherence import CoherentNearCache
from evcache.near_cache.entry import NearEntry
from evcache.near_cache.s3fifo import Entry
from evcache.options import Options
from evcache.reads.bulk.portions import read_in_portions
from evcache.reads.context import ManyItems, PlainValues, ReadCall, ReadContext
from evcache.reads.failover.one_key import read_from_first, read_on, try_first_zone
from evcache.reads.failover.policy import ReadAttempt, is_settled
from evcache.reads.hedging import HedgedReader
from evcache.reads.quorum_read import read_quorum
from evcache.replication.commands.node_requests import get
from evcache.replication.reconcile import Answer, ZoneHit
from evcache.zones.errors import CacheError
from evcache.zones.health.node_health import HealthCounters
from evcache.zones.nodes.connection_set import ConnectionSet
from evcache.zones.nodes.node import Node
from evcache.zones.protocol.fields import COPY_FIELDS, READ_FIELDS, VERSION_FIELDS, Fields
from evcache.zones.protocol.replies import Hit, number, read_hit
from evcache.zones.routing.ketama import ring_position
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.transport.base import Transport
from evcache.zones.transport.core import selected
from evcache.zones.zone_pool import ZonePool

# Makes a ZoneHit without the Python frame of a NamedTuple's `__new__`, because every read makes one.
_new_zone_hit = tuple.__new__


class ReadPath(NamedTuple):
    """State that decides whether a read is ordinary. See `ZoneReader.read_path`."""

    health: HealthCounters
    connections: tuple[ConnectionSet, ...]
    points: array[int] | None
    owners: array[int] | None
    share: float


class ZoneReader:
    """The reads of one client."""

    def __init__(
        self,
        context: ReadContext,
        near: CoherentNearCache | None = None,
        hedge: HedgedReader | None = None,
    ) -> None:
        self._context = context
        self._seen = context.seen
        self.recall = context.seen.recall
        """Lookup of the latest version of a key that this client noted lately."""
        # The compiled core calls these three for an ordinary read.
        self.latest = context.seen.latest
        self.note = context.seen.note
        self.observe = context.clock.observe
        self._sampler = context.sampler
        # Counted here and not by a call, because every read counts.
        self.counts = selected.SELECTED.new_read_counts(context.sampler.draw_gap())
        self._near = near
        self._look_up: Callable[[bytes], Entry | None] = (lambda _: None) if near is None else near.look_up
        self._hedge = hedge

    def get(
        self, view: ClusterSnapshot, key: bytes, options: Options, *, flags: Fields = READ_FIELDS
    ) -> Coroutine[Any, Any, ZoneHit | None]:
        """Read a key from the zones. The near cache keeps the item if `options.near_cache` is set.

        Args:
            view: Zones of the read.
            key: Key with its namespace.
            options: Options of the call.
            flags: Fields of the item that the caller needs.

        Returns:
            A coroutine of the item. It may be a tombstone. None is a miss.

        Raises:
            CacheUnavailable: No zone answered.
            ConsistencyError: Fewer zones answered than the level requires.
        """
        if not options.one_answer:
            now = view.loop.time()
            return read_quorum(self._context, ReadCall(view, flags, options, now, now + options.timeout), key)
        if self._near is not None and options.near_cache:
            return self._read_for_near(self._near, view, key, options)
        return self.read_one(view, key, flags, options)

    def kept(self, key: bytes) -> NearEntry | None:
        """Return the near cache's entry of a key, or None. No call is cheaper: no task, no timer, no await.

        An entry that is older than a version that the client wrote or read is dropped.
        """
        entry = self._look_up(key)
        if entry is None:
            return None
        version = entry.version
        if version is not None:
            known = self.recall(key)
            if version < (self._seen.latest(key) if known is None else known):
                assert self._near is not None
                self._near.drop(key)  # a read that bypassed the near cache has seen a newer version
                return None
        return entry.value  # type: ignore[no-any-return]  # a local variable costs each near hit two instructions

    def may_renew(self, key: bytes) -> bool:
        """Return True if the near cache holds an expired entry of the key, which `renewed` may renew."""
        return self._near is not None and self._near.expired_entry(key) is not None

    async def renewed(self, view: ClusterSnapshot, key: bytes, options: Options) -> NearEntry | None:
        """Renew an expired entry if the local zone still holds the same item. The client asks for its CAS, not its value.

        Returns:
            The entry, or None if the item must be read. A failure of the zone is None too.
        """
        near = self._near
        kept = None if near is None else near.expired_entry(key)
        node = view.readers[0].node(view.ring_position(key))
        if near is None or kept is None or view.health.unhealthy or kept.version is None:
            return None
        flight = near.begin_fetch(key)
        renewed = False
        try:
            self.counts.begun += 1
            asked_at = view.loop.time()
            # Half of the first zone's share of the time, because a read of that zone may follow.
            half = options.timeout / view.max_attempts / 2
            reply = await get(node, key, VERSION_FIELDS, asked_at + half, asked_at + half)
            if reply.status == b"HD" and number(reply, b"c") == kept.cas and b"X" not in reply.tokens:
                age = view.loop.time() - asked_at
                renewed = kept.version >= self._seen.latest(key) and near.renew(flight, kept, number(reply, b"t"), age)
        except CacheError:
            return None  # the read that follows meets the same error, and fails over
        finally:
            near.abandon(flight)
        if not renewed:
            return None
        self._context.count_served(view, (key,))
        return kept

    async def _read_for_near(
        self, near: CoherentNearCache, view: ClusterSnapshot, key: bytes, options: Options
    ) -> ZoneHit | None:
        flight = near.begin_fetch(key)
        asked_at = view.loop.time()
        try:
            # With the seconds left, because they limit the time in the near cache.
            found = await self.read_one(view, key, COPY_FIELDS, options)
        except BaseException:
            near.abandon(flight)
            raise
        near.complete(flight, found, view.loop.time() - asked_at)
        return found

    async def read_one(self, view: ClusterSnapshot, key: bytes, fields: Fields, options: Options) -> ZoneHit | None:
        """Read a key from the first zone, and from others if that fails or misses."""
        now = view.loop.time()
        recent = self.recall(key)
        known = self.known(key, recent)
        first = view.readers[0]
        connection = self.ordinary_connection(view, key)
        if connection is None:
            node = first.node(view.ring_position(key))
            self.counts.begun += 1
            if view.health.unhealthy and not self._try_first(view, node):
                self._count_reads()
                call = ReadCall(view, fields, options, now, now + options.timeout)
                return await read_from_first(self._context, call, key)
        until = now + options.timeout / view.max_attempts  # `end_of_attempt`, without a call
        answer: Answer
        try:
            if connection is None and self._hedge is not None:
                first, node, hit = await self._hedge.read(view, key, fields, until, now + options.timeout)
            else:
                if connection is None:
                    connection, moved = await node.connected_by(until)
                    now, until = now + moved - until, moved
                reply = await connection.read(key, fields, until, now + options.timeout)
                hit = reply if type(reply) is Hit else read_hit(reply)
            answer = self.judge(view, key, first.name, hit, recent, known)
        except CacheError as error:
            answer = error
        if isinstance(answer, ZoneHit):
            return answer
        return await self.read_on(view, key, fields, options, now, first, known, answer)

    def ordinary_connection(self, view: ClusterSnapshot, key: bytes) -> Transport | None:
        """Return the connection for an ordinary read of the first zone. None if the read is not ordinary.

        A read is ordinary if the zones are healthy, the client does not hedge, and the key's node has an open connection.
        The read counts as begun. Its caller sends it, and passes the reply to `judge`.
        """
        if view.health.unhealthy or self._hedge is not None:
            return None
        first = view.readers[0]
        node = first.only or first.node(ring_position(key))
        connection = node.connections.sole or node.connection()
        if connection is not None:
            self.counts.begun += 1
        return connection

    def read_path(self, view: ClusterSnapshot) -> ReadPath | None:
        """Return the state that decides whether a read of these zones is ordinary, for the compiled core.

        It is ordinary while no node is unhealthy, and the key's node has a `sole` connection (`ordinary_connection`).

        Returns:
            The health of the nodes, the connections of the first zone's nodes, the points of its ring and the index of the
            node of each, and the seconds of the first attempt as a part of the timeout. None if no read is ordinary.
        """
        if self._hedge is not None:
            return None
        nodes, ring = view.readers[0].placement()
        points, owners = (None, None) if ring is None else ring.arrays()
        return ReadPath(view.health, tuple(node.connections for node in nodes), points, owners, 1 / view.max_attempts)

    def known(self, key: bytes, recent: int | None) -> int:
        """Return the version that an answer must not be older than. `recent` is the result of `recall`."""
        return self.latest(key) if recent is None else recent

    def judge(self, view: ClusterSnapshot, key: bytes, zone: str, hit: Hit | None, recent: int | None, known: int) -> Answer:
        """Return the answer of the first zone: the item, None for a miss, or the error of a zone that is behind.

        Args:
            view: Zones of the read.
            key: Key with its namespace.
            zone: Name of the zone.
            hit: Item in its reply.
            recent: Result of `recall` at the start of the read.
            known: Result of `known` at the start of the read.
        """
        if hit is None or hit.leased:
            return None
        version = self.observe(hit.cas)
        if version is not None and version != recent:
            if version < known:
                self._context.hooks.zone_behind(zone)
                return StaleReplica(version, known)
            self.note(key, version)
        self.count_served(view, key)
        return _new_zone_hit(ZoneHit, (hit, zone, version))

    def count_served(self, view: ClusterSnapshot, key: bytes) -> None:
        """Count a key that the first zone served. Compare it in all zones if the sampler chooses it."""
        counts = self.counts
        counts.hits_left -= 1
        if counts.hits_left <= 0:
            self.compare(view, key)

    def compare(self, view: ClusterSnapshot, key: bytes) -> None:
        """Compare a key in all zones, and choose the next one."""
        self.counts.hits_left = self._sampler.draw_gap()
        self._context.repair.start_comparison(view, key)

    async def read_on(
        self,
        view: ClusterSnapshot,
        key: bytes,
        fields: Fields,
        options: Options,
        began_at: float,
        first: ZonePool,
        known: int,
        answer: CacheError | None,
    ) -> ZoneHit | None:
        """Read a key that the first zone did not serve from the others.

        Args:
            view: Zones of the read.
            key: Key with its namespace.
            fields: Fields of the item that the caller needs.
            options: Options of the call.
            began_at: Start of the read, on the event loop's clock.
            first: The zone that was asked.
            known: Version that an answer must not be older than.
            answer: Its answer: None for a miss, or an error.

        Raises:
            CacheUnavailable: No zone answered.
        """
        if answer is None and not options.fallback_on_miss:
            return None
        self._count_reads()
        attempt = ReadAttempt(known)
        attempt.record(first.name, answer, is_remote=first.name != view.preferred_zone)
        order = view.read_order if first is view.read_order[0] else _with_first(first, view.read_order)
        call = ReadCall(view, fields, options, began_at, began_at + options.timeout)
        return await read_on(self._context, call, key, order, 1, attempt)

    def _try_first(self, view: ClusterSnapshot, node: Node) -> bool:
        """Take what a request to the first zone costs. Return False if failover decides about this read.

        In a large cluster some node is always down. Reads of the other nodes go on without failover.
        """
        if not is_settled(node):
            return False
        if view.readers[0].name == view.preferred_zone:
            return True
        self._count_reads()
        return try_first_zone(self._context.budget, view, 1)

    def _count_reads(self) -> None:
        """Add the reads that have begun to the failover budget. Called before anything is taken from it."""
        self._context.budget.add_reads(self.counts.begun)
        self.counts.begun = 0

    async def get_from(self, pool: ZonePool, node: Node, key: bytes, deadline: float) -> ZoneHit | None:
        """Return the item of one zone, or None for a miss. Raises a `NodeError`."""
        return self._context.interpret(pool.name, await get(node, key, COPY_FIELDS, deadline))

    def get_many(
        self,
        view: ClusterSnapshot,
        keys: Sequence[bytes],
        options: Options,
        *,
        flags: Fields = READ_FIELDS,
        plain: PlainValues | None = None,
    ) -> Awaitable[ManyItems]:
        """Read keys from the zones, very many of them in portions. The near cache keeps items if `options.near_cache`.

        The arguments are those of `get`, and `plain` for plain values that bypass the near cache. Too few answers raise
        nothing: `answered` of the result is too low then.
        """
        self._count_reads()
        if self._near is None or not options.near_cache or not options.one_answer:
            return read_in_portions(self._context, view, keys, options, flags, plain)
        return self._read_many_for_near(self._near, view, keys, options)

    async def _read_many_for_near(
        self, near: CoherentNearCache, view: ClusterSnapshot, keys: Sequence[bytes], options: Options
    ) -> ManyItems:
        flights = [near.begin_fetch(key) for key in keys]
        found: dict[bytes, ZoneHit] = {}
        asked_at = view.loop.time()
        try:
            result = await read_in_portions(self._context, view, keys, options, COPY_FIELDS)
            found = result.found
        finally:
            age = view.loop.time() - asked_at
            for flight in flights:
                near.complete(flight, found.get(flight.key), age)
        return result


def _with_first(pool: ZonePool, readers: Sequence[ZonePool]) -> tuple[ZonePool, ...]:
    """Return the zones in their order, with this one first."""
    return (pool, *(other for other in readers if other is not pool))
