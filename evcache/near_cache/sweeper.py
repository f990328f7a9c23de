"""Timer that frees expired entries of an idle near cache, a few at a time.

A timer and no task: it awaits nothing, and a cancellation cannot interrupt it. A store under traffic sweeps itself with each
put, so the timer matters only without puts.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

# Entries that a step visits. 100,000 entries that expire together are gone after 50 s. A step takes at most 0.8 ms, like a
# few replies (benchmarks/near_cache_costs.py).
SWEPT_PER_STEP = 200
STEP_SECONDS = 0.1


class Sweepable(Protocol):
    """Store with expired entries."""

    @property
    def is_empty(self) -> bool:
        """True if there is nothing left to visit."""
        ...

    def sweep(self, limit: int) -> int:
        """Visit the next `limit` entries, and drop the expired ones. Return the number dropped."""
        ...


class Sweeper:
    """Timer that sweeps a store while it holds entries. An empty store has no timer, so that nothing keeps it in memory.

    It belongs to the event loop of the first `wake`.
    """

    __slots__ = ("_loop", "_stopped", "_store", "_timer")

    def __init__(self, store: Sweepable) -> None:
        self._store = store
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def wake(self) -> None:
        """Start the timer after a put, on the store's loop. No effect if it runs, or after `stop`."""
        if self._timer is None and not self._stopped:
            loop = self._loop
            if loop is None:
                loop = self._loop = asyncio.get_running_loop()
            self._timer = loop.call_later(STEP_SECONDS, self._step)

    def stop(self) -> None:
        """Cancel the timer, and start no other."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _step(self) -> None:
        self._timer = None  # First: if the sweep raises, the next put starts the timer again.
        self._store.sweep(SWEPT_PER_STEP)
        if not self._store.is_empty:
            self.wake()
