"""Histogram of latencies in constant memory."""

from __future__ import annotations

import math
from collections import Counter

# Growth of the bucket bounds of a latency histogram. Quantiles are exact to 5 %, in constant memory.
BUCKET_GROWTH = 1.05
SHORTEST_SECONDS = 1e-6


class Latencies:
    """Histogram of latencies."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()

    @property
    def count(self) -> int:
        """Number of latencies."""
        return self._buckets.total()

    def add(self, seconds: float) -> None:
        """Count a call that took `seconds`."""
        self._buckets[math.ceil(math.log(max(seconds, SHORTEST_SECONDS), BUCKET_GROWTH))] += 1

    def quantile(self, share: float) -> float | None:
        """Return the latency in seconds that `share` (0 to 1) of the calls did not exceed. None without calls."""
        wanted = share * self._buckets.total()
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted <= 0:
                return float(BUCKET_GROWTH**bucket)
        return None
