"""Hedged reads: a second zone is asked when the first is slower than it usually is; the first answer that is a hit wins.

Off unless asked for. As Finagle's backup requests: after the 95th percentile of the zone's own latency, and for a bounded
share of reads, so that a zone which is slow for all does not double the load of the next. Not at all while this process's
own event loop is late, for then every zone looks slow.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from evcache.hooks import Hooks
from evcache.reads.failover_budget import TokenBucket
from evcache.zones.cluster import ClusterSnapshot
from evcache.zones.errors import CacheError
from evcache.zones.health.loop_lag import STALL_SECONDS
from evcache.zones.nodes.node import Node
from evcache.zones.protocol.replies import Hit, Reply, read_hit
from evcache.zones.validation import positive_fraction, positive_seconds
from evcache.zones.zone_pool import ZonePool

# Latencies of the last so many reads; the percentile is taken anew after as many.
SAMPLES = 256
PERCENTILE = 0.95

# Hedges that may have been saved up: a single slow moment, with all the callers that were waiting in it.
BURST = 32.0


@dataclass(frozen=True, slots=True)
class Hedging:
    """When a read asks a second zone while it waits for the first."""

    share: float = 0.02
    """Of all reads, the share that may ask a second zone."""

    least_delay: float = 0.001
    """Seconds that the first zone gets in any case (Finagle's least)."""

    def __post_init__(self) -> None:
        positive_fraction(self.share, "share")
        positive_seconds(self.least_delay, "least_delay")


class Latencies:
    """The 95th percentile of the last reads of a zone."""

    __slots__ = ("_next", "_samples", "percentile")

    def __init__(self) -> None:
        self.percentile: float | None = None
        """Seconds; None while there are too few samples."""
        self._samples: list[float] = []

    def add(self, latency: float) -> None:
        """A read took so many seconds."""
        self._samples.append(latency)
        if len(self._samples) == SAMPLES:
            self._samples.sort()
            self.percentile = self._samples[int(PERCENTILE * SAMPLES)]
            self._samples.clear()


class HedgedReader:
    """The hedged reads of one client."""

    def __init__(self, settings: Hedging, hooks: Hooks) -> None:
        self.budget = TokenBucket(settings.share, BURST)
        self._least_delay = settings.least_delay
        self._hooks = hooks
        self._latencies: dict[str, Latencies] = {}

    async def read(
        self, view: ClusterSnapshot, key: bytes, line: bytes, deadline: float, latest: float
    ) -> tuple[ZonePool, Node, Hit | None]:
        """What the first zone says, or the second where that is quicker. Raises a `NodeError` when the first failed.

        `deadline`: when the share of the first zone ends. `latest`: when the call ends.

        A miss of one waits for the other. Cancelling leaves nothing behind: replies to nobody are dropped.
        """
        place = view.ring_position(key)
        first, node = view.readers[0], view.readers[0].node(place)
        connection = node.connection() or await node.connected(deadline)
        answer: asyncio.Future[Reply] = view.loop.create_future()
        began = view.loop.time()
        connection.read(line, answer, deadline, latest)
        self.budget.add_reads()
        latencies = self._latencies.setdefault(first.name, Latencies())
        second: tuple[ZonePool, Node, asyncio.Future[Reply]] | None = None
        try:
            if latencies.percentile is not None:
                await asyncio.wait([answer], timeout=max(self._least_delay, latencies.percentile))
                if not answer.done():
                    second = self._ask_second(view, place, line, deadline)
            if second is not None:
                won = await self._race(answer, second)
                self._hooks.hedged(second[0].name, won=won is not None)
                if won is not None:
                    latencies.add(view.loop.time() - began)  # at least: without these the percentile would sink
                    return second[0], second[1], won
            reply = await answer
            latencies.add(view.loop.time() - began)
            return first, node, read_hit(reply)
        finally:
            _give_up(answer)
            if second is not None:
                _give_up(second[2])

    def _ask_second(
        self, view: ClusterSnapshot, place: int, line: bytes, deadline: float
    ) -> tuple[ZonePool, Node, asyncio.Future[Reply]] | None:
        if len(view.readers) == 1 or view.lag.latest > STALL_SECONDS or view.lag.stalled_lately(view.loop.time()):
            return None
        pool = view.readers[1]
        connection = pool.node(place).connection()
        if connection is None or not self.budget.try_take():
            return None
        answer: asyncio.Future[Reply] = view.loop.create_future()
        try:
            connection.request(line, answer, deadline)
        except CacheError:
            return None
        return pool, pool.node(place), answer

    async def _race(self, answer: asyncio.Future[Reply], second: tuple[ZonePool, Node, asyncio.Future[Reply]]) -> Hit | None:
        """The second zone's hit, if it comes before anything that the first says; None: the first zone's answer counts."""
        await asyncio.wait([answer, second[2]], return_when=asyncio.FIRST_COMPLETED)
        if answer.done() and _hit(answer) is not None:
            return None
        if not second[2].done():
            await asyncio.wait([second[2]])
        return _hit(second[2])


def _hit(answer: asyncio.Future[Reply]) -> Hit | None:
    """What an answer that has come found; None for a miss or a failure."""
    if answer.cancelled() or answer.exception() is not None:
        return None
    try:
        hit = read_hit(answer.result())
    except CacheError:
        return None  # whoever takes this for the answer meets the error there
    return None if hit is None or hit.leased else hit


def _give_up(answer: asyncio.Future[Reply]) -> None:
    # One that failed must be looked at, or asyncio reports it as an error that nobody handled.
    if not answer.cancel() and not answer.cancelled():
        answer.exception()
