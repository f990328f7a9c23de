"""Decisions about requests without a reply in time: which of them wait on, and whether the server is to blame.

The server is not to blame while it is in the middle of a large reply, nor for a time in which this process's event loop
stood still. No I/O; the connection does what is decided.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

from evcache.zones.health.loop_lag import LOOK_SECONDS, STALL_SECONDS, LoopLag
from evcache.zones.transport.in_flight import ExpectReply

# A server is in the middle of a reply if bytes of a value have arrived within this time, and more of the value is to come.
# Requests that wait behind large values are late because of the bytes in front of them, and say nothing about the server.
RECEIVING_SECONDS = 0.02

# Seconds before timeouts are blamed on the server if the loop stood still lately. Replies that are here already are read
# first. A process that has too little of the processor stands still again and again, and its servers on the same machine
# do so, too: with three busy processes for each core, Linux lets each of them wait for 10 to 25 ms at a time.
BENEFIT_OF_DOUBT_SECONDS = 0.1


class Late(NamedTuple):
    """Requests of one moment."""

    late: list[ExpectReply]
    """Requests that had no reply in time."""
    nearest: float
    """Deadline of the next that waits; infinity without any."""
    blame_after: float | None
    """Seconds after which the server is to blame for those that are still without a reply; None if it is not."""


class Lateness:
    """Lateness of one connection's requests."""

    __slots__ = ("_lag", "mid_value_at")

    def __init__(self, lag: LoopLag | None) -> None:
        self.mid_value_at = -math.inf
        """Time when bytes of a value last arrived, with more to come."""
        self._lag = lag

    def sort(self, waiting: Collection[ExpectReply], now: float, *, due: float) -> Late:
        """Sort out the requests that are late. Moves the deadline of those that wait on.

        `due`: when the loop should have looked.
        """
        lag = self._lag
        if lag is not None and waiting:
            lag.watch()
        stalled = lag is not None and lag.stalled_lately(now)
        lost = 0.0 if lag is None else lag.lost_since(self.mid_value_at, now)
        # `LoopLag` sees a stall by up to `LOOK_SECONDS` too short.
        is_receiving = now - self.mid_value_at - lost < RECEIVING_SECONDS + (LOOK_SECONDS if lost else 0.0)
        wait_on_until = now + RECEIVING_SECONDS / 2
        nearest = math.inf
        late: list[ExpectReply] = []
        for pending in waiting:
            if pending.waiter.done():
                continue
            if pending.deadline > now or (is_receiving and pending.wait_on(wait_on_until, to_the_end=stalled)):
                nearest = min(nearest, pending.deadline)
            else:
                late.append(pending)
        if not late or is_receiving:
            return Late(late, nearest, None)
        is_doubtful = lag is not None and (stalled or now - due > STALL_SECONDS)
        return Late(late, nearest, BENEFIT_OF_DOUBT_SECONDS if is_doubtful else 0.0)
