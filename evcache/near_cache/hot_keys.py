"""Detection of keys that are read often enough to be stored in the near cache.

Reads are counted in windows of one second. The rate of a key is its count in this window, plus the part of the last window
that lies within the last second. That assumes evenly spread reads. So a key that is read at a steady rate has the same rate
at every moment. One window alone would start at zero each second, and the sum of two would count double.

Memory is bounded by the algorithm of Misra and Gries ("Finding Repeated Elements", 1982). If there is no space for another
key, each key loses one read, and keys without reads are dropped. A count is then too low by at most one in `COUNTED_KEYS` of
the window's reads. TinyLFU halves all counts instead. Keys that are read once would then keep every key below its true rate.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# The threshold is given in reads per second.
WINDOW_SECONDS = 1.0

# Keys in a window. At 20,000 reads a second of keys that are read once, a count is 5 too low. Making space takes 0.5 ms
# (benchmarks/near_cache_costs.py). Two windows take at most 1 MB.
COUNTED_KEYS = 4_096


class HotKeys:
    """Counter of reads per key that detects hot keys. Not thread-safe."""

    __slots__ = ("_began", "_clock", "_limit", "_now", "_previous", "_threshold")

    def __init__(self, threshold: int, clock: Callable[[], float] = time.monotonic, limit: int = COUNTED_KEYS) -> None:
        """Begin the first window.

        Args:
            threshold: Reads per second that make a key hot.
            clock: Returns monotonic seconds.
            limit: Largest number of keys in a window.
        """
        self._threshold = threshold
        self._clock = clock
        self._limit = limit
        self._began = clock()
        self._now: dict[bytes, int] = {}
        self._previous: dict[bytes, int] = {}

    def __len__(self) -> int:
        """Number of counts in both windows."""
        return len(self._now) + len(self._previous)

    def count(self, key: bytes) -> bool:
        """Count a read. Return True if the key had `threshold` reads within about the last second, this one included."""
        passed = self._clock() - self._began
        if passed >= WINDOW_SECONDS:
            passed = self._begin_window(passed)
        reads = self._now.get(key, 0) + 1
        if reads > 1 or len(self._now) < self._limit or self._make_room():
            self._now[key] = reads
        if reads >= self._threshold:
            return True
        previous = self._previous.get(key)
        return previous is not None and reads + previous * (1.0 - passed / WINDOW_SECONDS) >= self._threshold

    def _begin_window(self, passed: float) -> float:
        """Begin the window of the present moment. Return the seconds of it that have passed."""
        windows = int(passed / WINDOW_SECONDS)
        self._previous = self._now if windows == 1 else {}
        self._now = {}
        self._began += windows * WINDOW_SECONDS
        return max(0.0, passed - windows * WINDOW_SECONDS)  # rounding may give a number slightly below 0

    def _make_room(self) -> bool:
        """Take one read from each key. Return True if there is space. The cost is one step per read counted before."""
        self._now = {key: reads - 1 for key, reads in self._now.items() if reads > 1}
        return len(self._now) < self._limit
