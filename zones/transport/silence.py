"""Detector of a stalled server: reads wait on its connection, and no byte arrives.

A circuit opens after timeouts, and the deadline of a read is long compared with the usual time of a reply. All reads until
then would wait. This detector moves them to another zone after some milliseconds of silence. It opens no circuit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Protocol

from evcache.zones.errors import NodeSilent
from evcache.zones.health.loop_lag import STALL_SECONDS
from evcache.zones.transport.in_flight import ExpectReply, movable, move_away

# Number of reads that must wait. With fewer, one late reply would look like a stalled server. It equals the number of
# timeouts after which a circuit opens.
SUSPICIOUS_READS = 3


class Watched(Protocol):
    """Connection, as the detector sees it."""

    name: str

    @property
    def quiet_since(self) -> float:
        """Time of the last byte, or of the first request since nothing waited."""
        ...

    @property
    def waiting(self) -> Collection[ExpectReply]:
        """Requests whose reply has not been read."""
        ...


class SilenceDetector:
    """Detector of one connection. It has at most one timer, and none while no request waits."""

    __slots__ = (
        "_connection",
        "_due",
        "_loop",
        "_may_move",
        "_measures",
        "_patience",
        "_round_trip",
        "_timer",
        "is_watching",
    )

    def __init__(
        self,
        connection: Watched,
        loop: asyncio.AbstractEventLoop,
        patience: float,
        may_move: Callable[[], bool],
    ) -> None:
        """Make the detector of a connection.

        Args:
            connection: The connection.
            loop: Event loop of the connection.
            patience: Seconds without a byte, beyond two round trips, after which the server is silent.
            may_move: Called when the server is silent, again and again until it returns True. Then the reads that wait fail
                with `NodeSilent`.
        """
        self.is_watching = False
        """True while a timer runs."""
        self._connection = connection
        self._loop = loop
        self._patience = patience
        self._may_move = may_move
        # Seconds of the quickest reply to a request on an idle connection. None before the first one. A far server is silent
        # for that time after each burst. The first reply alone is not enough: a stall may have delayed the handshake.
        self._round_trip: float | None = None
        self._measures = False  # True if the next byte ends a round trip
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def begin(self) -> None:
        """Begin to watch: a request was sent on an idle connection. The connection calls `heard` with the next byte."""
        self._measures = True
        self._watch()

    def heard(self, quiet: float) -> None:
        """Record that a byte arrived after `quiet` seconds."""
        if self._measures:
            self._measures = False
            self._round_trip = quiet if self._round_trip is None else min(self._round_trip, quiet)
        if not self.is_watching and self._connection.waiting:
            self._watch()

    def _watch(self) -> None:
        if self._round_trip is not None:
            self._look_at(self._loop.time() + self._limit)

    def stop(self) -> None:
        """Stop watching."""
        self.is_watching = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def _limit(self) -> float:
        return self._patience + 2 * (self._round_trip or 0.0)

    def _look_at(self, when: float) -> None:
        self._due = when
        self.is_watching = True
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer = None
        self.is_watching = False
        waiting = self._connection.waiting
        if not waiting:
            return
        now = self._loop.time()
        silent_at = self._connection.quiet_since + self._limit
        if now - self._due > STALL_SECONDS:  # the loop stalled: requests may have left just now
            self._look_at(now + self._limit / 2)
        elif now < silent_at:
            self._look_at(silent_at)
        elif len(movable(waiting)) < SUSPICIOUS_READS:
            self._look_at(now + self._limit / 2)
        elif self._may_move():
            self._move(now)
        else:  # try later: another connection of the node answers, or every zone is ejected
            self._look_at(now + self._limit)

    def _move(self, now: float) -> None:
        reads = movable(self._connection.waiting)
        problem = f"no byte in {now - self._connection.quiet_since:.3f} s, and {len(reads)} reads wait"
        move_away(reads, lambda: NodeSilent(problem, self._connection.name))
