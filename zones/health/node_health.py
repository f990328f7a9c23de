"""Whether a node is up, was down, or has just come back, and who is to know. The node says so; this keeps the book."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from evcache.zones.health.slow_start import SlowStart

# Outages of a node that are told apart. More become one, which makes repair more careful than it needs to be.
MAX_OUTAGES = 8


class Outage(NamedTuple):
    """A time in which a node could not be reached, on the loop's clock."""

    began: float
    ended: float


class HealthCounters:
    """State of a cluster's nodes and zones as far as single nodes and calls depend on it."""

    __slots__ = ("all_out", "elsewhere", "unsettled", "urgent")

    def __init__(self) -> None:
        self.unsettled = 0
        """Number of nodes that are down, silent, or have just come back. While it is 0, calls need not ask each node."""
        self.urgent = False
        """True if so many zones are out that calls have nowhere to go. The client then probes nodes more often."""
        self.all_out = False
        """True if every readable zone is out."""
        self.elsewhere = False
        """True if a read that leaves one zone finds another one that is not out."""


class NodeHealth:
    """How one node stands."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tally: HealthCounters, on_change: Callable[[], None]) -> None:
        """`on_change()` is called when the node has gone down, and when it is back."""
        self.failure: Exception | None = None
        """Why it is down; None: it is not."""
        self.outages: list[Outage] = []
        """When it was down, the earliest first, as far as it is back from it."""
        self._loop = loop
        self._tally = tally
        self._on_change = on_change
        self._down_since = 0.0
        self._slow_start: SlowStart | None = None
        self._warm_up_ends: asyncio.TimerHandle | None = None
        self._is_silent = False
        self._counted = False  # whether the tally counts this node

    @property
    def is_urgent(self) -> bool:
        """Whether calls have nowhere to go."""
        return self._tally.urgent

    @property
    def all_out(self) -> bool:
        """True if every readable zone is out."""
        return self._tally.all_out

    @property
    def elsewhere(self) -> bool:
        """True if a read that leaves this node's zone finds another one that is not out."""
        return self._tally.elsewhere

    @property
    def is_silent(self) -> bool:
        """True if reads wait on the node and no byte arrives."""
        return self._is_silent

    @is_silent.setter
    def is_silent(self, silent: bool) -> None:
        self._is_silent = silent
        self._count()

    def go_down(self, why: Exception) -> None:
        """It is down; when it was already, only the reason is another."""
        before, self.failure = self.failure, why
        if before is None:
            self._down_since = self._loop.time()
            self._end_slow_start()
            self._on_change()

    def come_back(self, slow_start: float) -> None:
        """It is up again, and gets its reads little by little, for so many seconds at the most."""
        if len(self.outages) == MAX_OUTAGES:  # the oldest two become one
            first, second = self.outages[:2]
            self.outages[:2] = [Outage(first.began, second.ended)]
        self.outages.append(Outage(self._down_since, self._loop.time()))
        self.failure = None
        if slow_start > 0:
            self._slow_start = SlowStart()
            self._warm_up_ends = self._loop.call_later(slow_start, self._end_slow_start)
        self._count()
        self._on_change()

    def end(self) -> None:
        """It is closed: no more of all this."""
        self.failure = None
        self._is_silent = False
        self._end_slow_start()

    # After a return, reads come back little by little.

    @property
    def is_warming(self) -> bool:
        """Whether it gets a share of the reads only."""
        return self._slow_start is not None

    def admits_read(self) -> bool:
        """Whether this read may go to it first. With True, `was_read` is to be told what came of it."""
        return self._slow_start is None or self._slow_start.admits()

    def was_read(self, *, hit: bool) -> None:
        """A read was answered, while it was warming up."""
        if self._slow_start is not None:
            self._slow_start.read(hit)
            if self._slow_start.is_warm:
                self._end_slow_start()

    def _end_slow_start(self) -> None:
        self._slow_start = None
        if self._warm_up_ends is not None:
            self._warm_up_ends.cancel()
            self._warm_up_ends = None
        self._count()

    def _count(self) -> None:
        unsettled = self.failure is not None or self._slow_start is not None or self._is_silent
        self._tally.unsettled += unsettled - self._counted
        self._counted = unsettled
