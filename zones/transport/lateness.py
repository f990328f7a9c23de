"""Decisions about requests without a reply in time: which of them wait on, and whether the server is to blame.

The server is not to blame while it is in the middle of a large reply. It is not to blame for a stall of the event loop of
this process either. No I/O: the connection carries the decisions out.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

from evcache.zones.health.loop_lag import LOOK_SECONDS, STALL_SECONDS, LoopLag
from evcache.zones.transport.in_flight import ExpectReply

# A server is in the middle of a reply if a part of a value has arrived within this time, and the value is incomplete.
# Requests behind large values are late because of the bytes in front of them. They prove nothing about the server.
RECEIVING_SECONDS = 0.02

# Seconds before timeouts are blamed on the server if the loop stalled lately. Replies that have arrived are read first. A
# process with too little processor time stalls repeatedly, and so do servers on the same machine. With three busy processes
# for each core, Linux makes each of them wait for 10 to 25 ms at a time.
BENEFIT_OF_DOUBT_SECONDS = 0.1


class Late(NamedTuple):
    """Late requests at one moment."""

    late: list[ExpectReply]
    """Requests that had no reply in time."""
    nearest: float
    """Nearest deadline of the requests that wait on. Infinity if there are none."""
    blame_after: float | None
    """Seconds after which the server is to blame for the requests that have no reply by then. None if it is not to blame."""


class Lateness:
    """Lateness of one connection's requests."""

    __slots__ = ("_lag", "mid_value_at")

    def __init__(self, lag: LoopLag | None) -> None:
        self.mid_value_at = -math.inf
        """Time at which a part of an incomplete value last arrived."""
        self._lag = lag

    def sort(self, waiting: Collection[ExpectReply], now: float, *, due: float) -> Late:
        """Return the late requests. Extend the deadline of those that wait on.

        Args:
            waiting: Requests without a reply.
            now: Time on the loop's clock.
            due: Time at which the loop should have called.
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
