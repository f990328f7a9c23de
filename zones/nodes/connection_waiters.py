"""Calls that wait until a node has a connection. One timer serves all of them.

A service may start thousands of calls when it opens its client. A timer and an exception for each would block the event
loop, and the connection itself would be late.
"""

from __future__ import annotations

import asyncio
import math

from evcache.zones.health.loop_lag import LOOK_SECONDS, LoopLag


class ConnectionWaiters:
    """The waiting calls of one node."""

    def __init__(self, loop: asyncio.AbstractEventLoop, lag: LoopLag | None) -> None:
        self._loop = loop
        self._lag = lag
        self._waiting: dict[asyncio.Future[bool], _Wait] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    async def wait(self, deadline: float) -> float | None:
        """Wait for `wake`.

        Args:
            deadline: End of the wait, on the loop's clock. It moves by the time for which the event loop is stalled.

        Returns:
            The deadline, moved or not. None if it has passed.
        """
        waiter: asyncio.Future[bool] = self._loop.create_future()
        wait = self._waiting[waiter] = _Wait(deadline, self._loop.time())
        if self._lag is not None:
            self._lag.watch()
        if deadline < self._timer_at:
            self._look_at(deadline)
        try:
            return wait.deadline if await waiter else None
        finally:
            self._waiting.pop(waiter, None)

    def wake(self) -> None:
        """Wake all calls that wait now."""
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(True)
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, math.inf

    def _look_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer, self._timer_at = None, math.inf
        now = self._loop.time()
        nearest = math.inf
        for waiter, wait in self._waiting.items():
            if wait.deadline <= now and not wait.get_back(now, self._lag):
                if not waiter.done():
                    waiter.set_result(False)
            else:
                nearest = min(nearest, wait.deadline)
        if nearest < math.inf:
            if self._lag is not None:
                self._lag.watch()
            self._look_at(nearest)


class _Wait:
    """One call that waits."""

    __slots__ = ("_counted_from", "_was_moved", "deadline")

    def __init__(self, deadline: float, now: float) -> None:
        self.deadline = deadline
        self._counted_from = now
        self._was_moved = False

    def get_back(self, now: float, lag: LoopLag | None) -> bool:
        """Move the deadline by the stalls since the last move. Return False if it has passed nevertheless."""
        lost = 0.0 if lag is None else lag.lost_since(self._counted_from, now)
        if lost and not self._was_moved:  # a measured stall may be up to `LOOK_SECONDS` too short
            lost += LOOK_SECONDS
            self._was_moved = True
        self.deadline += lost
        self._counted_from = now
        return self.deadline > now
