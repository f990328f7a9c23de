"""Which keys are read so often that it pays to hold them in this process.

Reads are counted by windows of a second. What a key had "within the last second" is what it had in this window, and of the
window before it the share that still lies within that second, as if its reads had been spread evenly: so a key that is read
at a steady pace counts for the same at every moment. With one window alone it would begin at nothing each second; the sum of
two would count double.

Bounded by what Misra and Gries found ("Finding repeated elements", 1982): where there is no place for another key, each key
loses one read, and those that have none left go. A key is at most one in `COUNTED_KEYS` of a window's reads short, however
many others there are. Halving all counts instead, as TinyLFU does, would keep every key below its pace as long as most reads
are for keys that come once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# Seconds. Readers of the threshold think in reads a second.
WINDOW_SECONDS = 1.0

# Keys in a window. At 20,000 reads a second, of keys that come once, a key is counted 5 short. Making room takes 0.5 ms
# (benchmarks/near_cache_costs.py), and two windows 1 MB at the most.
COUNTED_KEYS = 4_096


class HotKeys:
    """Counts reads by key, and says of which there are many. Not for several threads."""

    __slots__ = ("_before", "_began", "_clock", "_limit", "_now", "_threshold")

    def __init__(self, threshold: int, clock: Callable[[], float] = time.monotonic, limit: int = COUNTED_KEYS) -> None:
        """`threshold`: reads in a second that make a key hot. `clock`: seconds, never going back. `limit`: keys a window."""
        self._threshold = threshold
        self._clock = clock
        self._limit = limit
        self._began = clock()
        self._now: dict[bytes, int] = {}
        self._before: dict[bytes, int] = {}

    def __len__(self) -> int:
        """Keys that are counted now, some of them twice."""
        return len(self._now) + len(self._before)

    def count(self, key: bytes) -> bool:
        """Count a read. True when the key had `threshold` or more within about the last second, with this one."""
        passed = self._clock() - self._began
        if passed >= WINDOW_SECONDS:
            passed = self._turn(passed)
        reads = self._now.get(key, 0) + 1
        if reads > 1 or len(self._now) < self._limit or self._made_room():
            self._now[key] = reads
        if reads >= self._threshold:
            return True
        before = self._before.get(key)
        return before is not None and reads + before * (1.0 - passed / WINDOW_SECONDS) >= self._threshold

    def _turn(self, passed: float) -> float:
        """Begin another window; the seconds of it that have passed."""
        windows = int(passed / WINDOW_SECONDS)
        self._before = self._now if windows == 1 else {}
        self._now = {}
        self._began += windows * WINDOW_SECONDS
        # A hair under 0 where so many windows were a hair more than had passed.
        return max(0.0, passed - windows * WINDOW_SECONDS)

    def _made_room(self) -> bool:
        """Take a read from each key. As many were counted before, so this is no more than a step for each that was."""
        self._now = {key: reads - 1 for key, reads in self._now.items() if reads > 1}
        return len(self._now) < self._limit
