"""Gives an idle process the memory of its near cache back, a little at a time.

A timer of its own, and no task: there is nothing to await, and nothing to be cancelled in the middle of. A store under
traffic sweeps itself with each put; this is for when there are none.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

# Each step looks at so many entries: 100,000 that expire together are gone after 50 s, and no step takes longer than a few
# replies do (0.8 ms, benchmarks/near_cache_costs.py).
SWEPT_PER_STEP = 200
STEP_SECONDS = 0.1


class Swept(Protocol):
    """A store, as far as this is concerned."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to look at any more."""
        ...

    def sweep(self, limit: int) -> int:
        """Look at so many of the entries next in turn."""
        ...


class Sweeper:
    """Sweeps a store for as long as it holds anything. An empty one has no timer, and nothing that keeps it in memory.

    For the event loop in which it is first woken, and for that one only.
    """

    __slots__ = ("_loop", "_stopped", "_store", "_timer")

    def __init__(self, store: Swept) -> None:
        self._store = store
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def wake(self) -> None:
        """There is something in the store. To be called after each put, in its loop; does nothing when awake, or stopped."""
        if self._timer is None and not self._stopped:
            loop = self._loop
            if loop is None:
                loop = self._loop = asyncio.get_running_loop()
            self._timer = loop.call_later(STEP_SECONDS, self._step)

    def stop(self) -> None:
        """Leave no timer behind, and make no other."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _step(self) -> None:
        self._timer = None  # first: should the sweep raise, the next put wakes it
        self._store.sweep(SWEPT_PER_STEP)
        if not self._store.is_empty:
            self.wake()
