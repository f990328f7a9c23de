"""Hedged reads: if the first zone is slower than usual, a second zone is asked, and the first hit wins.

Hedging is off by default. As in Finagle's backup requests, the delay is the 95th percentile of the zone's own latency, and
a budget limits the share of hedged reads. A zone that is slow for all reads therefore does not double the load of the next
one. There is no hedge while the event loop of this process is late, because every zone looks slow then.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import NamedTuple

from evcache.hooks import Hooks
from evcache.reads.failover.budget import TokenBucket
from evcache.zones.errors import CacheError
from evcache.zones.health.loop_lag import STALL_SECONDS
from evcache.zones.nodes.node import Node
from evcache.zones.protocol.fields import Fields
from evcache.zones.protocol.replies import Hit, Reply, read_hit
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.transport.in_flight import give_up
from evcache.zones.validation import positive_fraction, positive_seconds
from evcache.zones.zone_pool import ZonePool

# Reads between two calculations of the percentile.
SAMPLES = 256
PERCENTILE = 0.95

# Number of hedges that the budget saves: one slow moment delays all reads in flight at once.
BURST = 32.0


@dataclass(frozen=True, slots=True)
class Hedging:
    """Settings of hedged reads."""

    share: float = 0.02
    """Share of all reads that may ask a second zone."""

    least_delay: float = 0.001
    """Shortest delay before a hedge, in seconds. Finagle has the same."""

    def __post_init__(self) -> None:
        positive_fraction(self.share, "share")
        positive_seconds(self.least_delay, "least_delay")


class Latencies:
    """95th percentile of the latency of one zone."""

    __slots__ = ("_samples", "percentile")

    def __init__(self) -> None:
        self.percentile: float | None = None
        """Seconds. None until there are enough samples."""
        self._samples: list[float] = []

    def add(self, latency: float) -> None:
        """Add the latency of a read, in seconds."""
        self._samples.append(latency)
        if len(self._samples) == SAMPLES:
            self._samples.sort()
            self.percentile = self._samples[int(PERCENTILE * SAMPLES)]
            self._samples.clear()


class HedgedHit(NamedTuple):
    """Answer of a hedged read, and the node that gave it."""

    pool: ZonePool
    node: Node
    hit: Hit | None


class Hedge(NamedTuple):
    """A request to the second zone."""

    pool: ZonePool
    node: Node
    reply: asyncio.Future[Reply]


class HedgedReader:
    """Hedged reads of one client."""

    def __init__(self, settings: Hedging, hooks: Hooks) -> None:
        self.budget = TokenBucket(settings.share, BURST)
        self._least_delay = settings.least_delay
        self._hooks = hooks
        self._latencies: dict[str, Latencies] = {}

    async def read(self, view: ClusterSnapshot, key: bytes, fields: Fields, deadline: float, latest: float) -> HedgedHit:
        """Read a key from the first zone, or from the second one if that has the key and is faster.

        A miss of one zone waits for the other zone. Cancellation drops the replies that are in flight.

        Args:
            view: Zones of the read.
            key: Key with its namespace.
            fields: Fields of the item that the read asks for.
            deadline: End of the first zone's share of the time, on the event loop's clock.
            latest: End of the call.

        Raises:
            NodeError: The first zone failed.
        """
        position = view.ring_position(key)
        first, node = view.readers[0], view.readers[0].node(position)
        connection = node.connection() or await node.connected(deadline)
        reply: asyncio.Future[Reply] = view.loop.create_future()
        began = view.loop.time()
        connection.get(key, fields, reply, deadline, latest)
        self.budget.add_reads()
        latencies = self._latencies.setdefault(first.name, Latencies())
        hedge: Hedge | None = None
        try:
            if latencies.percentile is not None:
                await asyncio.wait([reply], timeout=max(self._least_delay, latencies.percentile))
                if not reply.done():
                    hedge = self._send_hedge(view, position, key, fields, deadline)
            if hedge is not None:
                won = await _race(reply, hedge.reply)
                self._hooks.hedged(hedge.pool.name, won=won is not None)
                if won is not None:
                    # The first zone takes longer than this. Without these samples the percentile would sink.
                    latencies.add(view.loop.time() - began)
                    return HedgedHit(hedge.pool, hedge.node, won)
            answer = await reply
            latencies.add(view.loop.time() - began)
            return HedgedHit(first, node, read_hit(answer))
        finally:
            give_up(reply)
            if hedge is not None:
                give_up(hedge.reply)

    def _send_hedge(self, view: ClusterSnapshot, position: int, key: bytes, fields: Fields, deadline: float) -> Hedge | None:
        """Ask the second zone. Return None if there is none, or if this read may not be hedged."""
        if len(view.readers) == 1 or view.lag.latest > STALL_SECONDS or view.lag.stalled_lately(view.loop.time()):
            return None
        pool = view.readers[1]
        node = pool.node(position)
        connection = node.connection()
        if connection is None or not self.budget.try_take():
            return None
        reply: asyncio.Future[Reply] = view.loop.create_future()
        try:
            connection.get(key, fields, reply, deadline)
        except CacheError:
            return None
        return Hedge(pool, node, reply)


async def _race(first: asyncio.Future[Reply], second: asyncio.Future[Reply]) -> Hit | None:
    """Return the second zone's hit if it comes before a hit of the first zone. None means that the first zone counts."""
    await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
    if first.done() and _hit_of(first) is not None:
        return None
    if not second.done():
        await asyncio.wait([second])
    return _hit_of(second)


def _hit_of(reply: asyncio.Future[Reply]) -> Hit | None:
    """Return the hit in a reply that has arrived, None for a miss or a failure."""
    if reply.cancelled() or reply.exception() is not None:
        return None
    try:
        hit = read_hit(reply.result())
    except CacheError:
        return None  # the reader of this reply gets the error
    return None if hit is None or hit.leased else hit
