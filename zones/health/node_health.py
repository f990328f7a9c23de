"""Health of a node: up, down, silent or warming up, with its past outages. The node reports changes; this module counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from evcache.zones.health.slow_start import SlowStart
from evcache.zones.routing.zone_order import is_emergency

# Outages that are listed separately. The oldest two are merged beyond that, which makes repair more careful than needed.
MAX_OUTAGES = 8


class Outage(NamedTuple):
    """A period in which a node was not reachable, on the loop's clock."""

    began: float
    ended: float


class HealthCounters:
    """Number of unhealthy nodes, and the state of the zones. All nodes of a cluster share one instance."""

    __slots__ = ("all_out", "elsewhere", "unhealthy", "urgent")

    def __init__(self) -> None:
        self.unhealthy = 0
        """Number of nodes that are down, silent or warming up. While it is 0, calls need not look at each node."""
        self.urgent = False
        """True if no healthy zone remains for failover. The client then probes nodes more often."""
        self.all_out = False
        """True if all readable zones are ejected."""
        self.elsewhere = False
        """True if a read that leaves one zone finds a second one that is not ejected."""

    def count_zones(self, ejected: int, readable: int) -> bool:
        """Store the number of ejected zones among the readable ones. Return True if this begins an emergency."""
        was_urgent = self.urgent
        self.urgent = is_emergency(ejected, readable)
        self.all_out = ejected == readable
        self.elsewhere = readable - ejected > 1
        return self.urgent and not was_urgent

    def count_node(self, difference: int) -> None:
        """Add a node that became unhealthy (1), or remove one that recovered (-1)."""
        self.unhealthy += difference


class NodeHealth:
    """The health of one node."""

    def __init__(self, loop: asyncio.AbstractEventLoop, counters: HealthCounters, on_change: Callable[[], None]) -> None:
        """Begin healthy.

        Args:
            loop: Event loop of the node.
            counters: Counters of the cluster.
            on_change: Called after the node went down, and after it recovered.
        """
        self.failure: Exception | None = None
        """Reason why the node is down. None if it is up."""
        self.outages: list[Outage] = []
        """Outages that have ended, the earliest first."""
        self._loop = loop
        self._counters = counters
        self._on_change = on_change
        self._down_since = 0.0
        self._slow_start: SlowStart | None = None
        self._warm_up_ends: asyncio.TimerHandle | None = None
        self._is_silent = False
        self._counted = False  # whether the counters include this node

    @property
    def is_urgent(self) -> bool:
        """True if no healthy zone remains for failover."""
        return self._counters.urgent

    @property
    def all_out(self) -> bool:
        """True if all readable zones are ejected."""
        return self._counters.all_out

    @property
    def elsewhere(self) -> bool:
        """True if a read that leaves this node's zone finds a second one that is not ejected."""
        return self._counters.elsewhere

    @property
    def is_silent(self) -> bool:
        """True if reads wait on the node and no byte arrives."""
        return self._is_silent

    def set_silent(self, *, silent: bool) -> None:
        """Store whether reads wait on the node without a byte arriving."""
        self._is_silent = silent
        self._count()

    def go_down(self, why: Exception) -> None:
        """Mark the node as down. If it is down already, only the reason changes."""
        before, self.failure = self.failure, why
        if before is None:
            self._down_since = self._loop.time()
            self._end_slow_start()
            self._on_change()

    def recover(self, slow_start: float) -> None:
        """Mark the node as up. Reads return to it step by step within `slow_start` seconds; 0 returns all at once."""
        if len(self.outages) == MAX_OUTAGES:
            first, second = self.outages[:2]
            self.outages[:2] = [Outage(first.began, second.ended)]
        self.outages.append(Outage(self._down_since, self._loop.time()))
        self.failure = None
        if slow_start > 0:
            self._slow_start = SlowStart()
            self._warm_up_ends = self._loop.call_later(slow_start, self._end_slow_start)
        self._count()
        self._on_change()

    def recovered_within(self, seconds: float) -> bool:
        """Return True if the last outage ended less than `seconds` ago."""
        return bool(self.outages) and self._loop.time() - self.outages[-1].ended < seconds

    def end(self) -> None:
        """Remove a closed node from the counters, and end its timer."""
        self.failure = None
        self._is_silent = False
        self._end_slow_start()

    @property
    def is_warming(self) -> bool:
        """True if the node recovered recently and gets a share of its reads only."""
        return self._slow_start is not None

    def admits_read(self) -> bool:
        """Return True if this read may go to the node first. Then report its result with `record_read`."""
        return self._slow_start is None or self._slow_start.admits()

    def record_read(self, *, hit: bool) -> None:
        """Record the reply to an admitted read. Has an effect during the warm-up only."""
        if self._slow_start is not None:
            self._slow_start.record(hit=hit)
            if self._slow_start.is_warm:
                self._end_slow_start()

    def _end_slow_start(self) -> None:
        self._slow_start = None
        if self._warm_up_ends is not None:
            self._warm_up_ends.cancel()
            self._warm_up_ends = None
        self._count()

    def _count(self) -> None:
        unhealthy = self.failure is not None or self._slow_start is not None or self._is_silent
        if unhealthy != self._counted:
            self._counters.count_node(1 if unhealthy else -1)
            self._counted = unhealthy
