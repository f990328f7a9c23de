"""Lag of the event loop, so that the client does not blame servers for stalls of its own process.

A loop that a computation blocks reads replies late, after the deadlines of their requests. The lag is measured while
requests are in flight only, so that an idle process is not woken.
"""

from __future__ import annotations

import asyncio
from collections import deque

# Seconds between two looks at the loop. A look finds a stall that is longer, or that delays this timer by chance.
LOOK_SECONDS = 0.02

# Delay of a timer from which it counts as a stall. Less is the resolution of timers and of the system's scheduler.
STALL_SECONDS = 0.005

# Seconds for which a stall is remembered. Most calls have a shorter timeout, so that all calls of the stall have ended.
REMEMBER_SECONDS = 1.0


class LoopLag:
    """The lag of one event loop."""

    __slots__ = ("_closed", "_due", "_last_stall", "_loop", "_lost", "_stalls", "_timer", "_wanted", "latest", "worst")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.latest = 0.0
        """Delay of the last look in seconds."""
        self.worst = 0.0
        """Longest delay since the client was opened, in seconds."""
        self._loop = loop
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._wanted = False
        self._closed = False
        self._lost = 0.0
        self._last_stall = -REMEMBER_SECONDS
        self._stalls: deque[tuple[float, float]] = deque()  # of the last second: time of the look, and seconds

    def watch(self) -> None:
        """Measure the lag for a while, because requests are being sent."""
        self._wanted = True
        if self._timer is None and not self._closed:
            self._look_later()

    def stalled_lately(self, now: float) -> bool:
        """Return True if the loop was stalled in the last second, or is now, when its look is overdue."""
        if self._timer is not None and now - self._due > STALL_SECONDS:
            self._last_stall = now
        return now - self._last_stall < REMEMBER_SECONDS

    def lost_since(self, since: float, now: float) -> float:
        """Return the seconds for which the loop was stalled since a time in the last second."""
        lost = sum(min(stall, seen_at - since) for seen_at, stall in self._stalls if seen_at > since)
        late = now - self._due if self._timer is not None else 0.0
        return lost + (min(late, now - since) if late > STALL_SECONDS else 0.0)

    def lost(self, now: float) -> float:
        """Return the seconds of all stalls since the client was opened, with the present one."""
        late = now - self._due if self._timer is not None else 0.0
        return self._lost + (late if late > STALL_SECONDS else 0.0)

    def close(self) -> None:
        """End the measurement, also if requests are still sent."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_later(self) -> None:
        self._wanted = False
        self._due = self._loop.time() + LOOK_SECONDS
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        self.latest = now - self._due
        self.worst = max(self.worst, self.latest)
        if self.latest > STALL_SECONDS:
            self._last_stall = now
            self._lost += self.latest
            self._stalls.append((now, self.latest))
            while self._stalls[0][0] < now - REMEMBER_SECONDS:
                self._stalls.popleft()
        self._timer = None
        if self._wanted:
            self._look_later()
