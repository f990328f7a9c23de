"""How late the event loop runs its timers: what this process does must not be blamed on servers.

A loop that is held up by a computation reads replies late, and every deadline of the meantime passes. Looked at while
requests are under way and not at other times: an idle process is not woken.
"""

from __future__ import annotations

import asyncio
from collections import deque

# How often the loop is looked at. A stall is noticed when it is longer than this, or happens to hold up this timer.
LOOK_SECONDS = 0.02

# A timer that is later than this was held up; less is the grain of timers and of the system's scheduler.
STALL_SECONDS = 0.005

# A stall is remembered for this long: longer than the timeout of most calls, so that the calls it made late have ended.
REMEMBER_SECONDS = 1.0


class LoopLag:
    """The lag of one event loop."""

    __slots__ = ("_closed", "_due", "_last_stall", "_loop", "_lost", "_stalls", "_timer", "_wanted", "latest", "worst")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.latest = 0.0
        """Seconds by which the last look was late."""
        self.worst = 0.0
        """The most, ever."""
        self._loop = loop
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._wanted = False
        self._closed = False
        self._lost = 0.0
        self._last_stall = -REMEMBER_SECONDS
        self._stalls: deque[tuple[float, float]] = deque()  # of the last second: when each was seen, and its seconds

    def watch(self) -> None:
        """Requests are being sent: look at the loop for a while."""
        self._wanted = True
        if self._timer is None and not self._closed:
            self._look_later()

    def stalled_lately(self, now: float) -> bool:
        """Whether the loop stood still at some time in the last second, or does now (it has not come to look)."""
        if self._timer is not None and now - self._due > STALL_SECONDS:
            self._last_stall = now
        return now - self._last_stall < REMEMBER_SECONDS

    def lost_since(self, since: float, now: float) -> float:
        """Return the seconds for which the loop stood still since then; of the last second alone."""
        lost = sum(min(stall, seen_at - since) for seen_at, stall in self._stalls if seen_at > since)
        late = now - self._due if self._timer is not None else 0.0
        return lost + (min(late, now - since) if late > STALL_SECONDS else 0.0)

    def lost(self, now: float) -> float:
        """Seconds for which it was seen to stand still, ever, this moment included."""
        late = now - self._due if self._timer is not None else 0.0
        return self._lost + (late if late > STALL_SECONDS else 0.0)

    def close(self) -> None:
        """Look no more, also when something is still sent."""
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
