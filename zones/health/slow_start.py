"""Share of its reads that a node gets after it recovered. It may be empty, and a read that misses costs a second trip.

The rule is mcrouter's slow warm-up: a share of `0.1 + hit rate` of the reads, until more than nine of ten hit. The node gets
all writes, which fill it. Repair also fills it with the values that the admitted reads missed.
"""

from __future__ import annotations

import random
from collections.abc import Callable

LEAST_SHARE = 0.1
WARM_HIT_RATE = 0.9

# The hit rate is a moving average over about this number of reads, and begins at 0. A node that kept its data through the
# outage gets all of its reads again after some fifty.
MEMORY_READS = 20


class SlowStart:
    """The warm-up of one node."""

    __slots__ = ("_draw", "hit_rate")

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        """`draw` gives a number from 0 to 1."""
        self.hit_rate = 0.0
        self._draw = draw

    def admits(self) -> bool:
        """Return True if this read may go to the node first. The answer is drawn at random."""
        return self._draw() < LEAST_SHARE + self.hit_rate

    def record(self, *, hit: bool) -> None:
        """Record the reply to an admitted read."""
        self.hit_rate += (hit - self.hit_rate) / MEMORY_READS

    @property
    def is_warm(self) -> bool:
        """True if the node may get all of its reads."""
        return self.hit_rate > WARM_HIT_RATE
