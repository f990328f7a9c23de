"""How much of its reads a node gets that has just come back: it may be empty, and a read that misses costs a second trip.

mcrouter's slow warm-up: a share of `0.1 + hit rate` of the reads, until more than nine of ten hit. Writes go there in full,
which fills it, and so does the repair of what the admitted reads missed.
"""

from __future__ import annotations

import random
from collections.abc import Callable

LEAST_SHARE = 0.1
WARM_HIT_RATE = 0.9

# The hit rate is a moving average over about this many reads, beginning at 0: a node that was only out of reach, and still
# has everything, is back to all of its reads after some fifty.
MEMORY_READS = 20


class SlowStart:
    """The warm-up of one node."""

    __slots__ = ("_draw", "hit_rate")

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        """`draw` gives a number from 0 to 1."""
        self.hit_rate = 0.0
        self._draw = draw

    def admits(self) -> bool:
        """Whether this read may go to the node first."""
        return self._draw() < LEAST_SHARE + self.hit_rate

    def read(self, hit: bool) -> None:  # noqa: FBT001  # the one thing that a read can tell
        """An admitted read was answered."""
        self.hit_rate += (hit - self.hit_rate) / MEMORY_READS

    @property
    def is_warm(self) -> bool:
        """Whether the node may have all of its reads."""
        return self.hit_rate > WARM_HIT_RATE
