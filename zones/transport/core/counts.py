"""Counts of reads, which the core keeps, because every read changes them."""

from __future__ import annotations


class ReadCounts:
    """Counts of the reads of one client."""

    __slots__ = ("begun", "hits_left")

    def __init__(self, hits_left: float) -> None:
        self.begun = 0
        """Number of reads that have begun since their owner looked."""
        self.hits_left = hits_left
        """Number of keys that the first zone serves until the one that is compared in all zones, that one included."""
